"""Requests for fits: what is asked, which were answered, and how far the streams of requests are done with.

A request is open until it is answered, and several are open at the same time; the cursor of a stream stands
before its oldest open request, so that a restarted service finds them again. Knows no broker.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from bec_lib.errors import ParameterError
from bec_lib.messages import DAPRequestMessage, DAPResponseMessage
from data_pipeline.table import Floats

KEEP_ANSWERS = 500


@dataclass
class _Entry:
    entry_id: str
    is_open: bool = True


@dataclass
class RequestLog:
    """The requests of this run of the service."""

    _streams: dict[str, deque[_Entry]] = field(default_factory=dict)
    _open: dict[str, tuple[str, _Entry]] = field(default_factory=dict)
    _answers: OrderedDict[str, tuple[str, DAPResponseMessage]] = field(default_factory=OrderedDict)

    def begin(self, stream: str, entry_id: str, request_id: str) -> bool:
        """A request was read. False if it is a repeat: of an open one, which will be answered, or of an
        answered one (see `answer_to`).
        """
        entry = _Entry(entry_id)
        self._streams.setdefault(stream, deque()).append(entry)
        if request_id in self._open or request_id in self._answers:
            entry.is_open = False
            return False
        self._open[request_id] = (stream, entry)
        return True

    def pass_over(self, stream: str, entry_id: str) -> None:
        """An entry that is no request was read."""
        self._streams.setdefault(stream, deque()).append(_Entry(entry_id, is_open=False))

    def end(self, client_id: str, answer: DAPResponseMessage) -> None:
        """The request is answered."""
        found = self._open.pop(answer.request_id, None)
        if found is not None:
            found[1].is_open = False
        self._answers[answer.request_id] = (client_id, answer)
        while len(self._answers) > KEEP_ANSWERS:
            self._answers.popitem(last=False)

    def forget(self, request_id: str) -> None:
        """The request needs no answer: it was answered before the service started."""
        found = self._open.pop(request_id, None)
        if found is not None:
            found[1].is_open = False

    def answer_to(self, request_id: str) -> tuple[str, DAPResponseMessage] | None:
        """The client and the answer of a request that was answered lately."""
        return self._answers.get(request_id)

    def take_cursors(self) -> dict[str, str]:
        """Stream -> the last entry before which nothing is open, for those that have moved since the last
        call.
        """
        moved = {}
        for stream, entries in self._streams.items():
            while entries and not entries[0].is_open:
                moved[stream] = entries.popleft().entry_id
        return moved


def arrays(request: DAPRequestMessage) -> tuple[Floats, Floats]:
    """The data given with a request. Raises ParameterError if they are not two lists of numbers of one
    length.
    """
    if request.x_data is None or request.y_data is None:
        missing = "x_data" if request.x_data is None else "y_data"
        raise ParameterError(f"a fit needs a scan (scan_id), or both x_data and y_data; {missing} is missing")
    for name, data in (("x_data", request.x_data), ("y_data", request.y_data)):
        if data.ndim != 1 or data.dtype.kind not in "biuf":
            raise ParameterError(
                f"{name} must be a list of numbers; it has shape {data.shape} and type {data.dtype}"
            )
    if len(request.x_data) != len(request.y_data):
        raise ParameterError(
            f"x_data has {len(request.x_data)} values and y_data {len(request.y_data)}; they must be as many"
        )
    return request.x_data.astype(np.float64), request.y_data.astype(np.float64)
