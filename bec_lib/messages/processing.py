"""Live data processing: what can be fitted, what is asked, what came out."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from bec_lib.messages.base import ErrorInfo, Message, Part


class ModelInfo(Part):
    """A model that data can be fitted to. parameters: their names in lmfit's order."""

    name: str
    parameters: list[str] = []
    doc: str = ""


class AvailableModelsMessage(Message):
    """The models that the data pipeline offers. failed: plugin -> why it could not be loaded."""

    msg_type: ClassVar[str] = "available_models"

    models: dict[str, ModelInfo]
    failed: dict[str, str] = {}


class DAPRequestMessage(Message):
    """Please fit. On the points of a scan (x, y as "device.signal" or "device"), or on the arrays given.

    continuous: refit as points arrive, until the scan is sealed; each result goes to the scan's fits, the
    last one is the answer.
    parameters: name -> {"value", "vary", "min", "max", "expr"} to start from; else they are guessed.
    models: one model name, or several that are added up.
    """

    msg_type: ClassVar[str] = "dap_request"

    request_id: str
    client_id: str
    models: list[str]
    scan_id: str | None = None
    x: str = ""
    y: str = ""
    x_data: np.ndarray | None = None
    y_data: np.ndarray | None = None
    continuous: bool = False
    parameters: dict[str, dict[str, Any]] = {}
    x_min: float | None = None
    x_max: float | None = None


class FitResult(Part):
    """What a fit gave. params, errors: name -> value and standard error (None if it could not be estimated),
    in the units of the data.

    curve_x, curve_y: the fitted curve on a fine grid. num_points: data points that were used.
    """

    models: list[str]
    params: dict[str, float]
    errors: dict[str, float | None]
    success: bool
    message: str = ""
    chi_square: float = 0.0
    reduced_chi_square: float | None = None
    r_squared: float | None = None
    num_points: int = 0
    curve_x: np.ndarray
    curve_y: np.ndarray
    report: str = ""


class ProcessedDataMessage(Message):
    """A result of the data pipeline for a scan. request_id: of the request that wanted it, or "auto"."""

    msg_type: ClassVar[str] = "processed_data"

    scan_id: str
    request_id: str
    x: str
    y: str
    fit: FitResult | None = None
    error: ErrorInfo | None = None
    final: bool = False


class DAPResponseMessage(Message):
    """The one answer to a `DAPRequestMessage`."""

    msg_type: ClassVar[str] = "dap_response"

    request_id: str
    success: bool
    fit: FitResult | None = None
    error: ErrorInfo | None = None


class DAPConfigMessage(Message):
    """What is fitted by itself in every scan. x "" means the first motor. enabled False: nothing."""

    msg_type: ClassVar[str] = "dap_config"

    enabled: bool = False
    models: list[str] = ["GaussianModel"]
    x: str = ""
    y: str = ""
