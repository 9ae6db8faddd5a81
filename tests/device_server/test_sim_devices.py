"""The simulated devices, with time moved on by hand."""

import inspect
import queue
import threading
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from ophyd.utils import LimitError, ReadOnlyError

from device_server import sim
from device_server.sim.detector import ExposureStopped
from device_server.sim.ring import ring_current
from device_server.sim.scheduler import StepScheduler
from device_server.sim.shutter import ShutterStopped

TIMEOUT = 5


@pytest.fixture
def clock():
    return StepScheduler()


@pytest.fixture
def session():
    """A device manager as the device server has it: records with an `obj`."""
    return SimpleNamespace(devices={})


def add(session, device):
    session.devices[device.name] = SimpleNamespace(obj=device)
    return device


def values(device):
    return {name: reading["value"] for name, reading in device.read().items()}


# ------------------------------------------------------------------------------------------------------- positioner


def test_positioner_arrives_when_velocity_and_acceleration_say(clock):
    samx = sim.SimPositioner("samx", velocity=2, acceleration=4, scheduler=clock)
    status = samx.set(10)
    assert values(samx) == {"samx": 0, "samx_setpoint": 10, "samx_motor_is_moving": 1}
    clock.advance(2.75)
    assert samx.position == pytest.approx(5)
    clock.advance(2.74)
    assert not status.done
    clock.advance(0.02)
    assert status.done and status.success
    assert values(samx) == {"samx": 10, "samx_setpoint": 10, "samx_motor_is_moving": 0}
    assert clock.pending == 0


def test_positioner_without_delay_arrives_before_set_returns(clock):
    samx = sim.SimPositioner("samx", delay=0, scheduler=clock)
    assert samx.set(3).success
    assert samx.position == 3
    assert clock.pending == 0


def test_positioner_on_the_real_clock():
    samx = sim.SimPositioner("samx", velocity=100, acceleration=10000, update_frequency=400)
    samx.set(1).wait(TIMEOUT)
    assert samx.position == 1
    samx.move(0, wait=True, timeout=TIMEOUT)
    assert samx.position == 0


def test_moving_to_where_it_is_takes_no_time(clock):
    samx = sim.SimPositioner("samx", init_pos=2, scheduler=clock)
    assert samx.set(2).success


def test_positioner_tells_its_subscribers_at_the_update_frequency(clock):
    samx = sim.SimPositioner("samx", velocity=1, acceleration=1e6, update_frequency=10, scheduler=clock)
    told = queue.SimpleQueue()
    samx.subscribe(lambda value, **kwargs: told.put(value), event_type="readback", run=False)
    samx.set(1)
    clock.advance(2)
    positions = [told.get(timeout=TIMEOUT)]
    while positions[-1] != 1:
        positions.append(told.get(timeout=TIMEOUT))
    assert positions[:10] == pytest.approx(list(np.linspace(0.1, 1, 10)), abs=1e-3)
    assert len(positions) <= 11


def test_stop_ends_a_move_where_it_is_and_fails_its_status(clock):
    samx = sim.SimPositioner("samx", velocity=2, acceleration=1e6, egu="mm", scheduler=clock)
    status = samx.set(10)
    clock.advance(2)
    samx.stop()
    assert status.done and not status.success
    with pytest.raises(sim.MoveStopped, match=r"samx was stopped at 4\.0.* mm on its way to 10\.0 mm"):
        status.wait(TIMEOUT)
    clock.advance(10)
    assert samx.position == samx.setpoint.get() == pytest.approx(4, abs=1e-3)
    assert not samx.moving


def test_stop_with_success_completes_the_status(clock):
    samx = sim.SimPositioner("samx", scheduler=clock)
    status = samx.set(10)
    samx.stop(success=True)
    assert status.success


def test_stop_of_a_standing_axis_does_nothing(clock):
    samx = sim.SimPositioner("samx", init_pos=1, scheduler=clock)
    samx.stop()
    assert samx.position == 1


