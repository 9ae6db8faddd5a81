"""The plugins with scans and modifiers that the scan server has: `bec.plugins.show()`, `bec.plugins.reload()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from bec_client.interlocks import ask
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ReasonCode, error_for
from bec_lib.messages import AvailableScansMessage, PluginReloadMessage, PluginsReloaded

if TYPE_CHECKING:
    from rich.table import Table

    from bec_client.client import BECClient

# The scan server gives up after 30 s.
RELOADED_S = 40.0


class Outcome(str):
    """What came of a reload, in words; `report` has it by name."""

    report: PluginsReloaded

    def __new__(cls, report: PluginsReloaded) -> Outcome:
        made = super().__new__(cls, told(report))
        made.report = report
        return made

    __repr__ = str.__str__


class Plugins:
    """Plugins with scans and modifiers. Printed, they are a table."""

    def __init__(self, client: BECClient):
        self._client = client

    @property
    def message(self) -> AvailableScansMessage:
        """The catalogue, as the scan server has published it."""
        found = self._client.broker.get(Endpoints.available_scans)
        if found is None:
            raise error_for(
                ReasonCode.SERVICE_DOWN, "there is no catalogue of scans yet; is the scan server running?"
            )
        message: AvailableScansMessage = found.message
        return message

    @property
    def failed(self) -> dict[str, str]:
        """Plugin -> why it, or a part of it, is not used."""
        return dict(self.message.failed)

    def show(self) -> None:
        """Print the plugins, with their scans and what their modifiers do."""
        from bec_client.tables import show

        show(plugin_table(self.message))

    def reload(self) -> Outcome:
        """Let the scan server import the plugins again: new ones, changed ones, and those that are mended.

        A plugin that now fails is named, and stays as it was before. Raises what the scan server refuses: while a scan of a
        plugin runs or waits, nothing is reloaded.
        """
        client = self._client
        answer = ask(
            client,
            "reload the plugins",
            lambda request_id: PluginReloadMessage(request_id=request_id, client_id=client.client_id),
            RELOADED_S,
        )
        client.scans.reload()
        return Outcome(TypeAdapter(PluginsReloaded).validate_python(_plain(answer.result)))

    def __str__(self) -> str:
        from bec_client.tables import as_text

        return as_text(plugin_table(self.message))

    __repr__ = __str__


def told(report: PluginsReloaded) -> str:
    """A line for each kind of news."""
    lines = [
        f"{title}: {', '.join(names)}."
        for title, names in (("New", report.loaded), ("Changed", report.changed), ("Gone", report.removed))
        if names
    ]
    lines += [f"{name} cannot be used: {reason}." for name, reason in report.failed.items()]
    return "\n".join(lines) or "All plugins are as they were."


def plugin_table(message: AvailableScansMessage) -> Table:
    """One row for each plugin."""
    from rich.table import Table

    table = Table("plugin", "from", "scans", "modifiers", "state")
    names = dict.fromkeys([*message.plugins, *message.failed])
    for name in names:
        scans = [info.name for info in message.scans.values() if info.plugin == name]
        modifiers = [
            f"{modifier.name.partition('.')[2]}: {_effects(modifier.scans)}"
            for modifier in message.modifiers.values()
            if modifier.plugin == name
        ]
        many = f"{len(scans)} scans" if len(scans) > 8 else ", ".join(scans)
        table.add_row(
            name, message.plugins.get(name, ""), many, "\n".join(modifiers), message.failed.get(name, "ok")
        )
    return table


def _effects(scans: Mapping[str, list[str]]) -> str:
    """The same is said once: `before points of line_scan, grid_scan`."""
    by_effect: dict[str, list[str]] = {}
    for scan, effects in scans.items():
        by_effect.setdefault(", ".join(effects), []).append(scan)
    return "; ".join(
        f"{effect} of {', '.join(names) if len(names) <= 4 else f'{len(names)} scans'}"
        for effect, names in by_effect.items()
    )


def _plain(result: Any) -> Any:
    return result.model_dump() if isinstance(result, PluginsReloaded) else result
