"""Version-7 UUIDs."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bec_lib.ids import new_id, uuid7
from bec_lib.testing import FakeClock


@given(st.floats(0, 2**37), st.binary(min_size=10, max_size=16))
def test_version_variant_and_time_are_where_the_rfc_puts_them(moment: float, random_bits: bytes) -> None:
    value = UUID(uuid7(moment, random_bits))
    assert value.version == 7
    assert value.variant == "specified in RFC 4122"
    assert value.int >> 80 == int(moment * 1000)


def test_later_ids_sort_later() -> None:
    clock = FakeClock()
    ids = []
    for _ in range(50):
        ids.append(new_id(clock))
        clock.advance(0.001)
    assert ids == sorted(ids)
    assert len(set(ids)) == 50


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        uuid7(1.0, b"123")
