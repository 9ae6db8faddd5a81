"""Which fit runs next, and when.

A fold over what happens to jobs: wanted, new data, ended data, fit begun, fit done. Time is an argument, fits
are somebody else's.

| A job                        | runs when                                                       |
|------------------------------|-----------------------------------------------------------------|
| once, on given arrays        | at once, in order of arrival                                    |
| once, on a scan's points     | when the points that were there when it was asked have been read|
| continuous, points arrived   | `interval_s` after its last start, with all data there is then  |
| continuous, scan sealed      | at once, if the last fit did not have all points: the final one |

There is never more than one fit of a job in flight and never a queue of old data: the latest data win. Final
fits and fits asked for once go before refreshes; among equals the one that waited longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Fits with fewer points are not tried while points still arrive.
FIRST_REFRESH_POINTS = 4


@dataclass(frozen=True)
class Job:
    """What the schedule knows of a job.

    order: of arrival. points: how many there are. fitted: how many the last finished fit had, -1 for none.
    running: how many the fit in flight has, None for none. complete: no more points will come (or are wanted).
    started: when the last fit began, monotonic seconds.
    """

    key: str
    order: int
    points: int = 0
    fitted: int = -1
    running: int | None = None
    running_final: bool = False
    complete: bool = False
    started: float | None = None
    refreshes: bool = True


@dataclass(frozen=True)
class Run:
    """Begin this fit. final: it is the last one of the job."""

    key: str
    final: bool


@dataclass(frozen=True)
class Schedule:
    """All jobs. interval_s: shortest time between the starts of two fits of one job; slots: how many fits may
    run at the same time.
    """

    interval_s: float
    slots: int
    jobs: dict[str, Job]
    arrivals: int = 0

    @property
    def running(self) -> int:
        return sum(job.running is not None for job in self.jobs.values())


def empty(interval_s: float, slots: int) -> Schedule:
    return Schedule(interval_s, slots, {})


def added(schedule: Schedule, key: str, *, refreshes: bool) -> Schedule:
    """A job is wanted. refreshes False: only its final fit runs."""
    job = Job(key, schedule.arrivals, refreshes=refreshes)
    return replace(schedule, jobs=schedule.jobs | {key: job}, arrivals=schedule.arrivals + 1)


def grown(schedule: Schedule, key: str, points: int, *, complete: bool) -> Schedule:
    """There are now so many points for the job. complete: these are all."""
    job = schedule.jobs[key]
    return _with(schedule, replace(job, points=points, complete=job.complete or complete))


def removed(schedule: Schedule, key: str) -> Schedule:
    return replace(schedule, jobs={name: job for name, job in schedule.jobs.items() if name != key})


def done(schedule: Schedule, key: str) -> Schedule:
    """The job's fit in flight has ended, well or not. After its final fit the job is gone."""
    job = schedule.jobs.get(key)
    if job is None or job.running is None:
        return schedule
    if job.running_final:
        return removed(schedule, key)
    return _with(schedule, replace(job, fitted=job.running, running=None))


def next_runs(schedule: Schedule, now: float) -> tuple[Schedule, list[Run]]:
    """The fits to begin now, at most as many as slots are free."""
    free = schedule.slots - schedule.running
    due = sorted(
        (job for job in schedule.jobs.values() if _due(schedule, job, now)),
        key=lambda job: (not job.complete, _waiting_since(job), job.order),
    )
    runs = []
    for job in due[: max(free, 0)]:
        begun = replace(job, running=job.points, running_final=job.complete, started=now)
        schedule = _with(schedule, begun)
        runs.append(Run(job.key, job.complete))
    return schedule, runs


def deadline(schedule: Schedule) -> float | None:
    """When `next_runs` is wanted next if nothing happens; None if only an event can change anything."""
    if schedule.running >= schedule.slots:
        return None
    times = [
        job.started + schedule.interval_s
        for job in schedule.jobs.values()
        if job.started is not None and job.running is None and _has_news(job)
    ]
    return min(times, default=None)


def _waiting_since(job: Job) -> float:
    """For the order among equals: final fits by arrival, refreshes by their last start."""
    if job.complete:
        return job.order
    return float("-inf") if job.started is None else job.started


def _has_news(job: Job) -> bool:
    return job.refreshes and job.points > job.fitted and job.points >= FIRST_REFRESH_POINTS


def _due(schedule: Schedule, job: Job, now: float) -> bool:
    if job.running is not None:
        return False
    if job.complete:
        return True
    return _has_news(job) and (job.started is None or now >= job.started + schedule.interval_s)


def _with(schedule: Schedule, job: Job) -> Schedule:
    return replace(schedule, jobs=schedule.jobs | {job.key: job})
