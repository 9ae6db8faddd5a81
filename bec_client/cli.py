"""The `bec` command: everything that can be done with a beamline from a terminal, in one look.

Exit codes: 0 done, 1 it failed (one or two sentences on standard error), 2 the call is off. No traceback unless
--debug. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bec_client.client import BECClient

FAILED = 1
WRONG_CALL = 2

app = typer.Typer(
    help="Beamline Experiment Control. Without a command: the shell.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)
config_app = typer.Typer(
    help="The device session: load, reload, validate, show, save, reset.", no_args_is_help=True
)
queue_app = typer.Typer(help="The scan queue: show, pause, resume, abort ...", invoke_without_command=True)
account_app = typer.Typer(
    help="The account (proposal) under which data is stored.", invoke_without_command=True
)
interlock_app = typer.Typer(help="Interlocks: what has to hold while scans run.", invoke_without_command=True)
app.add_typer(interlock_app, name="interlock")
plugins_app = typer.Typer(help="Plugins with scans and modifiers.", invoke_without_command=True)
app.add_typer(plugins_app, name="plugins")
app.add_typer(config_app, name="config")
app.add_typer(queue_app, name="queue")
app.add_typer(account_app, name="account")

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Service configuration (default: BEC_CONFIG, bec.yaml, built-in)."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
StartupOption = Annotated[
    Path | None,
    typer.Option(
        "--post-startup-file", exists=True, dir_okay=False, help="A Python file that the shell runs first."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
UserOption = Annotated[
    str | None, typer.Option("--user", help="Whose request this is (default: the login name).")
]

_common: dict[str, Any] = {"config": None, "debug": False, "user": None}
# Arguments of scans are words of their own: -1 is a number, --steps 11 is a keyword of the scan.
_FREE_WORDS = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


def main(arguments: list[str] | None = None) -> int:
    """The entry point; the exit code."""
    from deploy.own_library import require_own_library

    require_own_library()
    _common.update(config=None, debug=False, user=None)
    try:
        app(arguments, prog_name="bec", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    return 0


def _command(function: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands have: --config and --debug also behind the command, and errors as sentences."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("config"):
            _common["config"] = kwargs["config"]
        if kwargs.get("debug"):
            _common["debug"] = True
        from bec_lib.errors import BECError

        try:
            return function(*args, **kwargs)
        except BECError as error:
            _fail(error)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output has gone (`bec history | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, _usage_error()):
                raise
            _fail_unexpectedly(error)

    return command


def _fail(error: Exception) -> None:
    from bec_lib.errors import LimitError, ParameterError, ReasonCode, RequestRejected, UnknownDevice

    if _common["debug"]:
        import traceback

        traceback.print_exception(error)
        if getattr(error, "details", ""):
            print(getattr(error, "details", ""), file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
    wrong = isinstance(error, (ParameterError, UnknownDevice)) and not isinstance(error, LimitError)
    wrong = wrong or (isinstance(error, RequestRejected) and error.reason is ReasonCode.UNKNOWN_SCAN)
    raise typer.Exit(WRONG_CALL if wrong else FAILED)


def _usage_error() -> type[Exception]:
    """What typer raises for a wrong call; its own exit code is 2."""
    return typer.BadParameter.__mro__[1]  # UsageError, which typer does not export


def _fail_unexpectedly(error: Exception) -> None:
    if _common["debug"]:
        import traceback

        traceback.print_exception(error)
    text = str(error) or type(error).__name__
    print(
        f"error: something unexpected: {type(error).__name__}: {text}. --debug shows where.", file=sys.stderr
    )
    raise typer.Exit(FAILED)


def _client(user: str | None = None) -> BECClient:
    from bec_client.client import BECClient

    return BECClient(_common["config"], program="bec", user=user or _common["user"])


def _json(value: Any) -> None:
    from bec_lib.codec import plain

    print(json.dumps(plain(value), indent=2, default=str))


# The shell


@app.callback()
@_command
def bec(
    context: typer.Context,
    config: ConfigOption = None,
    debug: DebugOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    user: UserOption = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start a fleet if none runs.")] = False,
    startup_file: StartupOption = None,
) -> None:
    _common.update(config=config, debug=debug, user=user)
    if version:
        from importlib.metadata import version as installed

        print(f"bec {installed('bec')}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        _shell(user, no_start, startup_file)


@app.command()
@_command
def shell(
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start a fleet if none runs.")] = False,
    startup_file: StartupOption = None,
) -> None:
    """The shell, as `bec` alone."""
    _shell(user, no_start, startup_file)


def _shell(user: str | None, no_start: bool, startup_file: Path | None = None) -> None:
    from bec_lib.errors import BrokerError, ServiceDown
    from bec_lib.service.config import load_service_config

    service_config = load_service_config(_common["config"])
    client = _client(user)
    try:
        client.start()
        # After a crash the supervisor brings it back; only a fleet that is not there at all is started.
        alive = any(client.service_status.get().values())
    except BrokerError:
        if not service_config.is_embedded:
            raise
        alive = False
    if not alive:
        if no_start:
            raise ServiceDown(
                f"No BEC is running for deployment {service_config.deployment!r}; start it with `bec-server start`"
            )
        client.shutdown()
        print(f"No BEC is running for deployment {service_config.deployment!r}; starting it.")
        start_fleet(_common["config"])
        client = _client(user)
        client.start()
    from bec_client.shell import run_shell

    try:
        run_shell(client, startup_file)
    finally:
        client.shutdown()


def start_fleet(config: str | None) -> None:
    """Call `bec-server start`, which returns when the fleet is up. Raises ServiceDown if it does not."""
    from bec_lib.errors import ServiceDown

    beside = Path(sys.executable).parent / "bec-server"
    program = [str(beside)] if beside.is_file() else [shutil.which("bec-server") or ""]
    if not program[0]:
        program = [sys.executable, "-m", "deploy.cli"]
    ended = subprocess.run([*program, "start", *(["--config", config] if config else [])], check=False)
    if ended.returncode:
        raise ServiceDown("the fleet could not be started; `bec-server start` said why")


# Scans and moves


@app.command(context_settings=_FREE_WORDS)
@_command
def scan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME [ARGUMENT]... [--KEYWORD VALUE]...",
            help="A scan and its arguments; without any, the list of scans.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
    user: UserOption = None,
) -> None:
    """Run a scan, and watch it.

    Devices by name, then numbers; keywords as `--steps 11` or `steps=11`:

        bec scan line_scan samx -1 1 --steps 11 --exp-time 0.1

    Ctrl-C pauses after the point in hand, a second one aborts.
    """
    with _client(user) as client:
        if not words:
            from bec_client.tables import scan_table, show

            infos = {name: client.scans.info(name) for name in client.scans.names()}
            _json(infos) if as_json else show(scan_table(infos))
            return
        name, *rest = words
        args, kwargs = parse_words(rest)
        if as_json:
            report = client.scans.run(name, *args, hide_report=True, **kwargs)
            report.wait()
            item = report.scan
            _json(
                {
                    "request_id": report.request_id,
                    "scan_id": item.scan_id if item else None,
                    "scan_number": item.scan_number if item else None,
                    "status": item.status if item else "completed",
                    "num_points": item.num_readouts if item else None,
                    "file_path": item.file_path if item else None,
                }
            )
            return
        report = client.scans.run(name, *args, **kwargs)
        if not report.is_scan:
            client.live_updates.show_move(report)


@app.command(context_settings=_FREE_WORDS)
@_command
def mv(
    words: Annotated[list[str], typer.Argument(metavar="DEVICE TARGET [DEVICE TARGET]...")],
    relative: Annotated[
        bool, typer.Option("--relative", help="Targets are distances from where they are.")
    ] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Move devices, all at the same time, and wait until they have arrived. Ctrl-C stops them."""
    args, kwargs = parse_words(words)
    with _client(user) as client:
        report = client.scans.submit("mv", args, {"relative": relative, **kwargs})
        client.live_updates.show_move(report)


