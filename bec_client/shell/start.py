"""Starting the shell: its names, its look, and how it shows what goes wrong."""

from __future__ import annotations

import builtins
import logging
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.ipapp import TerminalIPythonApp
from traitlets.config import Config

from bec_client import tables
from bec_client.callbacks import EventType
from bec_client.report import ScanInterruption
from bec_client.shell.completion import matchers
from bec_client.shell.magics import BecMagics
from bec_client.shell.prompt import STYLES, BecPrompts, bind_interrupt
from bec_lib.errors import BECError, ReasonCode
from bec_lib.messages import AlarmMessage, ItemState, QueueSnapshot, Severity

if TYPE_CHECKING:
    from bec_client.client import BECClient


STARTUP = "bec.ipython_client_startup"  # the released BEC's group of plugins for its shell


def run(client: BECClient, startup_file: Path | None = None) -> None:
    """The shell, until it is left. startup_file: is run in it first, after the plugins'."""
    app = TerminalIPythonApp.instance(config=settings())
    app.display_banner = False
    app.initialize(argv=["--no-banner"])
    shell = app.shell
    assert shell is not None
    prepare(shell, client)
    client.macros.load_all_user_macros()
    print_banner(client)
    for file in [*_plugin_startup(), *([startup_file] if startup_file else [])]:
        # What goes wrong in it is shown, and the shell is there all the same.
        shell.safe_execfile(str(file), shell.user_ns)
    app.start()


def _plugin_startup() -> list[Path]:
    """Files that plugins want to be run when the shell is there: entry points whose names end in "post"."""
    found = []
    for point in entry_points(group=STARTUP):
        if point.name.endswith("post"):
            try:
                spec = find_spec(point.module)
            except (ImportError, ValueError):
                continue
            if spec is not None and spec.origin:
                found.append(Path(spec.origin))
    return found


def settings() -> Config:
    """How IPython is set up; a user's own IPython profile is read as well."""
    config = Config()
    config.TerminalIPythonApp.display_banner = False
    config.TerminalInteractiveShell.prompts_class = BecPrompts
    config.TerminalInteractiveShell.confirm_exit = False
    config.TerminalInteractiveShell.autocall = 0
    config.TerminalInteractiveShell.term_title_format = "BEC"
    config.TerminalInteractiveShell.highlighting_style_overrides = STYLES
    # Jedi evaluates nothing of remote objects; completion by `dir` knows the devices.
    config.Completer.use_jedi = False
    config.IPCompleter.use_jedi = False
    config.Completer.evaluation = "limited"
    config.Completer.suppress_competing_matchers = False
    return config


def prepare(shell: InteractiveShell, client: BECClient) -> None:
    """Names, magics, completion and error panels."""
    client.program = "bec shell"
    client.live_updates.return_when_paused = True
    shell.push(client.namespace(), interactive=True)
    # Scripts that are run with %run, and modules that they import, find the names without importing them.
    vars(builtins).update(client.namespace())
    shell.bec = client  # type: ignore[attr-defined]
    if isinstance(shell, TerminalInteractiveShell):
        shell.prompts.client = client  # type: ignore[attr-defined]
    shell.register_magics(BecMagics(shell, client))
    shell.set_custom_exc((BECError, KeyboardInterrupt, NameError), _show_error)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.extend(matchers(shell, client))
    bind_interrupt(shell, client)
    _follow_names(shell, client)
    client.show_last_traceback = lambda: _show_traceback(shell)  # type: ignore[attr-defined]
    _speak_up(shell, client)


def print_banner(client: BECClient) -> None:
    """Where one is, what runs, and where to begin."""
    from rich.panel import Panel
    from rich.text import Text

    services = client.service_status.get()
    silent = [role for role, status in services.items() if status is None]
    account = client.account
    text = Text()
    text.append("Beamline Experiment Control\n", style="bold")
    text.append(f"deployment {client.deployment}, user {client.username}, ")
    text.append(f"account {account}\n" if account else "no account\n")
    if silent:
        text.append(f"silent: {', '.join(silent)} (`bec status`)\n", style="bold red")
    else:
        text.append(f"{len(services)} services are running\n", style="green")
    for queue, snapshot in client.queue.status.items():
        if told := _what_runs(queue, snapshot):
            text.append(f"{told} (%queue)\n", style="yellow")
    devices = len(client.devices)
    if devices:
        failed = client.devices.failed_devices
        text.append(f"{devices} devices; dev.<TAB>, dev.wm()")
        if failed:
            text.append(f"; {len(failed)} failed: {', '.join(failed)}", style="red")
    else:
        text.append("No devices are loaded: bec.config.load_demo_config() loads a simulated beamline")
    if len(client.macros):
        text.append(f"\n{len(client.macros)} macros: {', '.join(sorted(client.macros))}")
    text.append(
        "\nscans.<TAB> lists scans, scans.line_scan? explains one, bec.show_all_commands() shows more",
        style="dim",
    )
    tables.show(Panel(text, border_style="cyan", expand=False))


