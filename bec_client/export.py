"""Points of scans as plain dicts and as CSV: `scan_to_dict(report)`, `scan_to_csv(report, "scan.csv")`.

Takes what `scans.<name>(...)` returned, whose points are read from the streams, or a scan of `bec.history`, whose points
are read from its file.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ContextDecorator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bec_client.history import ScanData
from bec_client.report import ScanReport
from bec_lib.errors import BECError, ParameterError, StorageError

if TYPE_CHECKING:
    from bec_client.client import BECClient

Exportable = ScanReport | ScanData


def scan_to_dict(scan_report: Exportable, flat: bool = True) -> dict[str, Any]:
    """{"value": ..., "timestamp": ...}, each signal -> list of one entry per point; flat=False: device -> signal -> list.

    Raises BECError for a request that is no scan, or of which nothing is left to read.
    """
    found: dict[str, Any] = {"timestamp": {}, "value": {}}
    for device, signal, values, times in _columns(scan_report):
        for kind, column in (("value", values), ("timestamp", times)):
            if flat:
                found[kind][signal] = column
            else:
                found[kind].setdefault(device, {})[signal] = column
    return found


def scan_to_csv(
    scan_report: Exportable | Sequence[Exportable],
    output_name: str | Path,
    delimiter: str = ",",
    dialect: str | None = None,
    header: Sequence[str] | None = None,
    write_metadata: bool = True,
) -> None:
    """Write one scan, or several one below the other, as CSV: lines with `#` that tell what it is, then a row per point:
    scan number, dataset number, and of each signal its value and time stamp (seconds UTC).

    header: titles of the columns, instead of those made from the signals. write_metadata: a `#` line for each fact of the
    scan. Raises ParameterError for nothing to write or a header that does not fit, StorageError if the file cannot be
    written.
    """
    scans: list[Exportable] = (
        [scan_report] if isinstance(scan_report, (ScanReport, ScanData)) else list(scan_report)
    )
    if not scans:
        raise ParameterError(f"there is no scan to write to {output_name}")
    rows: list[list[Any]] = []
    points: list[list[Any]] = []
    titles: list[str] = []
    for scan in scans:
        columns = _columns(scan)
        facts = _facts(scan)
        rows.append([f"# {_words(facts)}"])
        if write_metadata:
            rows += [[f"#{name}", _one_line(value)] for name, value in facts.items() if value is not None]
        own = ["scan_number", "dataset_number"]
        own += [f"{signal}_{kind}" for _, signal, _, _ in columns for kind in ("value", "timestamp")]
        titles = titles or own
        if header is not None and len(header) != len(own):
            raise ParameterError(
                f"the header has {len(header)} titles, and the table has {len(own)} columns: {', '.join(own)}"
            )
        count = len(columns[0][2]) if columns else 0
        for k in range(count):
            row: list[Any] = [facts["scan_number"], facts["dataset_number"]]
            for _, _, values, times in columns:
                row += [values[k], times[k]]
            points.append(row)
    titles = list(header) if header is not None else titles
    rows += [["#" + titles[0], *titles[1:]], *points]
    form: dict[str, Any] = {"dialect": dialect} if dialect else {}
    if delimiter and not dialect:
        form["delimiter"] = delimiter
    try:
        with Path(output_name).expanduser().open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, **form).writerows(rows)
    except OSError as error:
        raise StorageError(f"{output_name} cannot be written: {error.strerror or error}") from error
    except (csv.Error, TypeError) as error:
        raise ParameterError(f"{output_name} cannot be written as CSV: {error}") from error


class ScanExport(ContextDecorator):
    """`with scans.scan_export("f.csv"):` writes all scans of the block to a CSV file when it ends."""

    def __init__(self, client: BECClient, output_file: str | Path):
        self._client = client
        self._file = output_file
        self._reports: list[ScanReport] = []

    def __enter__(self) -> ScanExport:
        self._reports = []
        self._client.scans.exports.append(self)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: Any) -> None:
        self._client.scans.exports.remove(self)
        try:
            # After an error nothing is waited for: a scan may be paused, and the prompt is wanted.
            for report in self._reports if kind is None else ():
                report.wait(file_written=False)
        finally:
            self._write()

    def add(self, report: ScanReport) -> None:
        if report.is_scan:
            self._reports.append(report)

    def _write(self) -> None:
        over = [report for report in self._reports if report.scan is not None and report.scan.ended.is_set()]
        going_on = [report for report in self._reports if not report.done]
        if over:
            scan_to_csv(over, self._file)
        else:
            self._client.notify(f"no scan has ended, so {self._file} is not written")
        if over and going_on:
            self._client.notify(f"{self._file} is without {len(going_on)} of the scans, not ended yet")


def _columns(scan: Exportable) -> list[tuple[str, str, list[Any], list[Any]]]:
    """Device, signal, values, time stamps of each column; arrays are left out."""
    if isinstance(scan, ScanData):
        return _columns_of_file(scan)
    item = getattr(scan, "scan", None)
    if item is None:
        what = (
            f"{scan.what} is no scan, it has no points"
            if isinstance(scan, ScanReport)
            else f"{scan!r} is no scan"
        )
        raise ParameterError(what)
    item.points.pull()
    schema = item.points.schema
    if schema is None:
        if item.filed.is_set():
            return _columns_of_file(item.data)
        raise BECError(f"scan {item.scan_number or item.scan_id} has no points yet")
    count = item.points.count
    return [
        (signal.device, signal.signal, item.points.values[k][:count], item.points.times[k][:count])
        for k, signal in enumerate(schema.signals)
        if not signal.shape
    ]


def _columns_of_file(scan: ScanData) -> list[tuple[str, str, list[Any], list[Any]]]:
    found = []
    for device, signals in scan.readout_groups.monitored_devices.read().items():
        for signal, data in signals.items():
            value = data.get("value") if isinstance(data, dict) else None
            if getattr(value, "ndim", 1) == 1 and value is not None:
                times = data.get("timestamp")
                found.append(
                    (device, signal, list(value), [None] * len(value) if times is None else list(times))
                )
    return found


def _facts(scan: Exportable) -> dict[str, Any]:
    m: Any = scan.message if isinstance(scan, ScanData) else scan.scan.status_message if scan.scan else None
    names = ("scan_number", "dataset_number", "scan_name", "scan_id", "status", "user", "account", "motors")
    facts: dict[str, Any] = {
        name: getattr(m, name, None) for name in (*names, "num_points", "args", "kwargs")
    }
    metadata = getattr(m, "user_metadata", None) or {}
    if facts["dataset_number"] is None:
        facts["dataset_number"] = metadata.get("dataset_number")
    return {**facts, **{f"metadata.{name}": value for name, value in metadata.items()}}


def _words(facts: dict[str, Any]) -> str:
    return (
        f"scan {facts['scan_number']}: {facts['scan_name']}, {facts['num_points']} points, {facts['status']}"
    )


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())
