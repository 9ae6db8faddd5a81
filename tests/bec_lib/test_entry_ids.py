"""Positions in streams."""

from __future__ import annotations

import pytest

from bec_lib.ids import entry_order, just_before


@pytest.mark.parametrize(
    ("entry", "before"),
    [("5-3", "5-2"), ("5-0", "4-18446744073709551615"), ("0-1", "0-0"), ("0-0", "0-0")],
)
def test_the_position_just_before_an_entry(entry: str, before: str) -> None:
    assert just_before(entry) == before


def test_entries_sort_by_number_not_by_text() -> None:
    assert sorted(["10-0", "9-2", "9-10"], key=entry_order) == ["9-2", "9-10", "10-0"]