def test_every_move_ends_however_often_it_is_stopped_and_replaced():
    """Two threads against the real scheduler: whoever ends a move, its status is completed exactly once."""
    samx = sim.SimPositioner("samx", velocity=1e3, acceleration=1e6, update_frequency=1000)
    statuses, done = [], threading.Event()

    def stopping():
        while not done.is_set():
            samx.stop()

    other = threading.Thread(target=stopping)
    other.start()
    for n in range(300):
        statuses.append(samx.set(n % 7))
    done.set()
    other.join(TIMEOUT)
    assert all(
        isinstance(s.exception(TIMEOUT), (type(None), sim.MoveStopped, sim.MoveReplaced)) for s in statuses
    )
    assert not samx.moving and samx.motor_is_moving.get() == 0


def test_a_new_target_replaces_the_move_under_way(clock):
    samx = sim.SimPositioner("samx", velocity=1, acceleration=1e6, scheduler=clock)
    first = samx.set(10)
    clock.advance(3)
    second = samx.set(0)
    with pytest.raises(sim.MoveReplaced, match=r"sent to 0\.0 mm before it reached 10\.0 mm"):
        first.wait(TIMEOUT)
    assert not second.done
    clock.advance(3.1)
    assert second.success and samx.position == 0


def test_a_move_that_takes_too_long_times_out_and_the_axis_stops(clock):
    samx = sim.SimPositioner("samx", velocity=0.001, scheduler=clock)
    status = samx.move(10, timeout=0.01)
    assert status.exception(timeout=TIMEOUT) is not None
    clock.advance(1e6)
    assert not samx.moving and samx.position < 10


@pytest.mark.parametrize("target", [10.5, -10.0001])
def test_a_target_outside_the_limits_is_refused_before_anything_moves(clock, target):
    samx = sim.SimPositioner("samx", limits=[-10, 10], egu="mm", scheduler=clock)
    with pytest.raises(LimitError, match=r"samx cannot move to .* mm: its limits are -10\.0 to 10\.0 mm"):
        samx.set(target)
    assert not samx.moving and samx.setpoint.get() == 0
    samx.check_value(10)


@pytest.mark.parametrize("target", ["far", None, float("nan"), float("inf"), True])
def test_a_target_that_is_not_a_number_is_refused(clock, target):
    with pytest.raises(ValueError, match="a position is a finite number in mm"):
        sim.SimPositioner("samx", scheduler=clock).set(target)


def test_limits_can_be_changed_and_equal_limits_mean_none(clock):
    samx = sim.SimPositioner("samx", delay=False, scheduler=clock)
    samx.check_value(1e6)
    samx.limits = [0, 1]
    assert (samx.limits, samx.low_limit, samx.high_limit) == ((0, 1), 0, 1)
    with pytest.raises(LimitError):
        samx.check_value(2)


def test_writing_the_setpoint_moves_and_completes_on_arrival(clock):
    samx = sim.SimPositioner("samx", scheduler=clock)
    status = samx.setpoint.set(5)
    assert samx.moving and not status.done
    clock.advance(5)
    assert status.success
    samx.setpoint.put(1)
    assert samx.moving


def test_velocity_must_be_positive_and_counts_from_the_next_move(clock):
    samx = sim.SimPositioner("samx", acceleration=1e6, scheduler=clock)
    samx.velocity.set(1).wait(TIMEOUT)
    with pytest.raises(ValueError, match="samx_velocity must be positive"):
        samx.velocity.set(0)
    status = samx.set(2)
    clock.advance(1.9)
    assert not status.done
    clock.advance(0.2)
    assert status.done


def test_readback_noise_stays_while_the_axis_stands_and_repeats_after_staging(clock):
    samx = sim.SimPositioner("samx", delay=0, tolerance=0.01, scheduler=clock)

    def scan():
        samx.stage()
        seen = []
        for target in range(5):
            samx.set(target)
            assert samx.position == samx.position
            seen.append(samx.position)
        samx.unstage()
        return seen

    first = scan()
    assert scan() == first
    assert first != list(range(5)) and first == pytest.approx(range(5), abs=0.06)
    assert samx.true_position == 4


def test_home_and_state(clock):
    samx = sim.SimPositioner("samx", delay=0, home_pos=1.5, scheduler=clock)
    assert samx.home().success
    assert samx.sim_state()["true_position"] == 1.5


