"""Every message type as it stands on the wire.

The snapshot is the promise to other programs: fields may be added, never renamed, removed or retyped. After an
intended addition run `python -m tests.bec_lib.test_messages` and look at the difference before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bec_lib.messages import REGISTRY, Message

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "messages.json"


def schemas() -> dict[str, object]:
    """msg_type -> field name -> {type, default or required}."""
    found: dict[str, object] = {}
    for name, kind in sorted(REGISTRY.items()):
        if not kind.__module__.startswith("bec_lib."):
            continue
        found[name] = {
            field_name: {
                "type": str(field.annotation).replace("typing.", ""),
                "default": "required" if field.is_required() else repr(field.default),
            }
            for field_name, field in kind.model_fields.items()
        }
    return found


def test_no_message_changed_unnoticed() -> None:
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert schemas() == expected


def test_messages_are_frozen() -> None:
    message = REGISTRY["progress_message"](value=1.0)
    with pytest.raises(ValueError, match="frozen"):
        message.value = 2.0  # type: ignore[attr-defined]


def test_a_message_without_a_name_is_refused() -> None:
    with pytest.raises(TypeError, match="msg_type"):

        class Nameless(Message):
            pass


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(schemas(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
