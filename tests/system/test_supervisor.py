"""The supervisor on services that do nothing: what dies, what comes back, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bec_lib.broker import Broker, Sender
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError
from bec_lib.service import load_service_config
from deploy import control, process
from deploy.lines import Line
from deploy.temporary import TemporaryFleet
from tests.system.processes import processes_of, wait_until

NewFleet = Callable[..., TemporaryFleet]


def broker_of(fleet: TemporaryFleet) -> Broker:
    config = load_service_config(fleet.config)
    return Broker(config.broker_settings, config.deployment, Sender("test", "test"))


def comes_back(fleet: TemporaryFleet, role: str, after: int) -> Line:
    """The row of a service that runs with another process than before."""

    def again() -> Line | None:
        row = fleet.row(role)
        return row if row["state"] == "RUNNING" and row["pid"] != after else None

    return wait_until(again, 5.0, f"{role} runs again")


def test_all_come_up_and_nothing_is_left_after_the_stop(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    status = fleet.status()
    assert [row["state"] for row in status["services"]] == ["RUNNING"] * 3
    assert status["redis"]["append_only"] is True
    assert status["redis"]["appendfsync"] == "no"
    assert len(processes_of(fleet)) == 6  # supervisor, keeper, Redis, three services
    fleet.stop()
    assert processes_of(fleet) == []
    assert sorted(path.name for path in fleet.state.iterdir()) == ["logs", "redis"]


def test_services_stop_wave_by_wave_and_redis_last(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    told: list[Line] = []
    fleet.stop(told.append)
    stopped = [line["service"] for line in told if line["event"] == "stopped" and "service" in line]
    assert stopped == [*sorted(stopped[:2]), "c", "supervisor"] or stopped == ["b", "a", "c", "supervisor"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_service_that_dies_is_back_within_two_seconds_and_says_why(
    new_fleet: NewFleet, dummies: list[str], number: signal.Signals
) -> None:
    fleet = new_fleet(arguments=dummies).start()
    before = fleet.row("b")
    os.kill(before["pid"], number)
    began = time.monotonic()
    row = comes_back(fleet, "b", before["pid"])
    assert time.monotonic() - began < 2.0
    assert row["restarts"] == 1
    expected = "ended without having been asked" if number is signal.SIGTERM else f"killed by {number.name}"
    assert expected in row["reason"]
    broker = broker_of(fleet)
    events = [item.message for item in broker.entries(MessageEndpoints.supervisor_events)]
    assert [(e.event, e.pid) for e in events if e.service == "b" and e.event == "ended"] == [
        ("ended", before["pid"])
    ]
    alarms = [item.message for item in broker.entries(MessageEndpoints.alarm)]
    assert any(expected in alarm.info.error_message for alarm in alarms)
    broker.close()


def test_a_loop_of_crashes_is_slowed_down(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    pid = fleet.row("a")["pid"]
    back_after = []
    for _ in range(3):
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        pid = comes_back(fleet, "a", pid)["pid"]
        back_after.append(time.monotonic() - began)
    assert back_after[1] > 0.5
    assert back_after[2] > 1.0
    assert fleet.row("a")["restarts"] == 3


def test_redis_that_is_killed_is_back_with_its_data(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    redis = fleet.status()["redis"]["pid"]
    broker = broker_of(fleet)
    # Its process is there before it answers.
    broker.is_patient = True
    written = len(broker.entries(MessageEndpoints.supervisor_events))
    os.kill(redis, signal.SIGKILL)
    wait_until(lambda: fleet.status()["redis"]["pid"] not in (None, redis), 5.0)
    assert len(broker.entries(MessageEndpoints.supervisor_events)) >= written > 0
    wait_until(lambda: [row["restarts"] for row in fleet.status()["services"]] == [0, 0, 0])
    broker.close()


def test_a_keeper_that_is_killed_takes_its_redis_along_and_both_come_back(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    fleet = new_fleet(arguments=dummies).start()
    before = fleet.status()
    os.kill(before["supervisor"]["keeper"], signal.SIGKILL)

    def both_are_new() -> bool:
        now = fleet.status()
        return (
            now["supervisor"]["keeper"] not in (0, before["supervisor"]["keeper"])
            and now["redis"]["pid"] not in (None, before["redis"]["pid"])
            and not process.is_alive(before["redis"]["pid"])
        )

    wait_until(both_are_new, 8.0)
    wait_until(lambda: all(row["state"] == "RUNNING" for row in fleet.status()["services"]))
    os.kill(fleet.supervisor, signal.SIGKILL)
    wait_until(lambda: processes_of(fleet) == [], 15.0)


def test_a_killed_supervisor_takes_everything_down_redis_last(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    """Redis's own log shows when it was asked to end; by then the services' last heartbeats were taken back."""
    fleet = new_fleet(arguments=dummies).start()
    os.kill(fleet.supervisor, signal.SIGKILL)
    wait_until(lambda: processes_of(fleet) == [], 15.0)
    assert sorted(path.name for path in fleet.state.iterdir()) == ["logs", "redis"]
    assert "DEL" in (fleet.state / "redis" / "appendonly.aof").read_bytes().decode(errors="replace")[-2000:]


def test_a_killed_supervisor_takes_down_even_what_does_not_listen(
    new_fleet: NewFleet, dummies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = new_fleet(arguments=dummies).start()
    os.kill(fleet.row("b")["pid"], signal.SIGSTOP)
    os.kill(fleet.supervisor, signal.SIGKILL)
    wait_until(lambda: processes_of(fleet) == [], 25.0)


def test_a_second_fleet_in_the_same_folder_is_refused_in_one_sentence(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    fleet = new_fleet(arguments=dummies).start()
    with pytest.raises(BECError, match=rf"already running .*\(process {fleet.supervisor}\)"):
        control.start(["--config", str(fleet.config), *dummies], None)
    assert [row["state"] for row in fleet.status()["services"]] == ["RUNNING"] * 3


def test_a_second_fleet_of_the_same_deployment_is_refused_by_the_services(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    """Another folder, as on another host, but the same Redis and the same name: the leases refuse."""
    first = new_fleet(arguments=dummies).start()
    socket_path = load_service_config(first.config).broker_settings.unix_socket
    second = new_fleet(
        arguments=dummies, settings={"deployment": first.deployment, "redis": {"unix_socket": socket_path}}
    )
    with pytest.raises(BECError, match=rf"already running for deployment '{first.deployment}'"):
        second.start()
    assert processes_of(second) == []
    assert [row["restarts"] for row in first.status()["services"]] == [0, 0, 0]


def test_a_service_that_hangs_is_named(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    pid = fleet.row("b")["pid"]
    os.kill(pid, signal.SIGSTOP)
    row = wait_until(lambda: (row := fleet.row("b"))["state"] == "SILENT" and row["reason"] and row, 6.0)
    assert row["pid"] == pid
    assert "no heartbeat" in row["reason"]
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: fleet.row("b")["state"] == "RUNNING", 4.0)
    assert fleet.row("b")["restarts"] == 0


def test_a_hanging_service_does_not_hold_up_the_stop(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    os.kill(fleet.row("a")["pid"], signal.SIGSTOP)
    began = time.monotonic()
    fleet.stop()
    assert time.monotonic() - began < 8.0
    assert processes_of(fleet) == []


def test_a_service_that_refuses_to_start_fails_the_start_with_its_sentence(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    fleet = new_fleet(arguments=[*dummies, "--service", "d=refusing"])
    with pytest.raises(BECError, match="d does not start: the dummy has no wish to work") as caught:
        fleet.start()
    assert "\n" not in str(caught.value)
    assert processes_of(fleet) == []
    assert sorted(path.name for path in fleet.state.iterdir()) == ["logs", "redis"]


def test_the_others_are_kept_if_asked_for(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=[*dummies, "--service", "d=refusing", "--keep-going", "--timeout", "4"])
    told: list[Line] = []
    fleet.start(told.append)
    assert any("d did not come up" in line.get("text", "") for line in told)
    states = {row["service"]: row["state"] for row in fleet.status()["services"]}
    assert {states.pop("d"), *states.values()} == {"DOWN", "RUNNING"}


def test_services_can_be_started_as_new_programs(new_fleet: NewFleet, dummies: list[str]) -> None:
    """What the supervisor falls back to when a preloaded module has started a thread."""
    fleet = new_fleet(arguments=[*dummies, "--no-preload"])
    with pytest.raises(BECError):
        # Their role is the name they run under, which as a program is the module's file.
        fleet.arguments += ["--timeout", "3"]
        fleet.start()
    assert processes_of(fleet) == []


def test_one_service_can_be_restarted(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    before = {row["service"]: row["pid"] for row in fleet.status()["services"]}
    run = subprocess.run(
        [sys.executable, "-m", "deploy", "restart", "b", "--config", str(fleet.config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    after = {row["service"]: row["pid"] for row in fleet.status()["services"]}
    assert after["b"] != before["b"]
    assert (after["a"], after["c"]) == (before["a"], before["c"])


def test_data_of_a_newer_redis_is_refused_at_the_start(
    new_fleet: NewFleet, dummies: list[str], tmp_path: Path
) -> None:
    fleet = new_fleet(arguments=dummies).start()
    fleet.stop()
    (fleet.state / "redis" / "written-by").write_text("99.0.0\n")
    with pytest.raises(BECError, match=r"written by Redis 99\.0\.0"):
        fleet.start()
    assert processes_of(fleet) == []


def test_a_redis_that_cannot_be_reached_is_named(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(
        arguments=dummies, settings={"redis": {"host": "127.0.0.1", "port": 1, "give_up_after_s": 0.2}}
    )
    with pytest.raises(BECError, match=r"Redis at 127\.0\.0\.1:1 cannot be reached"):
        fleet.start()
    assert processes_of(fleet) == []


def test_a_service_that_never_comes_back_from_a_call_is_killed_past_its_time_and_its_traceback_kept(
    new_fleet: NewFleet, dummies: list[str]
) -> None:
    fleet = new_fleet(arguments=["--service", "h=hanging"]).start()
    before = fleet.row("h")["pid"]
    row = wait_until(
        lambda: (row := fleet.row("h"))["pid"] not in (None, before) and row, 12.0, "a new process"
    )
    assert "killed by the supervisor: silent for" in row["reason"]
    assert "(busy: a short call)" in row["reason"]
    kept = wait_until(lambda: (path := fleet.logs / "h.err.1").exists() and path.read_text(), 2.0)
    assert "never_come_back" in kept


def test_what_a_killed_service_leaves_behind_is_ended(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=["--service", "l=leaving"]).start()
    before = fleet.row("l")["pid"]
    left = [pid for pid in process.processes_in_session(before) if pid != before]
    assert len(left) == 1
    os.kill(before, signal.SIGKILL)
    comes_back(fleet, "l", before)
    wait_until(lambda: not process.is_alive(left[0]), 7.0, "the child of the dead service is gone")
    second = process.processes_in_session(fleet.row("l")["pid"])
    assert len(second) == 2
    fleet.stop()
    assert not any(process.is_alive(pid) for pid in second)
    assert processes_of(fleet) == []


def test_a_service_that_was_fenced_off_becomes_a_stand_by(new_fleet: NewFleet, dummies: list[str]) -> None:
    fleet = new_fleet(arguments=dummies).start()
    broker = broker_of(fleet)
    before = fleet.row("a")["pid"]
    broker.acquire_lease("a")
    row = wait_until(lambda: (row := fleet.row("a"))["state"] == "DOWN" and row, 3.0, "a has ended")
    assert "another instance has taken over" in row["reason"]
    began = time.monotonic()
    # Nobody holds the role in earnest, so it is taken again.
    wait_until(lambda: fleet.row("a")["pid"] not in (None, before), 8.0)
    assert time.monotonic() - began > 3.0
    wait_until(lambda: fleet.row("a")["state"] == "RUNNING", 4.0)
    broker.close()
