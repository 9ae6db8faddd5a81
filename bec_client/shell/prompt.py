"""The prompt: a dot for the state of the fleet, the account, the line number and the next scan number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.terminal.prompts import Prompts, Token
from prompt_toolkit.filters import Condition

from bec_lib.errors import BECError

if TYPE_CHECKING:
    from bec_client.client import BECClient

# green: all services run; yellow: one that is not needed for scanning is silent; red: no scans now.
_GREEN, _YELLOW, _RED = "#00aa00", "#ccaa00", "#dd0000"
_ESSENTIAL = {"scan_server", "device_server", "scan_bundler", "file_writer"}


class BecPrompts(Prompts):
    """`● p12345 [3/42] ❯❯ `"""

    client: BECClient | None = None

    def in_prompt_tokens(self, cli: Any = None) -> Any:
        account, number, color = "", "?", _RED
        if self.client is not None:
            try:
                missing = set(self.client.service_status.missing(self.client.service_status.roles))
                color = _GREEN if not missing else _RED if missing & _ESSENTIAL else _YELLOW
                account = self.client.account
                number = str(self.client.queue.next_scan_number)
            except BECError:
                color = _RED
        return [
            (_style(color), "● "),
            (Token.Prompt, f"{account} " if account else ""),
            (Token.Prompt, "["),
            (Token.PromptNum, str(self.shell.execution_count)),
            (Token.Prompt, f"/{number}] ❯❯ "),
        ]

    def continuation_prompt_tokens(self, width: int | None = None, **kwargs: Any) -> Any:
        return [(Token.Prompt, " " * max(0, (width or 5) - 4) + "... ")]

    def out_prompt_tokens(self) -> Any:
        return []


def _style(color: str) -> Any:
    return {_GREEN: Token.Bec.Ok, _YELLOW: Token.Bec.Warn, _RED: Token.Bec.Bad}[color]


STYLES = {Token.Bec.Ok: _GREEN, Token.Bec.Warn: _YELLOW, Token.Bec.Bad: _RED}


def bind_interrupt(shell: Any, client: BECClient) -> None:
    """Ctrl-C on an empty line aborts a scan that this shell has paused."""
    session = getattr(shell, "pt_app", None)
    if session is None or session.key_bindings is None:
        return

    def paused() -> bool:
        report = client.last_report
        return (
            report is not None
            and report.scan is not None
            and report.scan.status == "paused"
            and not session.default_buffer.text
        )

    @session.key_bindings.add("c-c", filter=Condition(paused), eager=True)
    def _(event: Any) -> None:
        event.current_buffer.text = "%abort"
        event.current_buffer.validate_and_handle()
