"""Messages to bytes and back."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bec_lib import codec
from bec_lib import messages as m
from bec_lib.errors import MessageError, MessageTooLarge, UnsupportedMessage

ENVELOPE = m.Envelope(1, "", "id-1", "scan_server", "i1", 3, "ada", "p1", 12.5)

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
trees = st.recursive(
    leaves, lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(), t, max_size=4), max_leaves=12
)


def envelope_for(message: m.Message) -> m.Envelope:
    return m.Envelope(1, message.msg_type, "id-1", "scan_server", "i1", 3, "ada", "p1", 12.5)


def round_trip(message: m.Message) -> m.Message:
    decoded, envelope = codec.decode(codec.encode(message, envelope_for(message)))
    assert envelope == envelope_for(message)
    return decoded


@given(trees)
def test_any_plain_value_survives(value: object) -> None:
    message = m.ScanJournalMessage(scan_id="s", step=1, kind="read", result=value)
    assert round_trip(message) == message


@given(
    npst.arrays(
        dtype=st.sampled_from(["f8", "f4", "i8", "u2", "?", "c16", "S4", "U3"]),
        shape=npst.array_shapes(min_dims=0, max_dims=3, max_side=5, min_side=0),
    )
)
def test_any_numeric_array_survives_with_dtype_and_shape(array: np.ndarray) -> None:
    found = round_trip(m.ScanJournalMessage(scan_id="s", step=1, kind="read", result=array)).result  # type: ignore[attr-defined]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_nested_models_and_enums_survive() -> None:
    message = m.ScanStatusMessage(
        scan_id="s",
        scan_number=4,
        status=m.ScanState.ABORTED,
        scan_name="line_scan",
        request_id="r",
        error=m.ErrorInfo(error_message="no"),
        file=m.FileTarget(stem="/d/S00004/S00004"),
        readout=m.ReadoutGroups(monitored=["samx"]),
    )
    assert round_trip(message) == message


def test_numpy_scalars_become_numbers() -> None:
    message = m.DeviceMessage(signals={"a": {"value": np.float32(0.5), "timestamp": np.float64(1)}})
    assert round_trip(message).signals == {"a": {"value": 0.5, "timestamp": 1.0}}  # type: ignore[attr-defined]


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_raise_a_message_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        codec.decode(data)


@given(st.data())
def test_a_damaged_message_raises_a_message_error_or_is_a_message(data: st.DataObject) -> None:
    whole = bytearray(codec.encode(m.ProgressMessage(value=1.0), envelope_for(m.ProgressMessage(value=1.0))))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        message, _ = codec.decode(bytes(whole))
    except MessageError:
        return
    assert isinstance(message, m.Message)


def test_unknown_types_and_newer_protocols_are_unsupported() -> None:
    raw = {"v": 1, "t": "from_the_future", "i": "", "s": ("x", "y", 0), "u": "", "a": "", "ts": 0.0, "b": {}}
    with pytest.raises(UnsupportedMessage, match="from_the_future"):
        codec.decode(msgpack.packb(raw))
    with pytest.raises(UnsupportedMessage, match="protocol version 99"):
        codec.decode(msgpack.packb({**raw, "v": 99, "t": "progress_message"}))


def test_unknown_fields_are_ignored_and_missing_ones_are_named() -> None:
    raw = {"v": 1, "t": "scan_number", "i": "", "s": ("x", "y", 0), "u": "", "a": "", "ts": 0.0}
    message, _ = codec.decode(msgpack.packb({**raw, "b": {"scan_number": 3, "new_field": 1}}))
    assert message == m.ScanNumberMessage(scan_number=3)
    with pytest.raises(MessageError, match="scan_number") as caught:
        codec.decode(msgpack.packb({**raw, "b": {"request_id": "r1"}}))
    assert caught.value.body == {"request_id": "r1"}


def test_what_has_no_representation_is_refused() -> None:
    with pytest.raises(MessageError, match="type object"):
        codec.encode(m.ScanJournalMessage(scan_id="s", step=1, kind="x", result=object()), ENVELOPE)
    with pytest.raises(MessageError, match="dtype object"):
        codec.encode(
            m.ScanJournalMessage(scan_id="s", step=1, kind="x", result=np.array([object()])), ENVELOPE
        )


def test_the_limit_of_arrays_is_the_class_s() -> None:
    array = np.zeros(9000)
    with pytest.raises(MessageTooLarge, match="72000 bytes"):
        codec.encode(m.ScanJournalMessage(scan_id="s", step=1, kind="x", result=array), ENVELOPE)
    codec.encode(m.ScanPositionsMessage(scan_id="s", motors=["a"], positions=array.reshape(-1, 1)), ENVELOPE)


def test_an_array_of_objects_from_the_wire_is_not_made() -> None:
    evil = msgpack.ExtType(1, msgpack.packb(("|O", [1], b"\0" * 8)))
    raw = {"v": 1, "t": "scan_journal", "i": "", "s": ("x", "y", 0), "u": "", "a": "", "ts": 0.0}
    body = {"scan_id": "s", "step": 1, "kind": "x", "result": evil}
    with pytest.raises(MessageError):
        codec.decode(msgpack.packb({**raw, "b": body}))
