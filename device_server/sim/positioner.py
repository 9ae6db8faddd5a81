"""How does a motor behave that exists only in memory? Simulated positioners.

`SimPositioner` moves along a trapezoidal velocity profile. Its position is a function of the time since the start of
the move, so a reading in the middle of a move is as true as one at the end; the shared scheduler wakes it only to
tell subscribers and to finish. A move ends in exactly one of three ways: it arrives, it is stopped, or a newer move
takes its place; whoever removes the `_Move` from the device under its lock completes the status.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Kind, PositionerBase
from ophyd.utils import LimitError, StatusTimeoutError

from device_server.sim.noise import Noise, NoiseSequence, seed_for
from device_server.sim.profile import Trapezoid
from device_server.sim.scheduler import AnyScheduler, Call, shared_scheduler
from device_server.sim.signals import SimSignal, with_unit

MAX_UPDATE_FREQUENCY = 1000.0  # Hz


class MoveStopped(RuntimeError):
    """A move ended before its target because somebody stopped it."""


class MoveReplaced(RuntimeError):
    """A move ended before its target because the same axis was sent elsewhere."""


class MoveStatus(DeviceStatus):
    """Done when the move has ended. Stops the axis when it times out, and only then."""

    def __init__(self, device: SimPositioner, timeout: float | None) -> None:
        super().__init__(device, call_stop_on_failure=False, timeout=timeout)

    def _handle_failure(self) -> None:
        super()._handle_failure()
        if isinstance(self._exception, StatusTimeoutError):
            self.device.abandon(self)


@dataclass(slots=True)
class _Move:
    profile: Trapezoid
    started: float  # scheduler time, s
    status: MoveStatus
    next_update: Call | None = None


class _Readback(SimSignal):
    """Where the axis is, computed anew at each look."""

    def get(self, **kwargs: Any) -> float:
        parent = self.parent
        if parent.moving:
            self._metadata["timestamp"] = time.time()
        return parent.true_position + parent.jitter


class _Setpoint(SimSignal):
    """Where the axis was last sent. Writing it starts a move, whose arrival completes `set` and `put(wait=True)`."""

    def check_value(self, value: Any) -> None:
        self.parent.check_value(value)

    @property
    def limits(self) -> tuple[float, float]:
        return self.parent.limits

    def put(self, value: Any, *, wait: bool = False, timeout: float | None = None, **kwargs: Any) -> None:
        self.parent.move(value, wait=wait, timeout=timeout)

    def set(
        self, value: Any, *, timeout: float | None = None, settle_time: float | None = None
    ) -> DeviceStatus:
        return self.parent.move(value, timeout=timeout)

    def store(self, value: float) -> None:
        """Take note of a new setpoint without moving."""
        super().put(value, force=True)


class _Moving(SimSignal):
    """1 while the axis moves, else 0."""

    def get(self, **kwargs: Any) -> int:
        return int(self.parent.moving)


class _PositiveSignal(SimSignal):
    """A rate, which must be positive."""

    def check_value(self, value: Any) -> None:
        super().check_value(value)
        if not self.coerced(value) > 0:
            raise ValueError(f"{self.name} must be positive, not {with_unit(self.coerced(value), self.egu)}.")


class SimPositioner(Device, PositionerBase):
    """An axis with velocity, acceleration, soft limits and read-back noise.

    delay: false or 0 and every move arrives before `set` returns; true or any other number and it takes the time
        that velocity and acceleration say.
    limits: inclusive soft limits, device units; None or low >= high for none.
    velocity: device units per second, > 0. acceleration: device units per second squared, > 0.
    tolerance: standard deviation of the read-back about the true position, device units. It is drawn once per
        arrival, from a sequence that starts anew at staging (see noise.py), and stays while the axis stands.
    update_frequency: how often subscribers of the read-back are told during a move, Hz, at most 1000.
    init_pos: position at the start. home_pos: where `home()` goes.
    """

    USER_ACCESS: tuple[str, ...] = (
        "egu",
        "position",
        "moving",
        "limits",
        "low_limit",
        "high_limit",
        "home",
        "sim_state",
        "readback",
        "setpoint",
        "motor_is_moving",
        "velocity",
        "acceleration",
    )
    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    readback = Cpt(_Readback, value=0.0, kind=Kind.hinted)
    setpoint = Cpt(_Setpoint, value=0.0, kind=Kind.normal)
    motor_is_moving = Cpt(_Moving, value=0, dtype="int", kind=Kind.normal)
    velocity = Cpt(_PositiveSignal, value=10.0, kind=Kind.config)
    acceleration = Cpt(_PositiveSignal, value=100.0, kind=Kind.config)
    low_limit_travel = Cpt(SimSignal, value=0.0, kind=Kind.config)
    high_limit_travel = Cpt(SimSignal, value=0.0, kind=Kind.config)

    def __init__(
        self,
        name: str,
        *,
        delay: bool | float = True,
        limits: Sequence[float] | None = None,
        velocity: float = 10.0,
        acceleration: float = 100.0,
        tolerance: float = 0.0,
        update_frequency: float = 20.0,
        egu: str = "mm",
        precision: int = 3,
        init_pos: float = 0.0,
        home_pos: float = 0.0,
        seed: int | None = None,
        device_manager: Any = None,
        scheduler: AnyScheduler | None = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        if not update_frequency > 0:
            raise ValueError(f"update_frequency of {name} must be positive, not {update_frequency:g} Hz.")
        if tolerance < 0:
            raise ValueError(f"tolerance of {name} must not be negative, not {tolerance:g} {egu}.")
        self._lock = threading.Lock()  # guards _move and _rest
        self._move: _Move | None = None
        self._rest = float(init_pos)
        self._egu = egu
        self._delay = bool(delay)
        self._home = float(home_pos)
        self._interval = 1.0 / min(float(update_frequency), MAX_UPDATE_FREQUENCY)
        self._scheduler = scheduler if scheduler is not None else shared_scheduler()
        self._noise = NoiseSequence(
            Noise.GAUSSIAN if tolerance > 0 else Noise.NONE, tolerance, seed_for(name, seed)
        )
        self.jitter = 0.0
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )
        self.readback.name = self.name
        for signal in (self.readback, self.setpoint, self.low_limit_travel, self.high_limit_travel):
            signal._egu, signal.precision = egu, precision
        self.velocity._egu, self.acceleration._egu = (f"{egu}/s", f"{egu}/s^2") if egu else ("1/s", "1/s^2")
        self.velocity.put(velocity)
        self.acceleration.put(acceleration)
        if limits is not None:
            self.limits = limits
        self.setpoint.store(self._rest)
        self.readback.put(self._rest, force=True)

    # what an axis tells

    @property
    def egu(self) -> str:
        """The unit of the position."""
        return self._egu

    @property
    def position(self) -> float:
        """The read-back, noise included, in the axis' unit."""
        return self.readback.get()

    @property
    def true_position(self) -> float:
        """Where the axis is without read-back noise."""
        with self._lock:
            return self._true_position_at(self._scheduler.now())

    @property
    def moving(self) -> bool:
        """Whether a move is under way."""
        return self._move is not None

    @property
    def limits(self) -> tuple[float, float]:
        """Inclusive soft limits (low, high) in the axis' unit; low >= high means none."""
        return self.low_limit_travel.get(), self.high_limit_travel.get()

    @limits.setter
    def limits(self, limits: Sequence[float]) -> None:
        low, high = (float(limit) for limit in limits)
        self.low_limit_travel.put(low)
        self.high_limit_travel.put(high)

    def sim_state(self) -> dict[str, Any]:
        """What the simulation knows of this axis: true position, target, noise and rates."""
        return {
            "true_position": self.true_position,
            "target": self.setpoint.get(),
            "jitter": self.jitter,
            "moving": self.moving,
            "velocity": self.velocity.get(),
            "acceleration": self.acceleration.get(),
            "limits": list(self.limits),
            "delay": self._delay,
            "seed": self._noise.seed,
            "egu": self.egu,
        }

    def check_value(self, value: Any) -> None:
        """Raises ValueError if `value` is not a number, LimitError if it is outside the limits."""
        self._checked(value)

    # what an axis does

    def move(
        self,
        position: float,
        *,
        wait: bool = False,
        moved_cb: Callable[..., None] | None = None,
        timeout: float | None = None,
    ) -> MoveStatus:
        """Go to `position`; a move under way ends, with MoveReplaced in its status.

        The status is done on arrival and fails with MoveStopped after `stop()`. After `timeout` seconds, if given,
        it fails and the axis stops. Raises what `check_value` raises, before anything moves.
        """
        target = self._checked(position)
        status = MoveStatus(self, timeout)
        if moved_cb is not None:
            status.add_callback(functools.partial(moved_cb, obj=self))
        # Tell before the move exists: a stop from another thread then has the last word.
        self.setpoint.store(target)
        self._run_subs(sub_type=self.SUB_START, timestamp=time.time())
        if self._delay:
            self.motor_is_moving.put(1, force=True)
        move, replaced = self._begin(target, status)
        if replaced is not None:
            self._end(
                replaced,
                MoveReplaced(
                    f"{self.name} was sent to {with_unit(target, self.egu)} "
                    f"before it reached {with_unit(replaced.profile.target, self.egu)}."
                ),
            )
        if move is None:
            self._settle()
            status.set_finished()
        else:
            self._schedule(move)
        if wait:
            status.wait(timeout)
        return status

    def set(
        self,
        new_position: float,
        *,
        timeout: float | None = None,
        moved_cb: Callable[..., None] | None = None,
        wait: bool = False,
    ) -> MoveStatus:
        """As `move`."""
        return self.move(new_position, wait=wait, moved_cb=moved_cb, timeout=timeout)

    def home(self) -> MoveStatus:
        """Go to the home position."""
        return self.move(self._home)

    def stop(self, *, success: bool = False) -> None:
        """Stop where the axis is, at once; without effect when it stands.

        The status of the move succeeds if `success`, else fails with MoveStopped. As a real motor record does, the
        setpoint becomes the position at which the axis came to rest.
        """
        self._halt(None, success)

    def abandon(self, status: MoveStatus) -> None:
        """Stop if the move of that status is still the one under way."""
        self._halt(status, False)

    def stage(self) -> list[Any]:
        """As ophyd; the read-back noise starts anew."""
        self._noise.restart()
        return super().stage()

    # the life of a move

    def _checked(self, value: Any) -> float:
        try:
            target = math.nan if isinstance(value, (bool, str)) else float(value)
        except (TypeError, ValueError):
            target = math.nan
        if not math.isfinite(target):
            unit = f" in {self.egu}" if self.egu else ""
            raise ValueError(f"{self.name} cannot move to {value!r}: a position is a finite number{unit}.")
        low, high = self.limits
        if low < high and not low <= target <= high:
            raise LimitError(
                f"{self.name} cannot move to {with_unit(target, self.egu)}: its limits are {with_unit(low)} to "
                f"{with_unit(high, self.egu)}. Choose a position within them or change the limits of {self.name}."
            )
        return target

    def _true_position_at(self, now: float) -> float:
        move = self._move
        return self._rest if move is None else move.profile.position(now - move.started)

    def _begin(self, target: float, status: MoveStatus) -> tuple[_Move | None, _Move | None]:
        """(the new move, or None if the axis is there already; the move whose place it took, or None)."""
        with self._lock:
            now = self._scheduler.now()
            start = self._true_position_at(now)
            replaced, self._move, self._rest = self._move, None, target
            if self._delay and start != target:
                profile = Trapezoid(start, target, self.velocity.get(), self.acceleration.get())
                if profile.duration > 0:
                    self._move = _Move(profile, now, status)
            return self._move, replaced

    def _schedule(self, move: _Move) -> None:
        now = self._scheduler.now()
        due = min(now + self._interval, move.started + move.profile.duration)
        move.next_update = self._scheduler.call_at(due, functools.partial(self._update, move))

    def _update(self, move: _Move) -> None:
        """Runs on the scheduler's thread."""
        with self._lock:
            if self._move is not move:
                return
            arrived = self._scheduler.now() - move.started >= move.profile.duration
            if arrived:
                self._move = None
        if arrived:
            self._settle()
            move.status.set_finished()
        else:
            self._tell(self.readback.get())
            self._schedule(move)

    def _halt(self, status: MoveStatus | None, success: bool) -> None:
        with self._lock:
            move = self._move
            if move is None or (status is not None and move.status is not status):
                return
            self._rest = self._true_position_at(self._scheduler.now())
            self._move = None
        self.setpoint.store(self._rest)
        self._settle()
        where, target = with_unit(self._rest, self.egu), with_unit(move.profile.target, self.egu)
        self._end(
            move,
            None if success else MoveStopped(f"{self.name} was stopped at {where} on its way to {target}."),
        )

    def _end(self, move: _Move, failure: Exception | None) -> None:
        if move.next_update is not None:
            move.next_update.cancel()
        if move.status.done:  # it timed out
            return
        if failure is None:
            move.status.set_finished()
        else:
            move.status.set_exception(failure)

    def _settle(self) -> None:
        """The axis has come to rest: draw its read-back and tell it."""
        self.jitter = self._noise.around(0.0)
        value = self._rest + self.jitter
        self._tell(value)
        if self._delay:
            self.motor_is_moving.put(int(self.moving), force=True)
        self._run_subs(sub_type=self.SUB_DONE, timestamp=time.time(), value=value)

    def _tell(self, value: float) -> None:
        timestamp = time.time()
        self.readback.put(value, force=True, timestamp=timestamp)
        self._run_subs(sub_type=self.SUB_READBACK, timestamp=timestamp, value=value)


class SimXYZStage(Device):
    """Three simulated axes in one device: x, y and z, with limits and velocity in common (see `SimPositioner`)."""

    USER_ACCESS: tuple[str, ...] = ("x", "y", "z")

    x = Cpt(SimPositioner)
    y = Cpt(SimPositioner)
    z = Cpt(SimPositioner)

    def __init__(
        self,
        name: str,
        *,
        limits: Sequence[float] | None = None,
        velocity: float = 10.0,
        device_manager: Any = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )
        for axis in (self.x, self.y, self.z):
            axis.velocity.put(velocity)
            if limits is not None:
                axis.limits = limits

    def stop(self, *, success: bool = False) -> None:
        """Stop all three axes."""
        for axis in (self.x, self.y, self.z):
            axis.stop(success=success)