@app.command(context_settings=_FREE_WORDS)
@_command
def plan(
    words: Annotated[
        list[str],
        typer.Argument(metavar="NAME [ARGUMENT]... [--KEYWORD VALUE]...", help="A scan and its arguments."),
    ],
    png: Annotated[Path | None, typer.Option("--png", help="Draw the trajectory as a PNG as well.")] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
    user: UserOption = None,
) -> None:
    """What a scan would do: points, time, storage, limits, devices and its way.

        bec plan line_scan samx -1 1 --steps 11

    Nothing is touched. What would be refused is refused here, with the same words.
    """
    args, kwargs = parse_words(words[1:])
    with _client(user) as client:
        made = client.scans.plan(words[0], *args, **kwargs)
        _json(made.info) if as_json else made.show()
        if png is not None:
            file = made.save_png(png)
            if not as_json:
                print(file)


@app.command()
@_command
def wm(
    names: Annotated[list[str] | None, typer.Argument(help="Devices or patterns such as 'sam*'.")] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
) -> None:
    """Where devices are (all positioners without a name)."""
    from bec_client.tables import position_table, show

    with _client() as client:
        rows = client.session.positions(names or None)
        _json(rows) if as_json else show(position_table(rows))


@app.command()
@_command
def stop(config: ConfigOption = None, debug: DebugOption = False, user: UserOption = None) -> None:
    """Stop all devices now, whatever moves them."""
    with _client(user) as client:
        client.service_status.require(client.session.server_roles(), "stop")
        client.stop_devices()
        print("Told all device servers to stop their devices.")


