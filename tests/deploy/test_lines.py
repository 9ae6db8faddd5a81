"""JSON lines."""

from __future__ import annotations

from deploy.lines import LineBuffer, encode


def test_lines_come_out_whole_however_they_arrive() -> None:
    data = encode({"a": 1}) + encode({"b": "ü\n"})
    for cut in range(len(data)):
        buffer = LineBuffer()
        assert buffer.feed(data[:cut]) + buffer.feed(data[cut:]) == [{"a": 1}, {"b": "ü\n"}]


def test_what_is_no_object_is_passed_over() -> None:
    assert LineBuffer().feed(b'nonsense\n[1]\n\n{"a": 1}\n') == [{"a": 1}]


def test_an_endless_line_does_not_fill_the_memory() -> None:
    buffer = LineBuffer()
    for _ in range(30):
        assert buffer.feed(b"x" * 100_000) == []
    assert len(buffer._rest) < 1_100_000
