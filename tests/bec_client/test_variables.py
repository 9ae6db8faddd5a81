"""Variables that all clients share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib.errors import BECError, ParameterError


def test_a_variable_is_seen_by_all_clients(bec: Any, connect_as: Any) -> None:
    bec.set_global_var("gap", {"offset": 1.5, "device": bec.devices.samx})
    eve = connect_as("eve")
    assert eve.get_global_var("gap") == {"offset": 1.5, "device": "samx"}
    eve.set_global_var("gap", np.arange(3.0))
    assert list(bec.get_global_var("gap")) == [0, 1, 2]
    assert bec.get_global_var("nothing") is None


def test_variables_are_listed_and_deleted(bec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bec.show_global_vars()
    assert "No global variables" in capsys.readouterr().out
    for name in ("b", "a", "b"):
        bec.set_global_var(name, name * 2)
    assert bec.global_vars() == {"a": "aa", "b": "bb"}
    bec.delete_global_var("a")
    assert bec.global_vars() == {"b": "bb"}
    bec.set_global_var("a", 3)
    bec.show_global_vars()
    out = capsys.readouterr().out
    assert "a" in out and "bb" in out and "ada" in out


def test_wrong_uses_are_told(bec: Any) -> None:
    bec.set_global_var("sample_name", "gold")
    with pytest.raises(ParameterError, match="'a b' cannot be the name of a global variable"):
        bec.set_global_var("a b", 1)
    with pytest.raises(ParameterError, match="'f' cannot hold a function"):
        bec.set_global_var("f", lambda: None)
    with pytest.raises(ParameterError, match="'big' cannot hold a ndarray"):
        bec.set_global_var("big", np.zeros(10_000))
    with pytest.raises(BECError, match=r"no global variable 'sample_nam'. Did you mean sample_name"):
        bec.delete_global_var("sample_nam")


def test_the_sample_goes_into_every_scan(bec: Any, fleet: Any) -> None:
    bec.set_global_var("sample_name", "gold")
    scan = bec.scans.line_scan
    scan(bec.devices.samx, 0, 1, steps=2, hide_report=True)
    scan(bec.devices.samx, 0, 1, steps=2, hide_report=True, metadata={"sample_name": "lead"})
    sent = [request.metadata for request in fleet.requests if hasattr(request, "scan_type")]
    assert [metadata["sample_name"] for metadata in sent] == ["gold", "lead"]
