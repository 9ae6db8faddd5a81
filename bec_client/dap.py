"""Fits by the data pipeline: `bec.dap.GaussianModel.fit(report, "samx", "samx", "bpm4i", "bpm4i")`.

Models come from what the data pipeline publishes; the arithmetic is done there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bec_client.report import raise_error
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ParameterError, ServiceDown
from bec_lib.messages import (
    AvailableModelsMessage,
    DAPConfigMessage,
    DAPRequestMessage,
    DAPResponseMessage,
    FitResult,
    ModelInfo,
    ProcessedDataMessage,
)
from bec_lib.scans.signature import did_you_mean

if TYPE_CHECKING:
    from bec_client.client import BECClient

FIT_S = 30.0


class Fit:
    """The result of a fit. Parameters are attributes: `.center`, `.sigma` ...; `.params`, `.errors`, `.report`."""

    def __init__(self, result: FitResult, x: str = "", y: str = "", source: Any = None):
        self.result = result
        self.x = x
        self.y = y
        self._source = source

    @property
    def params(self) -> dict[str, float]:
        """Parameter -> value, in the units of the data."""
        return dict(self.result.params)

    @property
    def errors(self) -> dict[str, float | None]:
        """Parameter -> standard error; None where it could not be estimated."""
        return dict(self.result.errors)

    @property
    def report(self) -> str:
        """The fit's own report, as text."""
        return self.result.report

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """The fitted curve: x and y on a fine grid."""
        return self.result.curve_x, self.result.curve_y

    def eval(self, x: Any) -> np.ndarray:
        """The fitted curve at x, interpolated; within the range of the data."""
        return np.interp(np.asarray(x, dtype=float), self.result.curve_x, self.result.curve_y)

    def plot(self, png: str | None = None) -> None:
        """Draw data and curve in the terminal, and into a PNG file if one is named."""
        from bec_client import plots

        figure = (
            plots.from_scan(self._source, x=self.x, y=self.y)
            if self._source is not None
            else plots.from_fit(self)
        )
        figure = figure.with_fit(self.result)
        print(plots.terminal(figure))
        if png:
            plots.save_png(figure, png)

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        params = self.__dict__["result"].params
        if name in params:
            return params[name]
        raise AttributeError(f"this fit has no parameter {name!r}; it has {', '.join(params)}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.result.params})

    def __repr__(self) -> str:
        return fit_line(self.result, self.x, self.y)


def fit_line(result: FitResult, x: str = "", y: str = "", unit: str = "") -> str:
    """One line: model, parameters with errors."""
    parts = []
    for name, value in result.params.items():
        error = result.errors.get(name)
        parts.append(f"{name} {value:.5g}" + (f" ± {error:.2g}" if error is not None else ""))
    what = f" of {_short(y)} over {_short(x)}" if x and y else ""
    state = "" if result.success else f" (failed: {result.message})"
    return f"{' + '.join(result.models)}{what}: {', '.join(parts)}{state}"


def _short(column: str) -> str:
    device, _, signal = column.partition(".")
    return device if signal in ("", device) else column


class Model:
    """A model that data can be fitted to, or the sum of several: `bec.dap.GaussianModel + bec.dap.ConstantModel`."""

    def __init__(self, client: BECClient, *parts: ModelInfo):
        self._client = client
        self._parts = parts
        self.models = [part.name for part in parts]
        self.name = " + ".join(self.models)
        docs = "\n\n".join(part.doc for part in parts)
        self.__doc__ = f"{docs}\n\nParameters: {', '.join(self.parameters)}\n"

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters. Parts of a sum that share a name get `m1_`, `m2_`, ... by their place in front."""
        found: list[str] = []
        for n, part in enumerate(self._parts, 1):
            others = {name for m, other in enumerate(self._parts, 1) if m != n for name in other.parameters}
            prefix = f"m{n}_" if others.intersection(part.parameters) else ""
            found += [prefix + name for name in part.parameters]
        return found

    def __add__(self, other: object) -> Model:
        if not isinstance(other, Model):
            return NotImplemented
        return Model(self._client, *self._parts, *other._parts)

    def fit(
        self,
        data: Any,
        x_device: str = "",
        x_entry: str = "",
        y_device: str = "",
        y_entry: str = "",
        *,
        parameters: Mapping[str, Mapping[str, Any] | float] | None = None,
        x_min: float | None = None,
        x_max: float | None = None,
        timeout: float = FIT_S,
    ) -> Fit:
        """Fit a scan's data, and return the result.

        data: a report, a scan, a scan of the history, a scan id, or a pair of arrays (x, y).
        x_device, x_entry: the first motor by default; y_device, y_entry: must be named, unless selected before.
        parameters: name -> start value, or {"value", "vary", "min", "max", "expr"}.
        Raises what went wrong with the fit, DeadlineExceeded after `timeout` seconds.
        """
        x, y = _column(x_device, x_entry), _column(y_device, y_entry)
        selected = self._client.dap.selected
        if not y and selected:
            y = selected
        starts = {
            name: dict(value) if isinstance(value, Mapping) else {"value": float(value)}
            for name, value in (parameters or {}).items()
        }
        unknown = [name for name in starts if self.parameters and name not in self.parameters]
        if unknown:
            raise ParameterError(
                f"{self.name} has no parameter {', '.join(unknown)}; it has {', '.join(self.parameters)}"
            )
        client = self._client
        what = f"the fit of {self.name}"
        client.service_status.require(["data_pipeline"], what)
        ticket = client.connection.ticket(what)
        common: dict[str, Any] = {
            "request_id": ticket.request_id,
            "client_id": client.client_id,
            "models": self.models,
            "parameters": starts,
            "x_min": x_min,
            "x_max": x_max,
        }
        if isinstance(data, tuple) and len(data) == 2:
            arrays = [np.asarray(item, dtype=float) for item in data]
            request = DAPRequestMessage(**common, x_data=arrays[0], y_data=arrays[1])
            source = None
        else:
            scan_id, source = _scan_of(data)
            if not y:
                raise ParameterError(
                    f"say what to fit: {self.name}.fit(report, 'samx', 'samx', 'bpm4i', 'bpm4i')"
                )
            request = DAPRequestMessage(**common, scan_id=scan_id, x=x, y=y)
        client.connection.send(client.connection.fit_requests, request)
        client.connection.wait(ticket.answered, what, ["data_pipeline"], timeout)
        answer: DAPResponseMessage = ticket.answer
        if not answer.success or answer.fit is None:
            raise_error(answer.error, f"{what} failed, and the data pipeline gave no reason")
        assert answer.fit is not None
        return Fit(answer.fit, x, y, source)

    def select(self, device: Any, signal: str = "", x: str = "") -> None:
        """Fit this signal with this model in every scan to come (switch it on with `auto_run = True`)."""
        y = _column(str(getattr(device, "dotted_name", device)), signal)
        self._client.dap.configure(models=self.models, y=y, x=x)

    @property
    def auto_run(self) -> bool:
        """Whether every scan is fitted with this model as its points arrive."""
        config = self._client.dap.automatic
        return config.enabled and config.models == self.models

    @auto_run.setter
    def auto_run(self, value: bool) -> None:
        self._client.dap.configure(enabled=bool(value), models=self.models)

    def __repr__(self) -> str:
        return f"<{self.name}({', '.join(self.parameters)})>"


class DAP:
    """The models of the data pipeline: `bec.dap.<TAB>`."""

    def __init__(self, client: BECClient):
        self._client = client

    def models(self) -> dict[str, ModelInfo]:
        found = self._client.broker.get(Endpoints.available_models)
        if found is None:
            return {}
        message: AvailableModelsMessage = found.message
        return message.models

    @property
    def automatic(self) -> DAPConfigMessage:
        """What is fitted by itself in every scan."""
        found = self._client.broker.get(Endpoints.dap_config)
        return found.message if found else DAPConfigMessage()

    @property
    def selected(self) -> str:
        """The signal that `select` chose, as "device.signal"."""
        return self.automatic.y

    def configure(self, **changes: Any) -> None:
        """Change what is fitted by itself: enabled, models, x, y."""
        config = self.automatic.model_copy(update=changes)
        if config.enabled and not config.y:
            raise ParameterError("choose a signal first: bec.dap.GaussianModel.select(dev.bpm4i)")
        self._client.broker.put(Endpoints.dap_config, config)

    def results(self, scan: Any) -> list[Fit]:
        """The latest result of each live fit of a scan."""
        scan_id, source = _scan_of(scan)
        item = self._client.scan_storage.item(scan_id)
        return [Fit(m.fit, m.x, m.y, source) for m in item.fits if m.fit is not None]

    def __getattr__(self, name: str) -> Model:
        if name.startswith("_"):
            raise AttributeError(name)
        models = self.models()
        if name not in models:
            if not models:
                raise ServiceDown(
                    self._client.service_status.sentence(["data_pipeline"], f"the model {name}")
                )
            raise AttributeError(f"there is no model {name!r}.{did_you_mean(name, models)}")
        return Model(self._client, models[name])

    def __getitem__(self, name: str) -> Model:
        return self.__getattr__(name)

    def __dir__(self) -> list[str]:
        return [*self.models(), "automatic", "models", "results", "selected"]

    def __repr__(self) -> str:
        return f"<fit models: {', '.join(self.models()) or 'none; is the data pipeline running?'}>"


def describe_live(message: ProcessedDataMessage) -> str:
    """One line about a live fit."""
    if message.fit is not None:
        return fit_line(message.fit, message.x, message.y)
    return f"fit of {message.y}: {message.error.error_message if message.error else 'no result'}"


def _column(device: str, entry: str) -> str:
    device = str(getattr(device, "dotted_name", device) or "")
    return f"{device}.{entry}" if device and entry else device


def _scan_of(data: Any) -> tuple[str, Any]:
    if isinstance(data, str):
        return data, None
    scan = getattr(data, "scan", data)
    scan_id = getattr(scan, "scan_id", None)
    if not isinstance(scan_id, str) or not scan_id:
        raise BECError(f"{data!r} is no scan: give a report, a scan, a scan id, or a pair of arrays (x, y)")
    return scan_id, scan
