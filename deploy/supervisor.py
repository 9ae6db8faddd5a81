"""The supervisor as a process: forks the keeper while it is still small, then becomes the fleet's loop.

    python -m deploy.supervisor --config bec.yaml        (what `bec-server start` runs)

The order counts: keeper first, imports after it, lock before anything is written, Redis before services.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from deploy import process
from deploy.keeping import KeeperLink
from deploy.lines import encode
from deploy.options import Options, parse
from deploy.own_library import require_own_library

log = logging.getLogger("supervisor")


class Interrupted(BaseException):
    """A signal to stop, before the loop is there to hear it."""


def main(arguments: list[str] | None = None) -> int:
    """Run until asked to stop. 0: stopped as asked; 1: the fleet could not be started."""
    require_own_library()
    options = parse(arguments)
    if options.tied:
        process.die_with_parent(os.getppid())
    # Before numpy is loaded: a pool of threads in every process helps none of them.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    def interrupted(number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    keeper = KeeperLink()

    def release() -> None:
        if options.report is not None:
            os.close(options.report)

    keeper.fork(release)

    from bec_lib.errors import BECError

    try:
        return _supervise(options, keeper)
    except Interrupted:
        return 1
    except BECError as error:
        text = str(error)
        if logging.getLogger().handlers:
            log.error("%s", text)
    except Exception as error:
        log.exception("the supervisor has failed")
        text = f"the supervisor has failed: {type(error).__name__}: {error}"
    finally:
        # Gone before we are, however we end.
        keeper.hang_up()
        if keeper.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(keeper.pid, 0)
    if options.report is not None:
        os.write(options.report, encode({"event": "failed", "text": text}))
    else:
        print(f"error: {text}", file=sys.stderr)
    return 1


def _supervise(options: Options, keeper: KeeperLink) -> int:
    # Heavy, and shared by all services: this is a good half of the preload.
    from bec_lib.service.config import load_service_config
    from bec_lib.service.logs import set_up_logging
    from deploy.fleet import Fleet
    from deploy.places import check_data_folder, make_state_folder, places_of, take_lock

    config = load_service_config(options.config)
    places = places_of(config)
    make_state_folder(places)
    lock = take_lock(places, config.deployment)
    set_up_logging("supervisor", places.logs, "DEBUG" if options.debug else config.log.level)
    process.set_title(f"bec-supervisor {config.deployment}")
    process.adopt_orphans()
    fleet: Fleet | None = None
    is_open = False
    try:
        fleet = Fleet(config, places, lock, options, keeper)
        if any(child.role == "file_writer" for child in fleet.children):
            fleet.announcer.warn(check_data_folder(config.data_folder))
        fleet.begin_keeping()
        fleet.preload()
        fleet.connect()
        fleet.open()
        is_open = True
    finally:
        if fleet is not None and not is_open:
            fleet.abandon()
        elif fleet is None:
            places.lock.unlink(missing_ok=True)
    return fleet.run()


if __name__ == "__main__":
    # Under its own name, so that forked services and their pools do not carry this file as their main program.
    run: Callable[[], int] = importlib.import_module("deploy.supervisor").main
    sys.exit(run())