def test_a_positioner_may_be_part_of_a_device():
    stage = sim.SimXYZStage("stage", limits=[-1, 1], velocity=100)
    stage.x.set(0.5).wait(TIMEOUT)
    assert values(stage)["stage_x"] == 0.5
    with pytest.raises(LimitError, match="stage_y cannot move"):
        stage.y.set(2)


def test_positioner_describes_units_and_types(clock):
    samrot = sim.SimPositioner("samrot", egu="deg", precision=2, limits=[-1, 1], scheduler=clock)
    described = samrot.describe() | samrot.describe_configuration()
    assert {name: (d.get("units"), d["dtype"]) for name, d in described.items()} == {
        "samrot": ("deg", "number"),
        "samrot_setpoint": ("deg", "number"),
        "samrot_motor_is_moving": (None, "integer"),
        "samrot_velocity": ("deg/s", "number"),
        "samrot_acceleration": ("deg/s^2", "number"),
        "samrot_low_limit_travel": ("deg", "number"),
        "samrot_high_limit_travel": ("deg", "number"),
    }
    assert described["samrot"]["precision"] == 2 and described["samrot"]["shape"] == []
    assert described["samrot_setpoint"]["upper_ctrl_limit"] == 1
    assert list(samrot.read()) == list(samrot.describe())


# ---------------------------------------------------------------------------------------------------------- monitor


def scan_line(session, detector, motor, positions):
    detector.stage()
    seen = []
    for position in positions:
        motor.set(position)
        seen.append(values(detector)[detector.name])
    detector.unstage()
    return np.array(seen)


def test_monitor_follows_its_motor_and_a_repeated_scan_gives_the_same_data(session, clock):
    samx = add(session, sim.SimPositioner("samx", delay=0, scheduler=clock))
    bpm = sim.SimMonitor(
        "bpm4i", model="gaussian", motors="samx", amplitude=1e4, center=0.37, sigma=0.4, noise="poisson",
        device_manager=session,
    )  # fmt: skip
    positions = np.linspace(-1, 1.6, 31)
    counts = scan_line(session, bpm, samx, positions)
    bpm.read()  # a look in between does not matter
    assert (scan_line(session, bpm, samx, positions) == counts).all()
    # The logarithm of a Gaussian is a parabola: its top is the center.
    curve = np.polyfit(positions, np.log(counts), 2, w=np.sqrt(counts))
    assert -curve[1] / (2 * curve[0]) == pytest.approx(0.37, abs=0.01)
    assert (-0.5 / curve[0]) ** 0.5 == pytest.approx(0.4, abs=0.01)


def test_monitor_follows_true_positions_not_readback_noise(session):
    samx = add(session, sim.SimPositioner("samx", delay=0, tolerance=5.0))
    det = sim.SimMonitor(
        "det", model="polynomial", motors="samx", coefficients=[0, 1], device_manager=session
    )
    samx.set(2)
    assert samx.position != 2
    assert values(det)["det"] == 2


def test_monitor_of_two_motors(session):
    for name in ("samx", "samy"):
        add(session, sim.SimPositioner(name, delay=0))
    det = sim.SimMonitor(
        "det", model="gaussian2d", motors=["samx", "samy"], center=[1, 2], amplitude=7, device_manager=session
    )
    session.devices["samx"].obj.set(1)
    session.devices["samy"].obj.set(2)
    assert values(det) == {"det": 7}


def test_monitor_finds_devices_that_are_stored_without_a_record_or_are_parts(session):
    session.devices["stage"] = sim.SimXYZStage("stage")
    det = sim.SimMonitor("det", model="gaussian", motors="stage.x", amplitude=7, device_manager=session)
    assert values(det) == {"det": 7}


def test_monitor_whose_motor_is_missing_says_so(session):
    det = sim.SimMonitor("det", model="gaussian", motors="samx", device_manager=session)
    with pytest.raises(sim.DeviceNotFound, match="det follows samx, which is not in the session"):
        det.read()


def test_monitor_needs_as_many_motors_as_its_model():
    with pytest.raises(ValueError, match="the gaussian2d model follows 2 motors, but motors names samx"):
        sim.SimMonitor("det", model="gaussian2d", motors="samx")


