"""Which fit runs when: see the table at the top of the module."""

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import schedule as plan
from data_pipeline.schedule import Run


def grown(schedule, key, points, complete=False):
    return plan.grown(schedule, key, points, complete=complete)


def live(slots=1, *keys):
    schedule = plan.empty(0.25, slots)
    for key in keys or ("a",):
        schedule = plan.added(schedule, key, refreshes=True)
    return schedule


def test_nothing_to_do():
    schedule, runs = plan.next_runs(live(), 0)
    assert runs == [] and plan.deadline(schedule) is None


def test_a_live_fit_is_refreshed_at_most_once_an_interval_with_the_latest_points():
    schedule, runs = plan.next_runs(grown(live(), "a", 5), 10.0)
    assert runs == [Run("a", final=False)]
    schedule = grown(grown(schedule, "a", 6), "a", 7)
    assert plan.next_runs(schedule, 10.1)[1] == [], "one at a time"
    schedule = plan.done(schedule, "a")
    assert plan.next_runs(schedule, 10.2)[1] == []
    assert plan.deadline(schedule) == 10.25
    schedule, runs = plan.next_runs(schedule, 10.25)
    assert runs == [Run("a", final=False)] and schedule.jobs["a"].running == 7


def test_without_new_points_nothing_is_fitted_again():
    schedule, _ = plan.next_runs(grown(live(), "a", 5), 0)
    schedule = plan.done(schedule, "a")
    assert plan.next_runs(schedule, 99)[1] == [] and plan.deadline(schedule) is None


def test_too_few_points_are_not_tried_before_the_end():
    schedule = grown(live(), "a", plan.FIRST_REFRESH_POINTS - 1)
    assert plan.next_runs(schedule, 0)[1] == []
    assert plan.next_runs(grown(schedule, "a", 1, complete=True), 0)[1] == [Run("a", final=True)]


def test_the_seal_brings_the_final_fit_at_once():
    schedule, _ = plan.next_runs(grown(live(), "a", 5), 0)
    schedule = plan.done(schedule, "a")
    schedule, runs = plan.next_runs(grown(schedule, "a", 6, complete=True), 0.01)
    assert runs == [Run("a", final=True)]
    assert plan.done(schedule, "a").jobs == {}


def test_a_seal_during_a_fit_is_followed_by_the_final_fit():
    schedule, _ = plan.next_runs(grown(live(), "a", 5), 0)
    schedule = plan.done(grown(schedule, "a", 6, complete=True), "a")
    schedule, runs = plan.next_runs(schedule, 0.01)
    assert runs == [Run("a", final=True)] and schedule.jobs["a"].running == 6


def test_final_fits_go_before_refreshes_and_slots_are_kept():
    schedule = live(2, "a", "b", "c", "d")
    for key in "abc":
        schedule = grown(schedule, key, 5)
    schedule, runs = plan.next_runs(grown(schedule, "d", 5, complete=True), 0)
    assert runs == [Run("d", final=True), Run("a", final=False)]
    assert plan.deadline(schedule) is None, "no slot is free"


def test_the_one_that_waited_longest_goes_first():
    schedule = live(1, "a", "b")
    order = []
    for now in range(6):
        for key in "ab":
            schedule = grown(schedule, key, 10 + now)
        schedule, runs = plan.next_runs(schedule, float(now))
        order += [run.key for run in runs]
        schedule = plan.done(schedule, order[-1])
    assert order == ["a", "b"] * 3


def test_a_fit_wanted_once_is_not_refreshed():
    schedule = plan.added(plan.empty(0.25, 1), "once", refreshes=False)
    assert plan.next_runs(grown(schedule, "once", 100), 0)[1] == []
    assert plan.next_runs(grown(schedule, "once", 100, complete=True), 0)[1] == [Run("once", final=True)]


def test_the_end_of_a_fit_that_was_given_up_changes_nothing():
    schedule = plan.removed(live(), "a")
    assert plan.done(schedule, "a") == schedule


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["grow", "seal", "done", "time"])), max_size=100
    ),
    st.integers(1, 3),
)
def test_every_job_ends_with_exactly_one_final_fit_of_all_its_points(happenings, slots):
    schedule, now, points = live(slots, *"abc"), 0.0, dict.fromkeys("abc", 0)
    running, finals, sealed = {}, [], set()

    def begin(schedule):
        schedule, runs = plan.next_runs(schedule, now)
        for run in runs:
            assert run.key not in running and len(running) < slots
            running[run.key] = run
            if run.final:
                assert schedule.jobs[run.key].running == points[run.key]
                finals.append(run.key)
        return schedule

    everything = [*happenings, *[(key, "seal") for key in "abc"], *[(key, "done") for key in "abc"] * 4]
    for key, happening in everything:
        if happening == "time":
            now += 0.3
        elif happening == "done" and key in running:
            del running[key]
            schedule = plan.done(schedule, key)
        elif happening in ("grow", "seal") and key not in sealed:
            points[key] += happening == "grow"
            sealed |= {key} if happening == "seal" else set()
            schedule = grown(schedule, key, points[key], complete=key in sealed)
        schedule = begin(schedule)
    assert sorted(finals) == ["a", "b", "c"] and schedule.jobs == {}
