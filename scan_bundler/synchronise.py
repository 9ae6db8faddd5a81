"""Which points of a scan are complete? Readings of several device servers in, points in order out.

A pure fold: `Fold.schema`, `.readings` and `.end` take what arrived and return what is to be said. Knows one
scan, no stream, no clock. With one device server a block goes through as it came.

State                 Event                          New state, and what comes out
--------------------  -----------------------------  ---------------------------------------------------------
no schema             readings                       held
any                   schema                         what was held is taken up
collecting            readings, next in order        points, with all that is now complete behind them
collecting            readings beyond a gap          held until the gap is filled
collecting            readings with parts missing    held until every server of the schema has answered
collecting            readings of an emitted point   dropped: a point is emitted once
collecting            a point held, higher attempt   the higher attempt counts
collecting            baseline of every server       baseline, once
any                   end                            what is missing, and the baseline as far as it goes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bec_lib.messages import BaselineMessage, PointsMessage, ReadingsMessage, ScanSchemaMessage

BASELINE = "baseline"
# A block of points stays small enough for a message, however many were held back.
MAX_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Wrong:
    """A block that does not fit the schema and was left out. why: one sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps a scan that is over from being complete.

    servers: device server -> points it did not deliver, below `expected`. baseline: servers without a
    baseline.
    """

    expected: int
    complete: int
    servers: dict[str, list[int]]
    baseline: list[str]

    @property
    def points(self) -> bool:
        return self.complete < self.expected

    def sentence(self) -> str:
        """What is missing, for people; "" if nothing is."""
        parts = []
        if self.points:
            names = "; ".join(
                f"device server {server} did not deliver {_ranges(points)}"
                for server, points in self.servers.items()
                if points
            )
            parts.append(
                f"{self.complete} of {self.expected} points are complete ({names or 'no readings came'})"
            )
        if self.baseline:
            parts.append(f"the baseline readings of device server {', '.join(self.baseline)} are missing")
        return "; ".join(parts)


Output = PointsMessage | BaselineMessage | Wrong


@dataclass(slots=True)
class _Part:
    """One server's reading of one point: a row of a block."""

    attempt: int
    message: ReadingsMessage
    row: int


