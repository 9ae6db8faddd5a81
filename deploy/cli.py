"""`bec-server`: start, stop, restart, look at and follow the services of a deployment on this host.

Exit codes: 0 done; 1 it failed, with one or two sentences on standard error; 2 the call is off.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.own_library import require_own_library

if TYPE_CHECKING:
    from bec_lib.service.config import ServiceConfig
    from deploy.places import Places

app = typer.Typer(
    name="bec-server",
    help="Start, stop and look at the services of a deployment on this host.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Service configuration (default: BEC_CONFIG, ./bec.yaml, or built-in)."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Start only this service; may be repeated. For several hosts."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Log more, and show tracebacks.")]
Timeout = Annotated[float, typer.Option("--timeout", help="How long the start may take, seconds.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Keep the others if a service does not start.")]

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)
NAME_WIDTH = 20  # of `device_server.optics`
_STATE_COLOURS = {"RUNNING": 32, "BUSY": 32, "STARTING": 33, "STOPPING": 33, "STOPPED": 33}


def _paint(text: str, colour: int | str, stream: Any = None) -> str:
    is_terminal = (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[{colour}m{text}\x1b[0m" if is_terminal else text


@contextlib.contextmanager
def _errors(debug: bool = False) -> Iterator[None]:
    """Errors as a sentence and an exit code."""
    from bec_lib.errors import BECError

    try:
        yield
    except BECError as error:
        if debug:
            raise
        print(f"{_paint('error:', '1;31', sys.stderr)} {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(1) from None


def _load(config: Path | None) -> tuple[ServiceConfig, Places]:
    from bec_lib.service.config import load_service_config
    from deploy.places import places_of

    found = load_service_config(config)
    return found, places_of(found)


def _supervisor_arguments(
    config: Path | None, only: list[str] | None, timeout: float, keep_going: bool, debug: bool
) -> list[str]:
    arguments = ["--timeout", str(timeout)]
    if config is not None:
        arguments += ["--config", str(config.expanduser().resolve())]
    for role in only or []:
        arguments += ["--only", role]
    if keep_going:
        arguments.append("--keep-going")
    if debug:
        arguments.append("--debug")
    return arguments


def _show_start(line: dict[str, Any]) -> None:
    after = f"{line.get('after_s', 0.0):5.1f} s"
    match line.get("event"):
        case "redis":
            print(
                f"  {'redis':<{NAME_WIDTH}} {_paint('ready', 32)}     version {line['version']}, process {line['pid']}",
                flush=True,
            )
        case "running":
            print(
                f"  {line['service']:<{NAME_WIDTH}} {_paint('running', 32)}   {after}, process {line['pid']}",
                flush=True,
            )
        case "ended":
            print(f"  {line['service']:<{NAME_WIDTH}} {_paint('ended', 31)}     {line['reason']}", flush=True)
        case "warning":
            print(f"{_paint('warning:', 33, sys.stderr)} {line['text']}", file=sys.stderr, flush=True)
        case "up":
            print(f"The fleet is up after {line['after_s']:.1f} s.", flush=True)


def _show_stop(line: dict[str, Any]) -> None:
    if line.get("event") == "stopped" and line.get("service") not in (None, "supervisor"):
        print(f"  {line['service']:<{NAME_WIDTH}} stopped", flush=True)


@app.command()
def start(
    config: Config = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the terminal; for systemd and containers.")
    ] = False,
    only: Only = None,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="It is no error if a fleet is running already.")
    ] = False,
    timeout: Timeout = 30.0,
    keep_going: KeepGoing = False,
    debug: Debug = False,
) -> None:
    """Start the fleet and return when all its services are running."""
    from deploy import control

    arguments = _supervisor_arguments(config, only, timeout, keep_going, debug)
    if foreground:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "deploy.supervisor", *arguments])
    with _errors(debug):
        if if_needed:
            _, places = _load(config)
            try:
                control.ask(places.control, {"do": "status"})
            except control.NotRunning:
                pass
            else:
                print("A fleet is running already.")
                return
        control.start(arguments, None, _show_start, timeout + 60.0)


@app.command()
def stop(config: Config = None, debug: Debug = False) -> None:
    """Stop the fleet: the services, then its private Redis. Returns when nothing of it is left."""
    from deploy import control

    with _errors(debug):
        found, places = _load(config)
        try:
            control.stop(places.control, _show_stop)
        except control.NotRunning:
            raise _not_running(found, places) from None
        print("The fleet has stopped.")


@app.command()
def restart(
    service: Annotated[str | None, typer.Argument(help="One service; all if none is named.")] = None,
    config: Config = None,
    timeout: Timeout = 30.0,
    debug: Debug = False,
) -> None:
    """Restart one service, or stop and start the whole fleet."""
    from bec_lib.errors import BECError
    from deploy import control

    with _errors(debug):
        found, places = _load(config)
        if service is None:
            only: list[str] = []
            with contextlib.suppress(control.NotRunning):
                rows = control.ask(places.control, {"do": "status"})["services"]
                here = [row["service"] for row in rows if row["here"]]
                only = here if len(here) < len(rows) else []
                control.stop(places.control, _show_stop)
            arguments = _supervisor_arguments(config, only, timeout, False, debug)
            control.start(arguments, None, _show_start, timeout + 60.0)
            return
        try:
            for line in control.talk(places.control, {"do": "restart", "service": service}, timeout):
                if "error" in line:
                    raise BECError(str(line["error"]))
                if line.get("service") == service and line.get("event") in ("stopped", "ended", "running"):
                    print(
                        f"  {service:<{NAME_WIDTH}} {line['event']}  {line.get('reason') or ''}".rstrip(),
                        flush=True,
                    )
                    if line["event"] == "running":
                        return
        except control.NotRunning:
            raise _not_running(found, places) from None
        raise BECError(f"{service} has not come up again; see {places.logs}")


@app.command()
def status(
    config: Config = None,
    json_output: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    debug: Debug = False,
) -> None:
    """Show each service, Redis, and which configuration is in force. Exit code 1 if something is not running."""
    import json
    import shutil

    from deploy import control, process

    with _errors(debug):
        found, places = _load(config)
        try:
            answer = control.ask(places.control, {"do": "status"})
        except control.NotRunning:
            elsewhere = _status_without_supervisor(found, places)
            if elsewhere is None:
                raise _not_running(found, places) from None
            answer = elsewhere
    for row in answer["services"]:
        row["memory_bytes"] = process.memory_of_session(row["pid"]) if row["here"] and row["pid"] else None
    pids = (
        [answer["supervisor"].get("pid"), answer["supervisor"].get("keeper")] if answer["supervisor"] else []
    )
    shares = [process.memory_bytes(pid) for pid in pids if pid]
    answer["supervisor"]["memory_bytes"] = sum(share for share in shares if share)
    redis_pid = answer["redis"].get("pid")
    answer["redis"]["process_memory_bytes"] = process.memory_bytes(redis_pid) if redis_pid else None
    with contextlib.suppress(OSError):
        answer["data_free_bytes"] = shutil.disk_usage(answer["data_folder"].split("$")[0]).free
    if json_output:
        print(json.dumps(answer, indent=2))
    else:
        _show_status(answer)
    if any(row["state"] not in ("RUNNING", "BUSY") for row in answer["services"]):
        raise SystemExit(1)


def _show_status(answer: dict[str, Any]) -> None:
    now = time.time()
    print(f"Deployment {_paint(answer['deployment'], 1)}")
    print(
        f"  {'service':<{NAME_WIDTH}} {'state':<9} {'process':>8}  {'host':<16} {'up':>8} {'memory':>8} {'restarts':>8}"
    )
    for row in answer["services"]:
        state = _paint(f"{row['state']:<9}", _STATE_COLOURS.get(row["state"], 31))
        memory = f"{row['memory_bytes'] / 1e6:.0f} MB" if row.get("memory_bytes") else ""
        up = _duration(now - row["since"]) if row["since"] else ""
        print(
            f"  {row['service']:<{NAME_WIDTH}} {state} {row['pid'] or '':>8}  {row['host']:<16} {up:>8} {memory:>8} "
            f"{row['restarts']:>8}"
        )
        if row["busy"]:
            busy = row["busy"]
            print(f"      busy for {_duration(now - busy['since'])}: {busy['what']}")
        for text in (row["message"], row["reason"] and f"last: {row['reason']}"):
            if text:
                print(f"      {text}")
    redis = answer["redis"]
    facts = [f"version {redis.get('version') or '?'}", redis["address"]]
    if "append_only" in redis:
        on = f"append-only file, fsync {redis['appendfsync']}" if redis["append_only"] else "NOT PERSISTENT"
        facts += [on, f"{redis['memory_bytes'] / 1e6:.1f} MB of data"]
        if redis.get("memory_limit_bytes"):
            facts[-1] += f" of at most {redis['memory_limit_bytes'] / 1e9:.1f} GB"
    if redis.get("restarts"):
        facts.append(f"{redis['restarts']} restarts")
    print(f"  {'redis':<{NAME_WIDTH}} {', '.join(facts)}")
    if redis.get("error"):
        print(f"      {_paint(redis['error'], 31)}")
    if answer["supervisor"].get("pid"):
        memory = answer["supervisor"]["memory_bytes"] / 1e6
        print(
            f"  {'supervisor':<{NAME_WIDTH}} process {answer['supervisor']['pid']}, {memory:.0f} MB with its keeper"
        )
    print(f"  {'configuration':<{NAME_WIDTH}} {answer['config'] or 'built-in defaults'}")
    free = f", {answer['data_free_bytes'] / 1e9:.1f} GB free" if "data_free_bytes" in answer else ""
    print(f"  {'data':<{NAME_WIDTH}} {answer['data_folder']}{free}")
    print(f"  {'logs':<{NAME_WIDTH}} {answer['log_folder']}")
    for text in answer["warnings"]:
        print(f"{_paint('warning:', 33)} {text}")


def _duration(seconds: float) -> str:
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    if seconds < 172_800:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400} d"


def _status_without_supervisor(config: ServiceConfig, places: Places) -> dict[str, Any] | None:
    """Services may run on other hosts, or each by itself; ask Redis. None if there is nobody to ask."""
    if config.is_embedded:
        return None
    from bec_lib.broker import Broker, Sender
    from deploy.services import fleet
    from deploy.status import describe, heartbeats_of, redis_facts

    broker = Broker(config.broker_settings, config.deployment, Sender("bec-server", "status"))
    try:
        broker.wait_until_reachable(0.0)
        roles = [spec.role for spec in fleet(config.device_servers)]
        heard = heartbeats_of(broker, roles)
        facts = redis_facts(broker)
        warnings = broker.server_warnings()
    finally:
        broker.close()
    return {
        "deployment": config.deployment,
        "supervisor": {},
        "services": [describe(role, None, heard.get(role), "") for role in roles],
        "redis": {"address": config.broker_settings.address(), "embedded": False, **facts},
        "config": str(config.source_file or ""),
        "state_folder": str(places.state),
        "data_folder": str(config.data_folder),
        "log_folder": str(places.logs),
        "warnings": warnings,
    }


def _not_running(config: ServiceConfig, places: Places) -> Exception:
    from deploy.control import NotRunning

    return NotRunning(
        f"no fleet is running for deployment {config.deployment!r} ({places.state}); start one with `bec-server start`."
    )


@app.command()
def attach(
    services: Annotated[
        list[str] | None, typer.Argument(help="Which services; all if none is named.")
    ] = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Follow the logs of all services until Ctrl-C. The fleet does not notice."""
    from bec_lib.errors import StorageError
    from deploy.follow import follow

    with _errors(debug):
        _, places = _load(config)
        colours: dict[str, int] = {}
        try:
            for name, line in follow(places.logs):
                role = name.rsplit(".", 1)[0]
                if not services or role in services:
                    colour = colours.setdefault(role, _COLOURS[len(colours) % len(_COLOURS)])
                    print(f"{_paint(f'{role:<16}', colour)} {line}", flush=True)
        except KeyboardInterrupt:
            print()
        except OSError as error:
            raise StorageError(f"there are no logs in {places.logs} ({error.strerror}).") from error


def main() -> None:
    """The entry point of `bec-server`."""
    require_own_library()
    app()


if __name__ == "__main__":
    main()