def test_monitor_in_proportion_to_the_ring_current(session):
    add(session, sim.SetableSignal("curr", value=200.0))
    det = sim.SimMonitor(
        "det", amplitude=10, ring_current="curr", nominal_current=400, device_manager=session
    )
    assert values(det)["det"] == 5


def test_triggered_monitor_exposes_and_keeps_what_it_acquired(session, clock):
    samx = add(session, sim.SimPositioner("samx", delay=0))
    info = SimpleNamespace(msg=SimpleNamespace(scan_parameters={"exp_time": 0.5}))
    det = sim.SimMonitor(
        "det", model="polynomial", motors="samx", coefficients=[100, 1], device_manager=session, scan_info=info,
        scheduler=clock,
    )  # fmt: skip
    det.stage()
    status = det.trigger()
    clock.advance(0.49)
    assert not status.done
    clock.advance(0.02)
    assert status.success
    samx.set(50)
    assert values(det)["det"] == 50  # 0.5 s of 100 per second, where the motor was then
    det.unstage()
    assert values(det)["det"] == 150


def test_trigger_without_exposure_time_takes_no_time(clock):
    det = sim.SimMonitor("det", amplitude=3, scheduler=clock)
    assert det.trigger().success
    assert values(det)["det"] == 3


def test_stop_and_unstage_end_an_exposure(clock):
    det = sim.SimMonitor("det", exp_time=1, scheduler=clock)
    for end in (det.stop, det.unstage, det.trigger):
        status = det.trigger()
        end()
        with pytest.raises(ExposureStopped):
            status.wait(TIMEOUT)
    det.stop(success=True)
    clock.advance(2)
    assert clock.pending == 0


def test_an_exposure_that_cannot_be_evaluated_fails_its_status(session, clock):
    det = sim.SimMonitor(
        "det", model="gaussian", motors="samx", exp_time=1, device_manager=session, scheduler=clock
    )
    status = det.trigger()
    clock.advance(1)
    assert isinstance(status.exception(TIMEOUT), sim.DeviceNotFound)


def test_model_can_be_changed_but_not_to_nonsense(session):
    det = sim.SimMonitor("det", amplitude=3)
    det.set_model(amplitude=4)
    with pytest.raises(ValueError):
        det.set_model(model="gaussian")
    assert values(det)["det"] == 4 and det.model["model"] == "constant"


def test_a_measured_value_cannot_be_written():
    det = sim.SimMonitor("det")
    with pytest.raises(ValueError, match="det is measured and cannot be set"):
        det.readback.set(1)


def test_monitor_takes_the_configuration_that_bec_writes(session):
    add(session, sim.SimPositioner("samx", delay=0))
    params = {"amplitude": 500, "center": 0, "sigma": 1, "ref_motor": "samx", "noise": "none"}
    det = sim.SynAxisMonitor(
        "det", sim_init={"model": "GaussianModel", "params": params}, device_manager=session
    )
    assert values(det)["det"] == pytest.approx(500 / np.sqrt(2 * np.pi))


# ------------------------------------------------------------------------------------------------ camera and waveform


def test_camera_spot_follows_its_motors_and_statistics_are_those_of_the_image(session):
    samx, samy = (add(session, sim.SimPositioner(name, delay=0)) for name in ("samx", "samy"))
    eiger = sim.SimCamera(
        "eiger", shape=[60, 80], motors=["samx", "samy"], travel=10, spot_size=3, background=0, hot_pixels=0,
        device_manager=session,
    )  # fmt: skip
    samx.set(1)
    samy.set(-0.5)
    reading = values(eiger)
    assert set(reading) == {"eiger_total", "eiger_max", "eiger_centroid_x", "eiger_centroid_y"}
    image = eiger.image.get()
    assert (image.shape, image.dtype) == ((60, 80), np.uint16)
    assert (reading["eiger_total"], reading["eiger_max"]) == (image.sum(), image.max())
    assert reading["eiger_centroid_x"] == pytest.approx(39.5 + 10, abs=0.3)
    assert reading["eiger_centroid_y"] == pytest.approx(29.5 - 5, abs=0.3)
    samx.set(3)
    assert values(eiger)["eiger_total"] < 0.1 * reading["eiger_total"]


