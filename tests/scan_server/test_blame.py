"""Who is blamed for the end of a scan server: for what it takes how many, and what is forgotten again."""

from __future__ import annotations

import pytest

from bec_lib.foreign import CLEANING_UP, IMPORTING, WORKING_OUT, ForeignCall
from scan_server.blame import Blame, Life, blame, forget, from_plain, not_to_import, to_plain


def call(scan_id: str = "", request_id: str = "", where: int = WORKING_OUT, plugin: str = "p") -> ForeignCall:
    return ForeignCall("the scan zigzag (plugin p)", plugin, request_id, scan_id, where=where)


def died(name: str, *calls: ForeignCall, how: str = "killed by SIGKILL") -> Life:
    return Life(name, how, calls)


def test_a_request_that_was_being_worked_out_is_refused_at_once() -> None:
    known = blame(Blame(), [died("a", call(request_id="r1"))])
    assert set(known.requests) == {"r1"} and not known.scans
    assert "the scan zigzag (plugin p), working out what it will do" in known.requests["r1"]
    assert "the scan server was killed by SIGKILL while" in known.requests["r1"]


@pytest.mark.parametrize(
    "how", ["ended with code 3", "killed by SIGSEGV", "killed by the supervisor: silent for 6 s"]
)
def test_what_nobody_else_can_have_done_is_blamed_at_once(how: str) -> None:
    known = blame(Blame(), [died("a", call("s1", where=4), how=how)])
    assert "at step 5" in known.why("s1") and how in known.why("s1")


@pytest.mark.parametrize("how", ["", "killed by SIGKILL"])
def test_what_may_have_come_from_anybody_is_blamed_the_third_time_at_the_same_place(how: str) -> None:
    known = blame(Blame(), [died("a", call("s1", where=4), how=how)])
    known = blame(known, [died("b", call("s1", where=4), how=how)])
    known = blame(known, [died("c", call("s1", where=7), how=how)])
    assert known.why("s1") == ""
    assert blame(known, [died("d", call("s1", where=4), how=how)]).why("s1")


def test_a_life_counts_once_however_often_it_is_found() -> None:
    known = Blame()
    for _ in range(5):
        known = blame(known, [died("a", call("s1", where=4))])
    assert known.why("s1") == ""


def test_of_two_that_were_running_neither_is_certain() -> None:
    known = blame(Blame(), [died("a", call("s1", where=1), call("s2", where=0), how="ended with code 3")])
    assert known.why("s1") == known.why("s2") == ""


def test_a_scan_in_whose_code_it_was_not_is_not_blamed() -> None:
    assert blame(Blame(), [died(name) for name in "abcdef"]) == Blame()


def test_where_a_blamed_scan_has_ended_it_its_code_is_not_run_again() -> None:
    known = blame(Blame(), [died("a", call("s1", where=4), how="killed by SIGSEGV")])
    assert known.may("s1", WORKING_OUT) and known.may("s1", CLEANING_UP)
    known = blame(known, [died("b", call("s1", where=CLEANING_UP))])
    assert known.may("s1", WORKING_OUT) and not known.may("s1", CLEANING_UP)
    # What is said is what happened first.
    assert "at step 5" in known.why("s1")


def test_a_scan_that_is_not_blamed_may_be_worked_out_again() -> None:
    assert blame(Blame(), [died("a", call("s1"))]).may("s1", WORKING_OUT)


def test_a_plugin_that_ended_it_while_it_was_imported_is_left_out() -> None:
    lives = [died("a", call(where=IMPORTING, plugin="bad")), died("b", call("s1", where=1, plugin="good"))]
    assert set(not_to_import(lives)) == {"bad"}
    assert "being imported; it is left out" in not_to_import(lives)["bad"]


def test_it_survives_as_plain_values_and_what_is_over_is_forgotten() -> None:
    lives = [died("a", call("s1", where=4), call("s2", where=0)), died("b", call(request_id="r1"))]
    known = blame(Blame(), lives)
    assert from_plain(to_plain(known)) == known
    assert from_plain({}) == Blame() and to_plain(Blame()) == {}
    left = forget(known, scans=["s1"], requests=["r1"])
    assert set(left.scans) == {"s2"} and not left.requests
    assert forget(known, scans=["another"]) is known
