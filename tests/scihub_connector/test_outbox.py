"""The outbox of a target: see the table at the top of the module."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bec_lib.ids import entry_order
from bec_lib.messages import ScanNumberMessage
from scihub_connector import outbox as post
from scihub_connector.outbox import Advance, Alarm, Entry, Open, Outbox, Recovered, Send


def entries(*numbers, stream="s"):
    return [Entry(stream, f"{n}-0", ScanNumberMessage(scan_number=n)) for n in numbers]


def an_open(*numbers):
    return post.received(replace(Outbox("database"), is_open=True), entries(*numbers))


def test_a_closed_outbox_opens_its_target_first():
    box, action = post.next_action(post.received(Outbox("database"), entries(1)), now=0)
    assert action == Open()
    assert post.next_action(box, now=99)[1] is None
    box, effects = post.opened(box)
    assert effects == []
    assert post.next_action(box, now=0)[1] == Send(tuple(entries(1)))


def test_the_place_moves_on_only_after_success():
    box, _ = post.next_action(an_open(1, 2), now=0)
    box = post.received(box, entries(3))
    assert post.next_action(box, now=0)[1] is None, "one at a time"
    box, effects = post.succeeded(box)
    assert effects == [Advance({"s": "2-0"})]
    assert post.next_action(box, now=0)[1] == Send(tuple(entries(3)))


def test_an_outage_is_told_once_and_so_is_its_end():
    box, now, told, pauses = an_open(1), 0.0, [], []
    for _ in range(12):
        box, action = post.next_action(box, now)
        assert action == Send(tuple(entries(1)))
        box, effects = post.unavailable(box, now, "No answer.")
        told += effects
        pauses.append(post.deadline(box) - now)
        assert post.next_action(box, post.deadline(box) - 0.001)[1] is None
        now = post.deadline(box)
    assert [type(effect) for effect in told] == [Alarm]
    assert pauses[:4] == [0.5, 1, 2, 4] and pauses == sorted(pauses) and pauses[-1] == post.MAX_PAUSE_S
    box, _ = post.next_action(box, now)
    box, effects = post.succeeded(box)
    assert effects == [Advance({"s": "1-0"}), Recovered()]
    assert box.problem == "" and post.deadline(box) is None


def test_a_hiccup_is_nobodys_business():
    box, _ = post.next_action(an_open(1), 0)
    box, effects = post.unavailable(box, 0, "No answer.")
    assert effects == []
    box, _ = post.next_action(box, 1)
    assert post.succeeded(box)[1] == [Advance({"s": "1-0"})]


def test_a_refused_entry_is_found_given_up_and_told():
    box = an_open(*range(1, 9))
    taken, alarms = [], []
    for _ in range(50):
        box, action = post.next_action(box, 0)
        if action is None:
            break
        if any(entry.entry_id == "5-0" for entry in action.entries):
            box, effects = post.refused(box, "too long")
        else:
            taken += [entry.entry_id for entry in action.entries]
            box, effects = post.succeeded(box)
        alarms += [effect for effect in effects if isinstance(effect, Alarm)]
    assert taken == [f"{n}-0" for n in (1, 2, 3, 4, 6, 7, 8)]
    assert len(alarms) == 1 and "entry 5-0" in alarms[0].message and "too long" in alarms[0].message


@given(
    st.lists(st.sampled_from(["s", "t"]), max_size=30),
    st.lists(st.sampled_from(["ok", "away", "refuse", "more"]), max_size=200),
    st.sets(st.integers(0, 29)),
)
def test_whatever_happens_everything_is_sent_in_order_or_given_up(streams, happenings, bad):
    waiting = [Entry(s, f"{n}-0", ScanNumberMessage(scan_number=n)) for n, s in enumerate(streams, start=1)]
    everything = list(waiting)
    poison = {entry for n, entry in enumerate(waiting) if n in bad}
    box, now = replace(Outbox("x"), is_open=True), 0.0
    sent, given_up, place = [], [], {}
    for happening in [*happenings, *["more"] * len(waiting), *["ok"] * 400]:
        if happening == "more":
            box, waiting = post.received(box, waiting[:1]), waiting[1:]
            continue
        now = max(now, post.deadline(box) or now)
        box, action = post.next_action(box, now)
        if action is None:
            continue
        if happening == "away":
            box, effects = post.unavailable(box, now, "?")
        elif poison & set(action.entries):
            box, effects = post.refused(box, "?")
            given_up += [action.entries[0]] if any(isinstance(e, Advance) for e in effects) else []
        else:
            sent += action.entries
            box, effects = post.succeeded(box)
        for effect in effects:
            if isinstance(effect, Advance):
                for stream, entry_id in effect.cursors.items():
                    assert entry_order(entry_id) > entry_order(place.get(stream, "0"))
                    place[stream] = entry_id
    assert sent == [entry for entry in everything if entry not in poison]
    assert given_up == [entry for entry in everything if entry in poison]