def test_camera_repeats_its_frames_after_staging_but_not_within_a_scan():
    eiger = sim.SimCamera("eiger", shape=[32, 32])

    def scan():
        eiger.stage()
        frames = []
        for _ in range(3):
            eiger.trigger().wait(TIMEOUT)
            frames.append(eiger.image.get().copy())
        eiger.unstage()
        return frames

    first, second = scan(), scan()
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != first[1]).any()


def test_camera_noise_is_that_of_counting():
    eiger = sim.SimCamera("eiger", shape=[200, 200], amplitude=0, background=400, hot_pixels=0)
    image = eiger.snapshot().astype(float)
    assert (image.mean(), image.std()) == pytest.approx((400, 20), rel=0.03)


def test_camera_hot_pixels_stay_where_they_are():
    eiger = sim.SimCamera("eiger", shape=[50, 50], hot_pixels=3, hot_value=9999, amplitude=0)
    hot = eiger.snapshot() == 9999
    assert 1 <= hot.sum() <= 3
    assert ((eiger.snapshot() == 9999) == hot).all()


def test_camera_scales_with_its_exposure(clock):
    eiger = sim.SimCamera(
        "eiger",
        shape=[20, 20],
        background=100,
        amplitude=0,
        noise="none",
        hot_pixels=0,
        exp_time=0.1,
        scheduler=clock,
    )
    eiger.stage()
    status = eiger.trigger()
    clock.advance(0.11)
    assert status.success
    assert values(eiger)["eiger_max"] == 10


def test_camera_reads_its_image_only_when_told_to():
    eiger = sim.SimCamera("eiger", shape=[20, 30], read_image=True)
    assert values(eiger)["eiger_image"].shape == (20, 30)
    described = eiger.describe()["eiger_image"]
    assert (described["dtype"], described["shape"], described["dtype_numpy"]) == ("array", [20, 30], "<u2")
    assert "eiger_image" not in sim.SimCamera("eiger").describe()


def test_camera_with_a_bad_shape_is_refused():
    with pytest.raises(ValueError, match="shape of eiger"):
        sim.SimCamera("eiger", shape=[0, 10])


def test_waveform_has_its_length_and_repeats():
    wave = sim.SimWaveform("wave", samples=100, egu="V")
    described = wave.describe()["wave"]
    assert (described["shape"], described["dtype_numpy"], described["units"]) == ([100], "<f8", "V")
    runs = []
    for _ in range(2):
        wave.stage()
        runs.append(values(wave)["wave"])
        wave.unstage()
    assert runs[0].shape == (100,) and (runs[0] == runs[1]).all()


# ---------------------------------------------------------------------------------------------------- small devices


def test_ring_current_decays_and_is_topped_up():
    series = [ring_current(t, current=400, lifetime=36000, top_up=2) for t in range(400)]
    assert max(series) == 400 and min(series) == pytest.approx(398, abs=0.02)
    drops = [b < a for a, b in pairwise(series)]
    assert drops.count(False) == 2  # the period is 180 s


def test_ring_current_depends_on_seed_and_clock_alone():
    def at(seed, now):
        return sim.RingCurrent("curr", seed=seed, clock=lambda: now).get()

    assert at(1, 1000.0) == at(1, 1000.0)
    assert at(1, 1000.0) != at(1, 1000.2) and at(1, 1000.0) != at(2, 1000.0)
    curr = sim.RingCurrent("curr")
    assert curr.describe()["curr"]["units"] == "mA"
    with pytest.raises(ReadOnlyError, match="curr is read-only"):
        curr.set(1)


def test_setable_signal_keeps_to_its_limits_and_type():
    temperature = sim.SetableSignal("temperature", value=295, egu="K", limits=[80, 400])
    assert temperature.set(100).success and temperature.get() == 100.0
    with pytest.raises(
        LimitError, match=r"temperature cannot be set to 500\.0 K: its limits are 80\.0 to 400\.0 K"
    ):
        temperature.set(500)
    with pytest.raises(ValueError, match="temperature cannot be set to 'warm': it takes a number"):
        temperature.set("warm")
    assert temperature.describe()["temperature"]["units"] == "K"


