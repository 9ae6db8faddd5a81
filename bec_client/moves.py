"""The four words for moving by hand: mv and umv to a position, mvr and umvr by a distance.

mv(dev.samx, 1, dev.samy, 2)     returns at once with a report
umv(dev.samx, 1)                 shows the move and returns when it is done
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bec_client.report import ScanReport

if TYPE_CHECKING:
    from bec_client.client import BECClient


def move_functions(client: BECClient) -> dict[str, Callable[..., Any]]:
    """mv, umv, mvr, umvr, wm and so on, bound to a client."""

    def mv(*device_target: Any) -> ScanReport:
        """Move devices to positions, all at the same time, and return at once.

        mv(dev.samx, 1) or mv(dev.samx, 1, dev.samy, 2); `.wait()` on what is returned.
        """
        return client.scans.submit("mv", device_target, {"relative": False})

    def mvr(*device_distance: Any) -> ScanReport:
        """Move devices by distances from where they are, and return at once."""
        return client.scans.submit("mv", device_distance, {"relative": True})

    def umv(*device_target: Any) -> None:
        """Move devices to positions, show it, and return when all have arrived. Ctrl-C stops them."""
        client.live_updates.show_move(mv(*device_target))

    def umvr(*device_distance: Any) -> None:
        """Move devices by distances from where they are, show it, and return when all have arrived."""
        client.live_updates.show_move(mvr(*device_distance))

    def wm(*devices: Any) -> None:
        """Print where devices are: wm(), wm("sam*"), wm(dev.samx, dev.samy)."""
        client.devices.wm(list(devices) if devices else None)

    return {"mv": mv, "mvr": mvr, "umv": umv, "umvr": umvr, "wm": wm}