@dataclass(slots=True)
class Fold:
    """The points of one scan, as far as they are known. next_index: of the first point not yet emitted;
    larger than 0 after a restart.
    """

    scan_id: str
    next_index: int = 0
    baseline_done: bool = False
    schemas: dict[int, ScanSchemaMessage] = field(default_factory=dict)
    _columns: dict[tuple[int, str, bool], list[int]] = field(default_factory=dict)
    _parts: dict[int, dict[str, _Part]] = field(default_factory=dict)
    _baseline: dict[str, ReadingsMessage] = field(default_factory=dict)
    _early: list[ReadingsMessage] = field(default_factory=list)

    def schema(self, message: ScanSchemaMessage) -> list[Output]:
        """A version of the schema; readings that came before it are taken up."""
        self.schemas[message.version] = message
        early, self._early = self._early, []
        return [output for reading in early for output in self.readings(reading)]

    def readings(self, message: ReadingsMessage) -> list[Output]:
        """A block of readings."""
        schema = self.schemas.get(message.schema_version)
        if schema is None:
            self._early.append(message)
            return []
        baseline = message.group == BASELINE
        wrong = self._fault(message, schema, baseline)
        if wrong:
            return [Wrong(wrong)]
        if baseline:
            return self._take_baseline(message, schema)
        if self._passes_through(message, schema):
            points = _cut(message, self.next_index)
            self.next_index = points.first_index + points.count
            return [points]
        self._hold(message)
        return list(self._complete_points())

    def end(self, expected: int | None) -> Missing:
        """What is missing if there are to be `expected` points (None: as many as came)."""
        schema = self.schemas[max(self.schemas)] if self.schemas else None
        wanted = max(expected or 0, self.next_index)
        servers: dict[str, list[int]] = {}
        for server in _servers(schema, False) if schema else []:
            servers[server] = [
                index for index in range(self.next_index, wanted) if server not in self._parts.get(index, {})
            ]
        lacking = [] if schema is None or self.baseline_done else _servers(schema, True)
        return Missing(
            wanted, self.next_index, servers, [server for server in lacking if server not in self._baseline]
        )

    def partial_baseline(self) -> BaselineMessage | None:
        """The baseline with None where a server did not answer; None if it was emitted or nobody answered."""
        if self.baseline_done or not self._baseline:
            return None
        return self._join_baseline(self.schemas[max(self.schemas)])

    def _fault(self, message: ReadingsMessage, schema: ScanSchemaMessage, baseline: bool) -> str:
        wanted = len(self._columns_of(schema, message.server, baseline))
        where = f"a block of {'baseline ' if baseline else ''}readings of device server {message.server}"
        if len(message.values) != wanted or len(message.device_times) != wanted:
            return (
                f"{where} has {len(message.values)} columns, schema version {schema.version} has {wanted} "
                "for this server; the block was left out"
            )
        count = 1 if baseline else message.count
        try:
            lengths = {len(column) for column in (*message.values, *message.device_times)}
        except TypeError:
            return f"{where} has columns that are no lists; the block was left out"
        if not baseline:
            lengths.add(len(message.server_times))
        if lengths - {count} or count < 1 or message.first_index < 0:
            return (
                f"{where} announces {count} points from {message.first_index} and has columns of "
                f"{', '.join(str(length) for length in sorted(lengths))}; the block was left out"
            )
        return ""

    def _passes_through(self, message: ReadingsMessage, schema: ScanSchemaMessage) -> bool:
        """Nothing is held, one server reads everything, and the block has the next points."""
        return (
            not self._parts
            and message.first_index <= self.next_index < message.first_index + message.count
            and _servers(schema, False) == [message.server]
        )

    def _hold(self, message: ReadingsMessage) -> None:
        for row in range(max(0, self.next_index - message.first_index), message.count):
            parts = self._parts.setdefault(message.first_index + row, {})
            held = parts.get(message.server)
            if held is None or message.attempt > held.attempt:
                parts[message.server] = _Part(message.attempt, message, row)

    def _complete_points(self) -> Iterator[PointsMessage]:
        """Points that have become complete, in order, in blocks of one schema version."""
        block: list[dict[str, _Part]] = []
        version = 0
        while True:
            parts = self._parts.get(self.next_index)
            found = self._version(parts) if parts else None
            if parts is None or found is None:
                break
            if block and (found != version or len(block) >= MAX_BLOCK):
                yield self._join(self.next_index - len(block), block, self.schemas[version])
                block = []
            version = found
            block.append(parts)
            del self._parts[self.next_index]
            self.next_index += 1
        if block:
            yield self._join(self.next_index - len(block), block, self.schemas[version])

    def _version(self, parts: dict[str, _Part]) -> int | None:
        """The schema version in which a point is complete, None if it is not.

        A server whose columns did not change need not read a point again because another's did.
        """
        version = max(part.message.schema_version for part in parts.values())
        schema = self.schemas[version]
        for server in _servers(schema, False):
            part = parts.get(server)
            if part is None:
                return None
            other = self.schemas[part.message.schema_version]
            if other is not schema and _signals_of(other, server) != _signals_of(schema, server):
                return None
        return version

    def _join(
        self, first: int, block: Sequence[dict[str, _Part]], schema: ScanSchemaMessage
    ) -> PointsMessage:
        values: list[Any] = [None] * len(schema.signals)
        times: list[Any] = [None] * len(schema.signals)
        for server in _servers(schema, False):
            rows = [parts[server] for parts in block]
            for column, target in enumerate(self._columns_of(schema, server, False)):
                values[target] = [part.message.values[column][part.row] for part in rows]
                times[target] = [part.message.device_times[column][part.row] for part in rows]
        # A point was there when the last of its parts was.
        server_times = [
            max(part.message.server_times[part.row] for part in parts.values()) for parts in block
        ]
        return PointsMessage(
            scan_id=self.scan_id,
            schema_version=schema.version,
            first_index=first,
            count=len(block),
            values=values,
            device_times=times,
            server_times=server_times,
        )

    def _take_baseline(self, message: ReadingsMessage, schema: ScanSchemaMessage) -> list[Output]:
        if self.baseline_done:
            return []
        held = self._baseline.get(message.server)
        if held is None or message.attempt > held.attempt:
            self._baseline[message.server] = message
        if any(server not in self._baseline for server in _servers(schema, True)):
            return []
        return [self._join_baseline(schema)]

    def _join_baseline(self, schema: ScanSchemaMessage) -> BaselineMessage:
        self.baseline_done = True
        values: list[Any] = [None] * len(schema.baseline)
        times: list[Any] = [None] * len(schema.baseline)
        for server, message in self._baseline.items():
            targets = self._columns_of(schema, server, True)
            if len(targets) != len(message.values):
                continue  # read against another version, with other columns
            for column, target in enumerate(targets):
                values[target] = message.values[column][0]
                times[target] = message.device_times[column][0]
        return BaselineMessage(scan_id=self.scan_id, values=values, device_times=times)

    def _columns_of(self, schema: ScanSchemaMessage, server: str, baseline: bool) -> list[int]:
        """Where a server's columns stand among the schema's."""
        key = (schema.version, server, baseline)
        found = self._columns.get(key)
        if found is None:
            signals = schema.baseline if baseline else schema.signals
            found = [index for index, signal in enumerate(signals) if signal.server == server]
            self._columns[key] = found
        return found