def _what_runs(queue: str, snapshot: QueueSnapshot) -> str:
    """What a queue does; empty if it has nothing."""
    if not snapshot.items:
        return ""
    head = snapshot.items[0]
    if head.status is ItemState.PENDING:
        begun, waiting = f"Nothing runs in the queue {queue}", max(snapshot.num_items, len(snapshot.items))
    else:
        number = f"Scan {head.scan_number}, " if head.scan_number is not None else ""
        begun = f"{number}{head.scan_name} of {head.user}, is {head.status} in the queue {queue}"
        waiting = max(snapshot.num_items, len(snapshot.items)) - 1
    return begun + (f", {waiting} wait{'s' if waiting == 1 else ''}" if waiting else "")


def _show_error(
    shell: Any,
    kind: type,
    error: BaseException,
    traceback: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    """One panel instead of a traceback."""
    shell.bec_last_error = (kind, error, traceback)
    if isinstance(error, NameError):
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
        known = {"dev": set(shell.bec.devices), "scans": set(shell.bec.scans.names())}
        for where, names in known.items():
            if error.name in names:
                tables.show(f"[yellow]{error.name} is there as {where}.{error.name}")
        return
    if isinstance(error, KeyboardInterrupt):
        tables.show("[yellow]Interrupted.")
        return
    if isinstance(error, ScanInterruption):
        from rich.panel import Panel

        tables.show(Panel(str(error), border_style="yellow", expand=False))
        return
    remote = getattr(error, "details", "")
    unclear = getattr(error, "reason", None) is ReasonCode.INTERNAL
    tables.show(
        tables.error_panel(error, "bec.show_last_traceback() shows where" if remote or unclear else "")
    )


def _show_traceback(shell: Any) -> None:
    """The traceback of the last error: on the other side, if it came from there, and here."""
    last = getattr(shell, "bec_last_error", None)
    if last is None:
        print("There was no error yet.")
        return
    remote = getattr(last[1], "details", "")
    if remote:
        print(remote)
    shell.showtraceback(last)


def _follow_names(shell: InteractiveShell, client: BECClient) -> None:
    """Macros and other sets of words are there by their names as long as they are loaded."""

    def on_names(action: str, ns_objects: dict[str, Any]) -> None:
        if action == "add":
            shell.push(ns_objects, interactive=True)
            vars(builtins).update(ns_objects)
            return
        for name, value in ns_objects.items():
            if vars(builtins).get(name) is value:
                del vars(builtins)[name]
            # What the user has called so meanwhile stays.
            if shell.user_ns.get(name) is value:
                shell.drop_by_id({name: value})

    client.callbacks.register(EventType.NAMESPACE_UPDATE, on_names)


class _AboveThePrompt(logging.Handler):
    """Prints log lines above the prompt, without destroying what is being typed."""

    def __init__(self, shell: InteractiveShell, client: BECClient):
        super().__init__(logging.WARNING)
        self._shell = shell
        self._client = client

    def emit(self, record: logging.LogRecord) -> None:
        say(self._shell, self._client, record.getMessage())


def say(shell: InteractiveShell, client: BECClient, text: str, style: str = "yellow") -> None:
    """Print from any thread: above a scan that is shown, or above the prompt."""
    from prompt_toolkit.application import run_in_terminal
    from rich.text import Text

    live = client.live_updates.live
    if live is not None:
        live.console.print(Text(text, style=style))
        return

    def out() -> None:
        tables.show(Text(text, style=style))

    session = getattr(shell, "pt_app", None)
    app = session.app if session is not None else None
    if app is not None and app.is_running and app.loop is not None:
        app.loop.call_soon_threadsafe(lambda: run_in_terminal(out))
    else:
        out()


def _speak_up(shell: InteractiveShell, client: BECClient) -> None:
    handler = _AboveThePrompt(shell, client)
    for name in ("bec_client", "bec_lib"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False

    def notify(text: str) -> None:
        if client.live_updates.print_client_messages:
            say(shell, client, text)

    client.connection.notify = notify
    last_minor = ""

    def on_alarm(alarm: AlarmMessage) -> None:
        nonlocal last_minor
        text = f"Alarm from {alarm.source}: {alarm.info.error_message}"
        if alarm.severity >= Severity.MAJOR:
            say(shell, client, text)
        elif alarm.severity is Severity.MINOR and text != last_minor:
            # Quietly: one line, and not the same again and again.
            last_minor = text
            say(shell, client, " ".join(text.split()), style="dim")

    client.on_alarm.append(on_alarm)
