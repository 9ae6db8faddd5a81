"""The worker process: loads the models, then fits what it is sent, one after the other, until the socket ends.

    python -m data_pipeline.runners.worker FD PARENT

Here, and nowhere in the service, lmfit is imported. Dies with its parent, also when that is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import warnings
from dataclasses import asdict
from typing import Any

from bec_lib.errors import BECError
from data_pipeline.runners import frames

_PR_SET_PDEATHSIG = 1
# Fits give way to what runs the scan.
NICENESS = 5


def main(arguments: list[str]) -> int:
    connection = socket.socket(fileno=int(arguments[0]))
    _die_with(int(arguments[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    warnings.simplefilter("ignore")

    import lmfit.models  # noqa: F401 - the long import, before the first fit's time is counted

    from bec_lib.plugins import MODELS, load_plugins
    from data_pipeline.models.model import collect

    catalogue, _ = collect(load_plugins(MODELS)[0])
    frames.send(connection, {"ready": True})
    while (request := frames.receive(connection)) is not None:
        frames.send(connection, answer(catalogue, request))
    return 0


def answer(catalogue: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request: {"outcome": fields of an Outcome} or {"error": sentence, "code", "traceback"}."""
    from data_pipeline.models.fit import fit
    from data_pipeline.models.model import choose

    try:
        outcome = fit(
            choose(catalogue, request["models"]),
            request["x"],
            request["y"],
            parameters=request["parameters"],
            x_min=request["x_min"],
            x_max=request["x_max"],
        )
    except BECError as error:
        return {"error": error.message, "code": error.reason.value, "traceback": ""}
    except Exception as error:  # noqa: BLE001 - a model of a plugin may raise anything; the request is answered
        import traceback

        return {
            "error": f"{' + '.join(map(str, request['models']))} failed: {type(error).__name__}: {error}",
            "code": "internal",
            "traceback": traceback.format_exc(),
        }
    return {"outcome": asdict(outcome)}


def _die_with(parent: int) -> None:
    """End when the parent thread ends; at once if the parent has ended before this could be asked for."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
