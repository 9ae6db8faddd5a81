"""What a process has said of the code it runs, as others find it: while it runs, and after its death."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bec_lib.foreign import CLEANING_UP, IMPORTING, ForeignCall
from bec_lib.service.foreign_code import ForeignCode, calls_of

CALL = ForeignCall("the scan zigzag (plugin p)", "p", scan_id="s1", patience_s=10.0)

DYING = """
import os, sys
from pathlib import Path
from bec_lib.foreign import ForeignCall
from bec_lib.service.foreign_code import ForeignCode
made = ForeignCode(Path(sys.argv[1]), "scan_server", "life-1")
first = made.slot(ForeignCall("the scan zigzag", "p", scan_id="s1"))
second = made.slot(ForeignCall("the scan other", "q", request_id="r1"))
first.enter(4)
second.enter()
second.leave()
print(os.getpid(), flush=True)
os._exit(3)
"""


def test_what_it_is_in_can_be_read_while_it_is_in_it(tmp_path: Path) -> None:
    code = ForeignCode(tmp_path, "scan_server", "life-1")
    slot = code.slot(CALL)
    assert calls_of(tmp_path, "scan_server", os.getpid()) == []
    slot.enter(2)
    (found,) = calls_of(tmp_path, "scan_server", os.getpid())
    assert (found.whose, found.scan_id, found.where) == (CALL.whose, "s1", 2)
    assert found.until == found.since + 10.0
    assert str(found) == "the scan zigzag (plugin p), at step 3"
    slot.leave()
    assert calls_of(tmp_path, "scan_server", os.getpid()) == []
    slot.enter(CLEANING_UP)
    assert str(calls_of(tmp_path, "scan_server", os.getpid())[0]).endswith("cleaning up")
    slot.enter(IMPORTING)
    assert str(calls_of(tmp_path, "scan_server", os.getpid())[0]).endswith("being imported")


def test_what_was_begun_last_comes_last(tmp_path: Path) -> None:
    code = ForeignCode(tmp_path, "scan_server", "life-1")
    slots = {name: code.slot(ForeignCall(name)) for name in ("a", "b")}
    slots["b"].enter()
    slots["a"].enter()
    assert [call.whose for call in calls_of(tmp_path, "scan_server", os.getpid())] == ["b", "a"]


def test_only_the_dead_have_left_something_behind(tmp_path: Path) -> None:
    mine = ForeignCode(tmp_path, "scan_server", "life-2")
    mine.slot(CALL).enter(1)
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], capture_output=True, timeout=60)
    assert done.returncode == 3
    (left,) = mine.left_behind()
    assert (left.life, left.pid) == ("life-1", int(done.stdout))
    assert [(call.scan_id, call.where) for call in left.calls] == [("s1", 4)]
    assert ForeignCode(tmp_path, "scan_bundler", "life-1").left_behind() == []


def test_who_ends_by_its_own_will_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "foreign_code"
    code = ForeignCode(folder, "scan_server", "life-1")
    slot = code.slot(CALL)
    slot.enter()
    code.close()
    assert not folder.exists()
    slot.leave()


def test_there_is_room_again_behind_a_call_that_is_over(tmp_path: Path) -> None:
    code = ForeignCode(tmp_path, "scan_server", "life-1")
    hanging = code.slot(CALL)
    hanging.enter()
    for _ in range(100):
        slot = code.slot(ForeignCall("another"))
        slot.enter()
        slot.leave()
        code.free(slot)
    code.free(hanging)
    assert [call.whose for call in calls_of(tmp_path, "scan_server", os.getpid())] == [CALL.whose]
    more = [code.slot(ForeignCall("one more")) for _ in range(30)]
    for slot in more:
        slot.enter()
        slot.leave()
    assert [call.whose for call in calls_of(tmp_path, "scan_server", os.getpid())] == [CALL.whose]


@pytest.mark.parametrize("text", [b"", b"BECCODE1", b"x" * 20_000])
def test_a_file_that_is_none_of_ours_is_passed_over(tmp_path: Path, text: bytes) -> None:
    code = ForeignCode(tmp_path, "scan_server", "life-1")
    (ours,) = tmp_path.iterdir()
    ours.with_name(f"{ours.stem}.1").write_bytes(text)
    assert code.left_behind() == []
    assert calls_of(tmp_path, "scan_server", 1) == []


def test_without_a_folder_all_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = ForeignCode(tmp_path / "file" / "folder", "scan_server", "life-1")
    slot = code.slot(CALL)
    slot.enter()
    slot.leave()
    assert code.left_behind() == []
    code.close()
