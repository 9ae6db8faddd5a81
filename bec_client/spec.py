"""SPEC's words for scans, as the released BEC offers them: `bec.load_high_level_interface("spec_hli")`.

steps are points, as in `scans.line_scan`: SPEC itself counts intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bec_client.report import ScanReport

if TYPE_CHECKING:
    from bec_client.client import BECClient


def spec_functions(client: BECClient) -> dict[str, Callable[..., Any]]:
    """ascan, a2scan, dscan, d2scan, amesh and dmesh, bound to a client."""

    def scan(name: str, *args: Any, **kwargs: Any) -> ScanReport:
        return client.scans.run(name, *args, **kwargs)

    def ascan(
        motor1: Any, m1_from: float, m1_to: float, steps: int, exp_time: float, **kwargs: Any
    ) -> ScanReport:
        """Scan a motor between two positions: ascan(dev.samx, -1, 1, 11, 0.1)."""
        given = {"steps": steps, "exp_time": exp_time, "relative": False, **kwargs}
        return scan("line_scan", motor1, m1_from, m1_to, **given)

    def dscan(
        motor1: Any, m1_from: float, m1_to: float, steps: int, exp_time: float, **kwargs: Any
    ) -> ScanReport:
        """Scan a motor around where it is: dscan(dev.samx, -1, 1, 11, 0.1)."""
        given = {"steps": steps, "exp_time": exp_time, "relative": True, **kwargs}
        return scan("line_scan", motor1, m1_from, m1_to, **given)

    def a2scan(
        motor1: Any, m1_from: float, m1_to: float, motor2: Any, m2_from: float, m2_to: float, steps: int,
        exp_time: float, **kwargs: Any,
    ) -> ScanReport:  # fmt: skip
        """Scan two motors together between two positions each."""
        given = {"steps": steps, "exp_time": exp_time, "relative": False, **kwargs}
        return scan("line_scan", motor1, m1_from, m1_to, motor2, m2_from, m2_to, **given)

    def d2scan(
        motor1: Any, m1_from: float, m1_to: float, motor2: Any, m2_from: float, m2_to: float, steps: int,
        exp_time: float, **kwargs: Any,
    ) -> ScanReport:  # fmt: skip
        """Scan two motors together around where they are."""
        given = {"steps": steps, "exp_time": exp_time, "relative": True, **kwargs}
        return scan("line_scan", motor1, m1_from, m1_to, motor2, m2_from, m2_to, **given)

    def amesh(
        motor1: Any, m1_from: float, m1_to: float, m1_steps: int, motor2: Any, m2_from: float, m2_to: float,
        m2_steps: int, exp_time: float, **kwargs: Any,
    ) -> ScanReport:  # fmt: skip
        """Scan two motors over a grid."""
        given = {"exp_time": exp_time, "relative": False, **kwargs}
        return scan("grid_scan", motor1, m1_from, m1_to, m1_steps, motor2, m2_from, m2_to, m2_steps, **given)

    def dmesh(
        motor1: Any, m1_from: float, m1_to: float, m1_steps: int, motor2: Any, m2_from: float, m2_to: float,
        m2_steps: int, exp_time: float, **kwargs: Any,
    ) -> ScanReport:  # fmt: skip
        """Scan two motors over a grid around where they are."""
        given = {"exp_time": exp_time, "relative": True, **kwargs}
        return scan("grid_scan", motor1, m1_from, m1_to, m1_steps, motor2, m2_from, m2_to, m2_steps, **given)

    return {function.__name__: function for function in (ascan, a2scan, dscan, d2scan, amesh, dmesh)}