def parse_words(words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Words of a command line as arguments and keywords: `samx -1 1 --steps 11 relative=true`.

    A keyword without a value is True. Values are numbers, true and false, lists as `[1, 2]`, else text.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and len(word) > 2:
            key, equals, text = word[2:].partition("=")
            if not equals:
                text = "true" if not rest or _is_keyword(rest[0]) else rest.pop(0)
            kwargs[key.replace("-", "_")] = value_of(text)
        elif _is_keyword(word):
            key, text = word.split("=", 1)
            kwargs[key] = value_of(text)
        else:
            args.append(value_of(word))
    return args, kwargs


def _is_keyword(word: str) -> bool:
    return (word.startswith("--") and len(word) > 2) or ("=" in word and word.split("=", 1)[0].isidentifier())


def value_of(text: str) -> Any:
    """What a word means: a number, true, false, none, a list or mapping in brackets, else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# Looking


@app.command()
@_command
def status(config: ConfigOption = None, debug: DebugOption = False, as_json: JsonOption = False) -> None:
    """Which services run, for which deployment, and with which configuration."""
    from bec_client.tables import queue_table, service_table, show

    with _client() as client:
        services = client.service_status.get()
        service_config = client.service_config
        facts: dict[str, Any] = {
            "deployment": client.deployment,
            "configuration": str(service_config.source_file or "built-in defaults"),
            "redis": client.broker.settings.address(),
            "data": str(service_config.data_folder),
            "account": client.account,
            "devices": len(client.devices),
            "failed devices": client.devices.failed_devices,
            "in use": _by_holder(client.session.holders()),
            "next scan number": client.queue.next_scan_number,
        }
        if as_json:
            _json({**facts, "services": services, "queues": client.queue.status})
        else:
            from rich.table import Table

            grid = Table.grid(padding=(0, 2))
            for key, value in facts.items():
                if value or key in ("devices",):
                    shown = ", ".join(value) if isinstance(value, dict) else str(value)
                    if key == "in use":
                        shown = "\n".join(f"{', '.join(names)}: {who}" for who, names in value.items())
                    grid.add_row(f"[cyan]{key}", shown)
            show(grid)
            show(service_table(services, client.service_status.ends()))
            show(queue_table(client.queue.status))
        if any(state is None for state in services.values()):
            raise typer.Exit(FAILED)


def _by_holder(holders: dict[str, str]) -> dict[str, list[str]]:
    """Who -> the devices that he has."""
    found: dict[str, list[str]] = {}
    for device, who in holders.items():
        found.setdefault(who, []).append(device)
    return found


@app.command()
@_command
def history(
    count: Annotated[int, typer.Argument(help="How many of the latest scans.", min=1)] = 20,
    scan_name: Annotated[str | None, typer.Option("--scan", help="Only scans of this name.")] = None,
    of_user: Annotated[str | None, typer.Option("--of", help="Only scans of this user.")] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
) -> None:
    """The latest scans and their files."""
    from bec_client.tables import history_table, show

    with _client() as client:
        everything = scan_name is not None or of_user is not None
        found = client.history.messages(None if everything else count)
        if scan_name is not None:
            found = [m for m in found if m.scan_name == scan_name]
        if of_user is not None:
            found = [m for m in found if m.user == of_user]
        found = found[-count:]
        _json(found) if as_json else show(history_table(found))


@app.command()
@_command
def alarms(
    count: Annotated[int, typer.Argument(help="How many of the latest.", min=1)] = 20,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
) -> None:
    """The latest alarms of the services."""
    from bec_client.tables import alarm_table, show

    with _client() as client:
        found = client.alarms.earlier(count)
        _json(found) if as_json else show(alarm_table(found))


@app.command()
@_command
def file(
    path: Annotated[str, typer.Argument(metavar="FILE|SCAN", help="A NeXus file, or a scan number.")],
    full: Annotated[bool, typer.Option("--full", help="A line for every dataset.")] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """The tree of a scan's file: groups, datasets, shapes, units."""
    from bec_client.history import file_tree

    print(file_tree(_path_of(path), full))


@app.command()
@_command
def rewrite(
    scan: Annotated[int, typer.Argument(metavar="SCAN", help="The scan's number.")],
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Write a scan's file again, from its data in Redis: the disk was full, or the file is gone."""
    from bec_client.files import rewrite as written

    with _client() as client:
        message = written(client.broker, scan)
    print(f"{message.file_path}: {message.num_points} points.")


@app.command()
@_command
def plot(
    what: Annotated[str, typer.Argument(metavar="FILE|SCAN", help="A NeXus file, or a scan number.")],
    x: Annotated[str | None, typer.Option("--x", help="Column for x, as device or device.signal.")] = None,
    y: Annotated[str | None, typer.Option("--y", help="Column for y.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write a PNG as well.")] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", metavar="MODEL", help="Fit it and draw the curve.")
    ] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Draw a scan in the terminal."""
    from bec_client import plots

    figure = plots.from_file(_path_of(what), x=x, y=y)
    if fit is not None:
        with _client() as client:
            result = client.dap[fit].fit((figure.x, figure.y))
        figure = figure.with_fit(result.result)
        print(result)
    print(plots.terminal(figure))
    if png is not None:
        print(plots.save_png(figure, png))


def _path_of(what: str) -> str:
    if what.isdigit() and not Path(what).exists():
        with _client() as client:
            return client.history.get_by_scan_number(int(what)).file_path
    return what


# The device session


@config_app.command("load")
@_command
def config_load(
    path: Annotated[
        str, typer.Argument(metavar="FILE|demo", help="A device file; demo: the simulated beamline.")
    ],
    add: Annotated[bool, typer.Option("--add", help="Add to the session instead of replacing it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build all devices anew even if nothing differs.")
    ] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
    user: UserOption = None,
) -> None:
    """Load a device file. Devices that fail are named, the others are loaded; then the exit code is 1."""
    with _client(user) as client:
        if path == "demo" and not Path(path).exists():
            from bec_client.config import demo_file

            path = str(demo_file())
        change = (
            client.config.add_to_session(path) if add else client.config.update_session_with_file(path, force)
        )
        _tell_change(change, as_json, has_failed=bool(change.failed))


@config_app.command("reload")
@_command
def config_reload(
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Devices; all without one.")
    ] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
    user: UserOption = None,
) -> None:
    """Build devices anew, from the source of their classes as it is now. Exit code 1 if one could not be."""
    with _client(user) as client:
        change = client.config.reload(*(devices or []))
        _tell_change(change, as_json, has_failed=bool(change.failed or change.kept))


def _tell_change(change: Any, as_json: bool, *, has_failed: bool) -> None:
    """What came of a change of the session, and the exit code."""
    if as_json:
        _json(change.__dict__)
    else:
        print(change)
    if has_failed:
        raise typer.Exit(FAILED)


@config_app.command("validate")
@_command
def config_validate(
    path: Annotated[str, typer.Argument(metavar="FILE")],
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Check a device file without loading it. Needs no running fleet."""
    from bec_lib.devices.config import load_device_file

    devices = load_device_file(path)
    counted = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    print(
        f"{path} is well-formed: {counted}. Whether their classes exist and whether they connect is seen when it is loaded."
    )


@config_app.command("show")
@_command
def config_show(
    name: Annotated[str | None, typer.Argument(metavar="DEVICE", help="One device in full.")] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
) -> None:
    """The devices of the session and their state."""
    from bec_client.tables import device_summary, device_table, show

    with _client() as client:
        if name is not None:
            info = client.session.fresh_info(name)
            _json(info) if as_json else show(device_summary(info, client.session.holder_of(info.name)))
            return
        infos = [client.session.fresh_info(device) for device in client.session.names()]
        _json(infos) if as_json else show(
            device_table(infos, client.session.message, client.session.holders())
        )


@config_app.command("save")
@_command
def config_save(
    path: Annotated[str, typer.Argument(metavar="FILE")],
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the session as a device file that can be loaded again."""
    with _client() as client:
        print(f"Saved {len(client.devices)} devices to {client.config.save_current_session(path)}.")


@config_app.command("reset")
@_command
def config_reset(config: ConfigOption = None, debug: DebugOption = False, user: UserOption = None) -> None:
    """Empty the session. It is saved in the deployment's folder first."""
    with _client(user) as client:
        client.config.reset_config()
        print("The session is empty.")


# Plugins


@plugins_app.callback()
@_command
def plugins(context: typer.Context, config: ConfigOption = None, debug: DebugOption = False) -> None:
    if context.invoked_subcommand is None:
        plugins_show()


@plugins_app.command("show")
@_command
def plugins_show(
    config: ConfigOption = None, debug: DebugOption = False, as_json: JsonOption = False
) -> None:
    """Where scans come from, what modifiers change of them, and which plugins cannot be used."""
    with _client() as client:
        if as_json:
            message = client.plugins.message
            _json(message.model_dump(include={"plugins", "modifiers", "failed"}))
        else:
            client.plugins.show()


@plugins_app.command("reload")
@_command
def plugins_reload(
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the scan server import the plugins again; refused while a scan of one runs or waits."""
    with _client(user) as client:
        outcome = client.plugins.reload()
        if as_json:
            _json(outcome.report.model_dump())
        else:
            print(outcome)


# Interlocks


@interlock_app.callback()
@_command
def interlock(context: typer.Context, config: ConfigOption = None, debug: DebugOption = False) -> None:
    if context.invoked_subcommand is None:
        interlock_show()


@interlock_app.command("show")
@_command
def interlock_show(
    config: ConfigOption = None, debug: DebugOption = False, as_json: JsonOption = False
) -> None:
    """What is defined, and what is tripped."""
    from bec_client.tables import interlock_table, show

    with _client() as client:
        definitions, status = client.interlocks.definitions, client.interlocks.status
        if as_json:
            _json({name: {**c.model_dump(), "state": status.get(name)} for name, c in definitions.items()})
        else:
            show(interlock_table(definitions, status))


@interlock_app.command("add")
@_command
def interlock_add(
    name: Annotated[str, typer.Argument()],
    trips_when: Annotated[
        str, typer.Argument(metavar="CONDITION", help="Scans are held while it is true: 'curr.curr < 100'.")
    ],
    clears_when: Annotated[
        str,
        typer.Option(
            "--clears-when", help="Scans go on when this is true; by default when it no longer trips."
        ),
    ] = "",
    settle_time: Annotated[
        float, typer.Option("--settle-time", metavar="SECONDS", help="It must be clear for so long before.")
    ] = 0.0,
    action: Annotated[
        str, typer.Option(help="repeat (the point in flight is taken again), hold, block or alarm.")
    ] = "repeat",
    queues: Annotated[
        list[str] | None, typer.Option("--queue", help="Only this queue; may be given several times.")
    ] = None,
    message: Annotated[str, typer.Option(help="What people are told.")] = "",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Arm an interlock, or change the one of this name.

    bec interlock add beam 'curr.curr < 100' --clears-when 'curr.curr > 120' --settle-time 5
    """
    with _client(user) as client:
        print(
            client.interlocks.add(
                name,
                trips_when,
                clears_when=clears_when,
                settle_time=settle_time,
                action=action,
                queues=queues or (),
                message=message,
            )
        )


def _interlock_command(name: str, text: str) -> None:
    @interlock_app.command(name, help=text)
    @_command
    def command(
        names: Annotated[list[str], typer.Argument(metavar="NAME...")],
        config: ConfigOption = None,
        debug: DebugOption = False,
        user: UserOption = None,
    ) -> None:
        with _client(user) as client:
            print(getattr(client.interlocks, name)(*names))


_interlock_command("remove", "Take interlocks away.")
_interlock_command("enable", "Look at interlocks again.")
_interlock_command("disable", "Do not look at interlocks until they are enabled.")


# The queue


@queue_app.callback()
@_command
def queue(context: typer.Context, config: ConfigOption = None, debug: DebugOption = False) -> None:
    if context.invoked_subcommand is None:
        queue_show()


@queue_app.command("show")
@_command
def queue_show(
    everything: Annotated[bool, typer.Option("--all", help="All that waits, also in a long queue.")] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
    as_json: JsonOption = False,
) -> None:
    """What runs and what waits."""
    from bec_client.tables import queue_table, show

    with _client() as client:
        queues = client.queue.status
        if everything:
            queues = {
                name: snapshot.model_copy(update={"items": client.queue.items(queue=name)})
                if snapshot.num_items > len(snapshot.items)
                else snapshot
                for name, snapshot in queues.items()
            }
        _json(queues) if as_json else show(queue_table(queues))


QueueName = Annotated[str, typer.Option("--queue", help="Which queue.")]
ScanIdOption = Annotated[str | None, typer.Option("--scan-id", help="A scan; the running one by default.")]
Which = Annotated[
    str,
    typer.Argument(metavar="WHICH", help="Its number in `bec queue show`, or its scan id or the end of it."),
]


def _queue_command(name: str, method: str, text: str, takes_scan: bool = True, **fixed: Any) -> None:
    @queue_app.command(name, help=text)
    @_command
    def command(
        queue: QueueName = "primary",
        scan_id: ScanIdOption = None,
        config: ConfigOption = None,
        debug: DebugOption = False,
        user: UserOption = None,
    ) -> None:
        with _client(user) as client:
            scan = {"scan_id": scan_id} if takes_scan else {}
            print(getattr(client.queue, method)(queue=queue, **scan, **fixed))


_INTERRUPT = "request_scan_interruption"
_queue_command("pause", _INTERRUPT, "Pause after the point in hand.")
_queue_command("pause-now", _INTERRUPT, "Pause at once, between two phases of a point.", deferred_pause=False)
_queue_command(
    "pause-after-scan", _INTERRUPT, "Let the running scan end, and start no other.", after_scan=True
)
_queue_command("resume", "request_scan_continuation", "Go on with a paused scan or queue.")
_queue_command("abort", "request_scan_abortion", "End the running scan; its points stay in its file.")
_queue_command("halt", "request_scan_halt", "End the running scan without its clean-up moves.")
_queue_command("restart", "request_scan_restart", "Abort the running scan and run it again.")
_queue_command("complete", "request_set_completed", "End the running scan early, and count it as good.")
_queue_command("clear", "request_queue_reset", "Abort what runs and empty the queue.", takes_scan=False)


@queue_app.command("move")
@_command
def queue_move(
    which: Which,
    where: Annotated[str, typer.Argument(metavar="WHERE", help="up, down, top, bottom, or a number.")],
    queue: QueueName = "primary",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Give a waiting request another place: `bec queue move 3 top`."""
    with _client(user) as client:
        position = int(where) if where.isdigit() else None
        action = "to" if position is not None else where
        print(client.queue.request_queue_order_modification(_which(which), action, position, queue))


@queue_app.command("remove")
@_command
def queue_remove(
    which: Which,
    queue: QueueName = "primary",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Take a waiting request out of the queue."""
    with _client(user) as client:
        print(client.queue.request_removal(_which(which), queue))


@queue_app.command("edit", context_settings=_FREE_WORDS)
@_command
def queue_edit(
    which: Which,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENT]... [--KEYWORD VALUE]...", help="As for `bec scan`.", show_default=False
        ),
    ] = None,
    queue: QueueName = "primary",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Change a waiting request.

    Positional arguments replace all of its own, keywords those of the same name:

        bec queue edit 1 --steps 21
    """
    args, kwargs = parse_words(words or [])
    with _client(user) as client:
        print(client.queue.request_edit(_which(which), *args, queue=queue, **kwargs))


def _which(text: str) -> int | str:
    """A place has few digits; the end of a scan id has more."""
    return int(text) if text.isdigit() and len(text) < 6 else text


@queue_app.command("lock")
@_command
def queue_lock(
    reason: Annotated[str, typer.Argument(help="Shown to those who wait.")],
    name: Annotated[str | None, typer.Option("--name", help="The lock's name (default: the user).")] = None,
    queue: QueueName = "primary",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Let nothing start until the lock is removed."""
    with _client(user) as client:
        print(client.queue.add_queue_lock(reason, identifier=name, queue=queue))


@queue_app.command("unlock")
@_command
def queue_unlock(
    name: Annotated[str | None, typer.Option("--name", help="The lock's name (default: the user).")] = None,
    queue: QueueName = "primary",
    config: ConfigOption = None,
    debug: DebugOption = False,
    user: UserOption = None,
) -> None:
    """Remove a lock."""
    with _client(user) as client:
        print(client.queue.remove_queue_lock(identifier=name, queue=queue))


# The account


@account_app.callback()
@_command
def account(context: typer.Context, config: ConfigOption = None, debug: DebugOption = False) -> None:
    if context.invoked_subcommand is None:
        account_show()


@account_app.command("show")
@_command
def account_show(
    config: ConfigOption = None, debug: DebugOption = False, as_json: JsonOption = False
) -> None:
    """The account in force."""
    with _client() as client:
        _json({"account": client.account}) if as_json else print(client.account or "No account is set.")


@account_app.command("set")
@_command
def account_set(
    name: Annotated[str, typer.Argument(help="Letters, digits, '_', '-' and '.'; '' for none.")],
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Set the account. It holds for scans that open from now on."""
    with _client() as client:
        client.account = name
    print(f"The account is {name!r}." if name else "No account is set.")


if __name__ == "__main__":
    raise SystemExit(main())
