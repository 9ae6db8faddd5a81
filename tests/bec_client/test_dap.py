"""Fits: models from what is published, results with their parameters as attributes, automatic fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ParameterError, ServiceDown


def test_a_fit_of_a_scan(bec: Any, fleet: Any) -> None:
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True).wait(10)
    fit = bec.dap.GaussianModel.fit(report, "samx", "samx", "bpm4i", "bpm4i")
    assert (fit.center, fit.params["sigma"], fit.errors["center"]) == (0.37, 0.4, 0.001)
    assert repr(fit) == "GaussianModel of bpm4i over samx: center 0.37 ± 0.001, sigma 0.4"
    np.testing.assert_allclose(fit.eval([-0.25, 0.0]), [1.5, 2.0])
    request = fleet.requests[-1]
    assert (request.scan_id, request.x, request.y) == (report.scan.scan_id, "samx.samx", "bpm4i.bpm4i")
    with pytest.raises(AttributeError, match="no parameter 'height'; it has center, sigma"):
        _ = fit.height


def test_a_fit_of_arrays(bec: Any, fleet: Any) -> None:
    assert bec.dap["GaussianModel"].fit(([0, 1, 2], [1, 2, 1]), parameters={"center": 1}).center == 0.37
    request = fleet.requests[-1]
    np.testing.assert_array_equal(request.x_data, [0, 1, 2])
    assert request.parameters == {"center": {"value": 1.0}}


def test_models_are_added_up(bec: Any, fleet: Any) -> None:
    twice = bec.dap.GaussianModel + bec.dap.GaussianModel
    assert twice.parameters[0] == "m1_amplitude"
    twice.fit(([0, 1, 2], [1, 2, 1]), parameters={"m2_center": 1})
    assert fleet.requests[-1].models == ["GaussianModel", "GaussianModel"]
    with pytest.raises(TypeError):
        _ = bec.dap.GaussianModel + 1


def test_wrong_calls_are_refused_before_anything_is_sent(bec: Any, fleet: Any) -> None:
    model = bec.dap.GaussianModel
    with pytest.raises(ParameterError, match="no parameter slope; it has amplitude, center, sigma"):
        model.fit(([0], [1]), parameters={"slope": 1})
    with pytest.raises(ParameterError, match="say what to fit"):
        model.fit("some-scan-id")
    with pytest.raises(BECError, match="3 is no scan"):
        model.fit(3, "samx", "samx", "bpm4i", "bpm4i")
    with pytest.raises(AttributeError, match=r"no model 'GausianModel'\. Did you mean GaussianModel"):
        _ = bec.dap.GausianModel
    assert not fleet.requests


def test_without_the_data_pipeline_a_fit_fails_at_once(bec: Any, fleet: Any) -> None:
    model = bec.dap.GaussianModel
    fleet.alive.remove("data_pipeline")
    fleet.beat()
    with pytest.raises(ServiceDown, match="data pipeline"):
        model.fit(([0, 1], [1, 2]))


def test_automatic_fits_are_configured(bec: Any) -> None:
    model = bec.dap.GaussianModel
    with pytest.raises(ParameterError, match="choose a signal first"):
        model.auto_run = True
    model.select(bec.devices.bpm4i)
    model.auto_run = True
    assert bec.dap.automatic == m.DAPConfigMessage(enabled=True, models=["GaussianModel"], y="bpm4i")
    assert model.auto_run
    model.auto_run = False
    assert not bec.dap.automatic.enabled


def test_live_fits_of_a_scan_are_seen(bec: Any, fleet: Any) -> None:
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True).wait(10)
    fit = m.FitResult(
        models=["GaussianModel"], params={"center": 0.1}, errors={"center": None}, success=True,
        curve_x=np.zeros(2), curve_y=np.zeros(2),
    )  # fmt: skip
    fleet.brokers["data_pipeline"].append(
        Endpoints.processed_data(report.scan.scan_id),
        m.ProcessedDataMessage(
            scan_id=report.scan.scan_id, request_id="auto", x="samx.samx", y="bpm4i.bpm4i", fit=fit
        ),
    )
    # The seal was read: fits may come after it.
    report.scan.points.pull(block_s=1)
    assert [item.center for item in bec.dap.results(report)] == [0.1]