def test_signals_of_other_types():
    text = sim.SetableSignal("sample", value="Au")
    text.set("Pt")
    assert text.get() == "Pt" and text.describe()["sample"]["dtype"] == "string"
    assert sim.SetableSignal("n", value=1, dtype="int").describe()["n"]["dtype"] == "integer"
    assert sim.ReadOnlySignal("a", value=[1.0, 2.0]).describe()["a"]["shape"] == [2]


def test_shutter_opens_after_its_travel_time(clock):
    shutter = sim.SimShutter("shutter", travel_time=0.1, scheduler=clock)
    status = shutter.set("open")
    assert values(shutter) == {"shutter": 0} and not status.done
    clock.advance(0.11)
    assert status.success and shutter.is_open
    assert shutter.set(1).success
    assert shutter.describe()["shutter"]["enum_strs"] == ["closed", "open"]


def test_shutter_refuses_other_states_and_can_be_stopped(clock):
    shutter = sim.SimShutter("shutter", scheduler=clock)
    for state in ("ajar", 2):
        with pytest.raises((ValueError, LimitError), match="one of closed, open"):
            shutter.set(state)
    status = shutter.open()
    shutter.stop()
    with pytest.raises(ShutterStopped):
        status.wait(TIMEOUT)
    assert not shutter.is_open


# ---------------------------------------------------------------------------------------------------------- broken


def test_device_that_cannot_be_built():
    with pytest.raises(sim.SimulatedFault, match="bad cannot be built"):
        sim.RaisesInConstructor("bad")


def test_device_that_never_connects():
    device = sim.NeverConnects("bad")
    assert not device.connected
    with pytest.raises(TimeoutError, match=r"bad did not connect within 0\.01 s"):
        device.wait_for_connection(timeout=0.01)


def test_positioner_that_fails_after_some_good_moves():
    refusing = sim.FailingPositioner("m", fail="set", after=1, delay=0)
    assert refusing.set(1).success
    with pytest.raises(sim.SimulatedFault, match="m refused to move"):
        refusing.set(2)
    losing = sim.FailingPositioner("m", fail="status", delay=0)
    assert isinstance(losing.set(1).exception(TIMEOUT), sim.SimulatedFault)
    assert not sim.FailingPositioner("m", fail="silent", delay=0).set(1).done


def test_stop_that_blocks_until_it_is_released(clock):
    device = sim.StuckStopPositioner("m", stop_time=60, scheduler=clock)
    status = device.set(10)
    device.release()
    device.stop()
    assert isinstance(status.exception(TIMEOUT), sim.MoveStopped)


def test_detector_that_fails_now_and_then():
    det = sim.FlakyMonitor("det", every=3)
    det.read(), det.read()
    with pytest.raises(sim.SimulatedFault, match="det could not be read"):
        det.read()
    det.read()


def test_devices_that_fail_to_describe_or_stage():
    with pytest.raises(sim.SimulatedFault):
        sim.FailingDescribe("m").describe()
    with pytest.raises(sim.SimulatedFault):
        sim.FailingStage("det").stage()


# --------------------------------------------------------------------------------------------------- for all classes


def test_zero_motor_and_constant():
    motor = sim.ZeroMotor("m1")
    assert motor.set(3).success and values(motor) == {"m1": 3, "m1_setpoint": 3}
    assert motor.describe()["m1"]["units"] == "mm"
    assert values(sim.ConstSignal("d1", value=2)) == {"d1": 2.0}


@pytest.mark.parametrize("name", sorted(sim.CLASSES))
def test_every_class_says_what_it_takes(name):
    """The device server injects by signature, and sets what is not in it as an attribute."""
    parameters = inspect.signature(getattr(sim, name)).parameters
    assert "device_manager" in parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert next(iter(parameters)) == "name"


@pytest.mark.parametrize("name", sorted(set(sim.CLASSES) - {"RaisesInConstructor"}))
def test_everything_open_to_users_exists(name):
    device = sim.CLASSES[name]("dev")
    for attribute in getattr(device, "USER_ACCESS", ()):
        assert hasattr(type(device), attribute) and type(device).__dict__.get(attribute, True) is not None


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="speed"):
        sim.SimPositioner("samx", speed=3)
    with pytest.raises(TypeError, match="speed"):
        sim.SimMonitor("det", speed=3)
