"""The demonstration: a whole fleet on a simulated beamline, from a device file to a NeXus file.

    python -m deploy.demo          (what `make demo` runs)

It has a deployment of its own in a temporary folder, so that several demos, and a fleet in earnest, do not meet.
Results stay in ./demo-output; everything else is gone when it ends, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from deploy.own_library import require_own_library

if TYPE_CHECKING:
    from bec_client import BECClient
    from deploy.temporary import TemporaryFleet

FACILITY = {
    "instrument": "demo beamline",
    "source": {"name": "Simulated Light Source", "type": "Synchrotron X-ray Source", "probe": "x-ray"},
}
DEVICES = Path(__file__).parent / "configs" / "demo.yaml"
# The scan must find it: the peak that demo.yaml describes.
PEAK = "bpm4i"
# Longer than closing a client takes, which would otherwise be cut short.
SAID_AGAIN_AFTER_S = 1.0


class Stopped(BaseException):
    """Ctrl-C, or a signal to end. Not KeyboardInterrupt, which the live table takes as the wish to pause."""


class Demo:
    """One run. folder: where results go; made by `run`."""

    def __init__(self, folder: Path):
        self._parent = folder
        self._folder = folder
        self._fleet: TemporaryFleet | None = None
        self._began = time.monotonic()
        self._step = 0
        self._was_stopped = False
        self._is_cleaning = False

    def main(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, self._stopped)
        sys.unraisablehook = _all_but_stops
        failed = ""
        try:
            try:
                self._run()
                failed = "stopped" if self._was_stopped else ""
            except Stopped:
                self._is_cleaning = True
                failed = "stopped"
            except Exception as error:
                from bec_lib.errors import BECError

                # What fails while a stop is obeyed is its consequence.
                failed = "stopped" if self._was_stopped else f"error: {error}"
                if not self._was_stopped and not isinstance(error, BECError):
                    raise
            finally:
                self._is_cleaning = True
        finally:
            # From here on signals are not heard: the handler sees that we clean up.
            signal.setitimer(signal.ITIMER_REAL, 0)
            if failed:
                print(f"\n{failed}", file=sys.stderr)
            self._clean_up(keep_logs=failed not in ("", "stopped"))
        if failed:
            return 130 if failed == "stopped" else 1
        print(f"Nothing is left running. All of it took {time.monotonic() - self._began:.0f} s.")
        return 0

    def _stopped(self, number: int, _frame: FrameType | None) -> None:
        if self._is_cleaning:
            return
        self._was_stopped = True
        # Where Python calls back from C (a finalizer, a weak reference) it drops what is raised, and the wish would
        # be lost: it is said again until it is heard.
        signal.setitimer(signal.ITIMER_REAL, SAID_AGAIN_AFTER_S)
        raise Stopped

    # The story

    def _run(self) -> None:
        self._make_folder()
        from deploy import control
        from deploy.temporary import TemporaryFleet

        with control.signals_later():
            self._fleet = TemporaryFleet(
                prefix="bec-demo", data=self._folder, settings={"facility": FACILITY}
            )
        self._start(self._fleet)
        self._load_devices(self._fleet)
        from bec_client import BECClient

        with BECClient(self._fleet.config, program="demo") as bec:
            report = self._scan_line(bec)
            fit = self._fit(bec, report)
            self._move(bec, fit)
            grid = self._scan_grid(bec)
            self._show_file(report)
            self._draw(report, fit, grid)
            self._heading("What was measured so far", "The history keeps every scan that has a file.")
            print(bec.history)
        self._heading("Stopping", "The services end one after the other, then Redis.")

    def _heading(self, title: str, *lines: str) -> None:
        self._step += 1
        strong, faint, plain = ("\x1b[1;36m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")
        print(f"\n{strong}{self._step}. {title}{plain}")
        for line in lines:
            print(f"{faint}   {line}{plain}")
        print(flush=True)

    def _make_folder(self) -> None:
        from bec_lib.errors import StorageError

        stamp = time.strftime("%Y-%m-%d_%H%M%S")
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            for attempt in ("", *(f"-{n}" for n in range(2, 100))):
                self._folder = self._parent / f"{stamp}{attempt}"
                with contextlib.suppress(FileExistsError):
                    self._folder.mkdir()
                    break
        except OSError as error:
            raise StorageError(
                f"the demo cannot write its results to {self._parent} ({error.strerror}); name another folder with --output"
            ) from error

    def _start(self, fleet: TemporaryFleet) -> None:
        self._heading(
            "Starting a private Redis and the six services",
            "Each service is a process; they talk through Redis. This is what `bec-server start` does.",
        )

        def tell(line: dict[str, Any]) -> None:
            match line.get("event"):
                case "redis":
                    print(f"   {'redis':<18} version {line['version']}", flush=True)
                case "running":
                    print(f"   {line['service']:<18} running, {line['after_s']:4.1f} s", flush=True)
                case "ended":
                    print(f"   {line['service']:<18} ended: {line['reason']}", flush=True)

        fleet.start(tell)

    def _load_devices(self, fleet: TemporaryFleet) -> None:
        from bec_lib.errors import BECError

        self._heading(
            "Loading the simulated beamline",
            f"bec config load {_short(DEVICES)}",
            "Motors, beam monitors, a camera, the ring current: nothing of it needs hardware.",
        )
        command = [sys.executable, "-m", "bec_client.cli", "--config", str(fleet.config), "config", "load"]
        with _child([*command, str(DEVICES)]) as loading:
            if loading.wait() != 0:
                raise BECError("the demo's devices could not be loaded")

    def _scan_line(self, bec: BECClient) -> Any:
        dev = bec.device_manager.devices
        self._heading(
            "A line scan across the peak",
            "scans.line_scan(dev.samx, -1.2, 1.8, steps=31, exp_time=0.05, relative=False)",
            "A Gaussian on a background is fitted to it while it grows, by lmfit.",
        )
        model = bec.dap.GaussianModel + bec.dap.ConstantModel
        model.select(dev[PEAK])
        model.auto_run = True
        report = bec.scans.line_scan(dev.samx, -1.2, 1.8, steps=31, exp_time=0.05, relative=False)
        model.auto_run = False
        return report.wait(timeout=30)

    def _fit(self, bec: BECClient, report: Any) -> Any:
        self._heading(
            "Fitting the peak",
            f'(bec.dap.GaussianModel + bec.dap.ConstantModel).fit(report, "samx", "samx", "{PEAK}", "{PEAK}")',
        )
        fit = (bec.dap.GaussianModel + bec.dap.ConstantModel).fit(report, "samx", "samx", PEAK, PEAK)
        print(f"   {fit}")
        return fit

    def _move(self, bec: BECClient, fit: Any) -> None:
        self._heading("Moving the sample into the beam", "umv(dev.samx, fit.center)")
        dev = bec.device_manager.devices
        bec.umv(dev.samx, fit.center)
        reached = dev.samx.read()["samx"]["value"]
        print(f"   samx is at {reached:.4f} mm, the fitted centre is {fit.center:.4f} mm")

    def _scan_grid(self, bec: BECClient) -> Any:
        dev = bec.device_manager.devices
        self._heading(
            "A small grid scan around it",
            "scans.grid_scan(dev.samx, -0.5, 0.5, 7, dev.samy, -0.8, 0.4, 5, exp_time=0.01, relative=True)",
            "Relative: the positions of samx and samy count from where they stand, and they go back there.",
        )
        report = bec.scans.grid_scan(
            dev.samx, -0.5, 0.5, 7, dev.samy, -0.8, 0.4, 5, exp_time=0.01, relative=True
        )
        return report.wait(timeout=30)

    def _show_file(self, report: Any) -> None:
        from bec_client.history import file_tree

        path = Path(report.scan.file_path)
        self._heading(
            "The NeXus file of the line scan",
            f"bec file {_short(path)}   shows all of it; any NeXus viewer plots it.",
        )
        for line in folded(file_tree(path).splitlines(), 3):
            print(f"   {line}")

    def _draw(self, line: Any, fit: Any, grid: Any) -> None:
        from bec_client import plots

        self._heading("What it looks like", "Drawn from the files, in the terminal and as PNG beside them.")
        peak = plots.from_file(line.scan.file_path, x="samx", y=PEAK).with_fit(fit.result)
        field = plots.from_file(grid.scan.file_path, y="intensity2d")
        for report, figure in ((line, peak), (grid, field)):
            print(plots.terminal(figure, height=20))
            picture = plots.save_png(figure, Path(report.scan.file_path).with_suffix(".png"))
            print(f"   {_short(picture)}\n", flush=True)

    # The end

    def _clean_up(self, keep_logs: bool) -> None:
        if self._fleet is not None:
            self._fleet.stop()
            if keep_logs and self._fleet.logs.is_dir():
                shutil.copytree(self._fleet.logs, self._folder / "logs", dirs_exist_ok=True)
                print(f"the logs are in {_short(self._folder / 'logs')}", file=sys.stderr)
            self._fleet.remove()
        # An interrupted demo may have nothing to show.
        for folder in (self._folder, self._parent):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self._folder.is_dir():
            print(f"Results: {_short(self._folder)}")


def _all_but_stops(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def _child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that does not outlive the block. Ctrl-C is for the demo alone, which then ends the child."""
    child = subprocess.Popen(command, start_new_session=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _short(path: Path) -> str:
    """Relative to the working folder where that is shorter."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


def folded(tree: list[str], depth: int) -> list[str]:
    """The lines of a tree, each level indented by three characters, without those deeper than `depth`.

    What was left out is counted behind the line it belongs to.
    """
    kept: list[str] = []
    hidden = 0
    for line in [*tree, ""]:
        level = (len(line) - len(line.lstrip("│├└─ "))) // 3
        if level > depth:
            hidden += 1
            continue
        if hidden:
            kept[-1] += f"   ... {hidden} below"
            hidden = 0
        kept.append(line)
    return kept[:-1]


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code."""
    require_own_library()
    parser = argparse.ArgumentParser(prog="demo", description="The whole fleet on a simulated beamline.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where the results go")
    return Demo(parser.parse_args(arguments).output).main()


if __name__ == "__main__":
    sys.exit(main())