def _servers(schema: ScanSchemaMessage, baseline: bool) -> list[str]:
    """The servers which must answer, in order of first appearance.

    A scan without monitored signals still has points: then it is the schema's servers that answer.
    """
    signals = schema.baseline if baseline else schema.signals
    found = list(dict.fromkeys(signal.server for signal in signals))
    return found or ([] if baseline else list(schema.servers[:1]))


def _signals_of(schema: ScanSchemaMessage, server: str) -> list[Any]:
    return [signal for signal in schema.signals if signal.server == server]


def _cut(message: ReadingsMessage, first: int) -> PointsMessage:
    """The block's points from index `first` on."""
    skip = first - message.first_index
    values, times, servers = message.values, message.device_times, message.server_times
    if skip:
        values = [column[skip:] for column in values]
        times = [column[skip:] for column in times]
        servers = servers[skip:]
    return PointsMessage(
        scan_id=message.scan_id,
        schema_version=message.schema_version,
        first_index=first,
        count=message.count - skip,
        values=values,
        device_times=times,
        server_times=servers,
    )


def merged(blocks: Iterable[PointsMessage]) -> list[PointsMessage]:
    """The same points in fewer blocks: neighbours of one schema version are joined, up to MAX_BLOCK points."""
    result: list[PointsMessage] = []
    run: list[PointsMessage] = []
    count = 0
    for block in blocks:
        if run and (block.schema_version != run[0].schema_version or count + block.count > MAX_BLOCK):
            result.append(_concatenated(run, count))
            run, count = [], 0
        run.append(block)
        count += block.count
    if run:
        result.append(_concatenated(run, count))
    return result


def _concatenated(run: list[PointsMessage], count: int) -> PointsMessage:
    if len(run) == 1:
        return run[0]
    return PointsMessage(
        scan_id=run[0].scan_id,
        schema_version=run[0].schema_version,
        first_index=run[0].first_index,
        count=count,
        values=[
            [item for part in column for item in part]
            for column in zip(*(b.values for b in run), strict=True)
        ],
        device_times=[
            [item for part in column for item in part]
            for column in zip(*(b.device_times for b in run), strict=True)
        ],
        server_times=[item for block in run for item in block.server_times],
    )


def _ranges(points: Sequence[int], at_most: int = 5) -> str:
    """Point numbers for people: "points 3, 7-9 and 12 more"."""
    spans: list[list[int]] = []
    for point in points:
        if spans and point == spans[-1][1] + 1:
            spans[-1][1] = point
        else:
            spans.append([point, point])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in spans[:at_most]]
    rest = sum(b - a + 1 for a, b in spans[at_most:])
    text = ("point " if len(points) == 1 else "points ") + ", ".join(words)
    return f"{text} and {rest} more" if rest else text
