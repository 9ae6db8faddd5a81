"""The scan server: requests in; queues, scans and answers out. Wiring only.

Main thread: inbox -> guard, assembler, reducer -> one batch a turn with snapshot, event, answers, state and cursors.
What the workers are told, they are told after that batch is written. Workers run the scans (worker.py).
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from bec_lib.broker import Delivery, Malformed
from bec_lib.codec import describe_validation
from bec_lib.devices import InterruptPolicy
from bec_lib.endpoints import DAY, Endpoint, MessageEndpoints
from bec_lib.errors import BECError, MessageError, ParameterError, ReasonCode
from bec_lib.file_paths import file_target
from bec_lib.foreign import CLEANING_UP, WORKING_OUT, ForeignCall
from bec_lib.messages import (
    BeamlineStateRequestMessage,
    ClientHelloMessage,
    ControlKind,
    DeviceConfigMessage,
    DeviceControlMessage,
    DeviceInstructionResponse,
    DeviceMessage,
    ErrorInfo,
    InterlockRequestMessage,
    InterlockTripMessage,
    ItemState,
    PluginReloadMessage,
    QueueAction,
    QueueLogMessage,
    QueueState,
    QueueStateMessage,
    RequestDoneMessage,
    RequestResponseMessage,
    ScanInfo,
    ScanJournalMessage,
    ScanNumberMessage,
    ScanQueueMessage,
    ScanQueueModificationMessage,
    ScanState,
    ScanStatusMessage,
    Severity,
)
from bec_lib.scans import Scan, Steps, Wait
from bec_lib.scans.signature import BoundCall
from bec_lib.service import Event, Service, ThreadedInbox
from bec_lib.service.foreign_code import Slot
from scan_server import blame, queue_log
from scan_server import queue as q
from scan_server import session as s
from scan_server.answers import Answers
from scan_server.assembler import Assembled, assemble, devices_needed, plan_on_record
from scan_server.catalogue import Catalogue, load_catalogue
from scan_server.conditions import Conditions
from scan_server.dry_run import plan_of
from scan_server.facts import Facts
from scan_server.guard import Rejected, check, is_name
from scan_server.learning import Learning
from scan_server.plugin_code import RELOAD_S, PluginCode
from scan_server.reconfiguration import Reconfiguration
from scan_server.reload import Reloaded, load_states, prints_of, reload_plugins
from scan_server.restore import (
    TAKEN_UP,
    Traces,
    answers_of,
    count_committed,
    highest_number_in_files,
    highest_number_in_redis,
    patiently,
    traces_of,
)
from scan_server.run import Order, Resumed
from scan_server.turn import Turn
from scan_server.worker import (
    Break,
    Command,
    Held,
    Run,
    RunAsks,
    RunEnded,
    Worker,
    WorkerBroke,
    WorkerNote,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

# A queue that is not `primary` vanishes after it has been empty for so long.
IDLE_S = 60.0
# A worker that was told to stop and has been in a scan's code for so long is replaced.
STUCK_S = 3.0
# A scan that is taken up so often within so long without a point in between is paused: its code may be the cause.
TAKE_UPS = 3
TAKE_UPS_S = 60.0
# A turn takes at most so many events, and ends after so long, so that nobody waits for a client that sends thousands.
TURN_EVENTS = 64
TURN_S = 0.1
# Of so many items that have ended it is known what they were.
KEEP_ENDED = 1000
# Run epochs grow within a life of the process, and jump by this with each new one.
_EPOCHS_PER_LIFE = 1_000_000


@dataclass
class Reload:
    """Plugins are being imported again, in a thread, for this request. done: what came of it."""

    request: PluginReloadMessage
    due: float
    done: Reloaded | str = ""


class ScanServer:
    """The app. Everything here belongs to the main thread."""

    def __init__(self, service: Service, catalogue: Catalogue | None = None):
        self._service = service
        self._broker = service.broker
        self._inbox = cast(ThreadedInbox, service.inbox)
        self._servers = list(service.config.device_servers)
        self._code = PluginCode(service)
        self._blame = blame.Blame()
        without = blame.not_to_import(self._code.lives_before)
        self._catalogue = catalogue or load_catalogue(around=self._code.importing, without=without)
        self._state_plugins = load_states(around=self._code.importing, without=without)
        self._prints = prints_of(self._catalogue, self._state_plugins.plugins)
        self._reload: Reload | None = None
        self._state = q.State()
        self._revision = 0
        # Events that are still to be handled.
        self._waiting: deque[Event] = deque()
        self._ended: OrderedDict[str, str] = OrderedDict()
        # Events of this turn that go into the log, and how many are in it.
        self._happened: list[q.Event] = []
        self._logged = 0
        self._facts = Facts(service)
        self._conditions = Conditions(service, lambda: self._facts.registry, self._state_plugins)
        self._learning = Learning(self._broker, service.clock)
        self._assembled: dict[str, Assembled] = {}
        self._workers: dict[str, Worker] = {}
        self._empty_since: dict[str, float] = {}
        self._answers = Answers()
        self._users: set[str] = set()
        self._cursors: dict[str, str] = {}
        self._epochs = itertools.count(1)
        self._reconfiguration = Reconfiguration(
            service, self._inbox, lambda: next(self._epochs), self._end_change
        )
        self._told_to_stop: dict[str, tuple[float, q.Tell]] = {}

    # The frame calls these

    def start(self) -> None:
        """Take up what an earlier life has left, publish the catalogue, and follow the clients."""
        self._cursors = self._service.cursors()
        self._code.look_back()
        self._facts.load()
        self._learning.load()
        self._start_epochs()
        turn = self._new_turn()
        for plugin, reason in self._catalogue.failed.items():
            self._service.alarm(Severity.WARNING, f"The scan plugin {plugin} cannot be used: {reason}")
        turn.batch.put(MessageEndpoints.available_scans, self._catalogue.message())
        before = self._state
        self._conditions.start()
        self._restore(turn)
        self._commit(turn, before, always=True)
        self._code.forget_lives_before()
        hellos = self._broker.entries(MessageEndpoints.client_hello)
        for item in hellos:
            if isinstance(item, Delivery):
                self._meet(item.message.user)
        for key in self._cursors:
            parts = key.split("/")
            if parts[0] == "personal" and parts[-1] == "queue_request":
                self._meet(parts[1])
        self._inbox.follow(MessageEndpoints.client_hello, hellos[-1].entry_id if hellos else "0")
        self._inbox.follow(MessageEndpoints.device_stop, self._last_stop())

    def handle(self, events: list[Event]) -> None:
        """One turn. What does not fit into it stays for the next, which comes at once."""
        if self._waiting or len(events) > TURN_EVENTS:
            if events:
                self._waiting = deque(_fairly([*self._waiting, *events]))
            events = [self._waiting.popleft() for _ in range(min(TURN_EVENTS, len(self._waiting)))]
        turn = self._new_turn()
        before = self._state
        self._look_up_facts(events, turn)
        ends = self._service.clock.monotonic() + TURN_S
        for number, event in enumerate(events, 1):
            self._take(event, turn)
            if number < len(events) and self._service.clock.monotonic() >= ends:
                self._waiting.extendleft(reversed(events[number:]))
                break
        self._commit(turn, before)

    def deadline(self) -> float | None:
        due = [since + IDLE_S for since in self._empty_since.values()]
        answered = self._reconfiguration.deadline
        if answered is not None:
            due.append(answered)
        if self._reload is not None:
            due.append(self._reload.due)
        due += [when for when, _ in self._told_to_stop.values()]
        settled = self._conditions.deadline()
        if settled is not None:
            due.append(settled)
        if self._waiting:
            due.append(0.0)
        return min(due, default=None)

    def on_deadline(self) -> None:
        if self._waiting:
            self.handle([])
        turn = self._new_turn()
        before = self._state
        now = self._service.clock.monotonic()
        for name in [name for name, since in self._empty_since.items() if now >= since + IDLE_S]:
            del self._empty_since[name]
            self._apply(q.Expired(name), turn)
        self._reconfiguration.look(now, turn)
        if self._reload is not None and now >= self._reload.due:
            self._end_reload(self._reload, turn)
        self._conditions.on_deadline()
        for name, (when, tell) in list(self._told_to_stop.items()):
            if now >= when:
                del self._told_to_stop[name]
                self._replace_if_stuck(name, tell, now, turn)
        self._commit(turn, before)

    def stop(self) -> None:
        self._conditions.stop()
        for worker in self._workers.values():
            worker.stop()
        self._code.close()

    # One turn

    def _new_turn(self) -> Turn:
        return Turn(self._service.batch())

    def _commit(self, turn: Turn, before: q.State, *, always: bool = False) -> None:
        self._hold(turn)
        self._conditions.write(turn.batch)
        if self._state is not before or always or turn.is_notable:
            self._revision += 1
            status = q.snapshot(self._state, self._revision)
            turn.batch.put(MessageEndpoints.scan_queue_status, status)
            turn.batch.append(MessageEndpoints.queue_events, status)
            self._write_down(turn, whole=always)
            if self._state.last_number != before.last_number:
                turn.batch.put(
                    MessageEndpoints.scan_number, ScanNumberMessage(scan_number=self._state.last_number)
                )
            self._note_empty_queues()
        for endpoint, entry_id in turn.cursors.items():
            turn.batch.cursor("scan_server", endpoint, entry_id)
        turn.batch.commit()
        for call in turn.afterwards:
            call()

    def _write_down(self, turn: Turn, *, whole: bool) -> None:
        """The state, by what happened in this turn; now and then as a whole, instead of the log so far."""
        events, self._happened = self._happened, []
        self._logged += len(events)
        if whole or self._logged >= max(queue_log.AT_LEAST, self._state.num_items):
            self._logged = 0
            state = {**q.to_plain(self._state), "revision": self._revision, **self._rest()}
            turn.batch.put(MessageEndpoints.queue_state, QueueStateMessage(state=state))
            turn.batch.delete(MessageEndpoints.queue_log)
        elif events or turn.is_notable:
            turn.batch.append(
                MessageEndpoints.queue_log,
                QueueLogMessage(
                    revision=self._revision,
                    events=[queue_log.event_to_plain(event) for event in events],
                    rest=self._rest(),
                ),
            )

    def _rest(self) -> dict[str, Any]:
        change = self._reconfiguration.change
        rest: dict[str, Any] = {
            "change": None if change is None else [change.request_id, change.client_id, change.user]
        }
        if self._reload is not None:
            rest["reload"] = [self._reload.request.request_id, self._reload.request.client_id]
        blamed = blame.to_plain(self._blame)
        return {**rest, "blame": blamed} if blamed else rest

    def _take(self, event: Event, turn: Turn) -> None:
        match event:
            case Delivery(
                message=ScanQueueMessage()
                | ScanQueueModificationMessage()
                | DeviceConfigMessage()
                | InterlockRequestMessage()
                | BeamlineStateRequestMessage()
                | PluginReloadMessage()
            ):
                turn.cursors[event.endpoint] = event.entry_id
                self._take_request(event, turn)
            case Delivery(message=DeviceMessage()):
                self._conditions.read_back(event)
            case Delivery(message=InterlockTripMessage() as trip):
                turn.cursors[event.endpoint] = event.entry_id
                self._conditions.tripped(trip)
            case Delivery(message=ClientHelloMessage() as hello):
                self._meet(hello.user)
            case Delivery(message=DeviceControlMessage() as control):
                turn.cursors[event.endpoint] = event.entry_id
                if control.kind == "stop" and control.devices is None and control.scan_id is None:
                    self._apply(q.DevicesStopped(event.user), turn)
            case Delivery(message=DeviceInstructionResponse() as reply):
                self._reconfiguration.take(reply, turn)
            case Malformed():
                self._take_malformed(event, turn)
            case RunEnded():
                self._assembled.pop(event.scan_id, None)
                self._forget_code(event.scan_id)
                self._told_to_stop.pop(event.queue, None)
                found = self._state.find(event.scan_id)
                if found is not None:
                    self._note_end(
                        found[1],
                        f"has ended already ({event.state})" if found[1].is_scan else "has ended already",
                    )
                learned = self._learning.ended(event.scan_id, event.state, success=event.success)
                if learned is not None:
                    turn.batch.put(MessageEndpoints.scan_timing, learned)
                self._apply(q.Ended(event.scan_id), turn)
            case Reload():
                if event is self._reload:
                    self._end_reload(event, turn)
            case RunAsks():
                self._service.alarm(Severity.MAJOR, event.message, scan_id=event.scan_id)
                self._apply(q.Asked(event.scan_id, event.message), turn)
            case WorkerNote():
                self._apply(q.Noted(event.queue, event.message), turn)
            case WorkerBroke():
                raise event.error
            case _:
                log.error("the scan server cannot make use of %r", event)

    def _change_conditions(
        self, request: InterlockRequestMessage | BeamlineStateRequestMessage, user: str, turn: Turn
    ) -> None:
        try:
            told, result = self._conditions.request(request, user)
        except BECError as error:
            self._refuse(request, Rejected(error.reason, error.message), turn)
            return
        answer = RequestResponseMessage(
            request_id=request.request_id, accepted=True, message=told, result=result
        )
        self._answer(request.client_id, answer, turn)

    def _hold(self, turn: Turn) -> None:
        """What interlocks hold now: told to the queues, and after that to the workers."""
        holds = self._conditions.holds
        if holds == self._state.holds:
            return
        self._apply(q.Held(holds), turn)
        for item in self._state.active:
            self._learning.interrupted(item.scan_id)
        for name, worker in self._workers.items():
            held = self._held(name)
            turn.afterwards.insert(0, lambda w=worker, h=held: w.post(h))  # type: ignore[misc]

    def _held(self, queue: str) -> Held:
        holding = [hold for hold in self._conditions.holds if hold.running and hold.applies_to(queue)]
        return Held("; ".join(h.text for h in holding), min((h.since for h in holding), default=0.0))

    def _apply(self, event: q.Event, turn: Turn) -> None:
        before = self._state
        self._state, effects = q.reduce(before, event)
        if self._state is not before and queue_log.is_logged(event):
            self._happened.append(event)
        for effect in effects:
            match effect:
                case q.Answer():
                    self._answer(
                        effect.client_id,
                        RequestResponseMessage(
                            request_id=effect.request_id,
                            accepted=effect.accepted,
                            code=effect.code,
                            message=effect.message,
                            scan_id=effect.scan_id,
                            result=effect.result,
                        ),
                        turn,
                        is_question=effect.result is not None,
                    )
                case q.Start():
                    self._start_item(effect, turn)
                case q.Tell():
                    worker = self._workers.get(effect.queue)
                    if worker is not None:
                        command = Command(effect.scan_id, effect.action, effect.message)
                        turn.afterwards.append(lambda w=worker, c=command: w.post(c))  # type: ignore[misc]
                        self._learning.interrupted(effect.scan_id)
                        if effect.action in (QueueAction.ABORT, QueueAction.HALT, QueueAction.USER_COMPLETED):
                            due = self._service.clock.monotonic() + STUCK_S
                            self._told_to_stop[effect.queue] = (due, effect)
                case q.Cancelled():
                    turn.assembled.pop(effect.item.scan_id, None)
                    self._note_end(effect.item, "was taken out of the queue already")
                    self._done(effect.item, effect.code, effect.message, turn)
                case q.Dismiss():
                    worker = self._workers.pop(effect.queue, None)
                    if worker is not None:
                        turn.afterwards.append(worker.stop)

    def _answer(
        self, client_id: str, answer: RequestResponseMessage, turn: Turn, *, is_question: bool = False
    ) -> None:
        """is_question: nothing was changed by it, so that it may be asked again; its answer may be long."""
        if not is_question:
            self._answers.remember(client_id, answer)
        replies = MessageEndpoints.request_response(client_id)
        turn.batch.append(replies, answer).expire(replies, DAY)

    def _refuse(self, request: Any, refusal: Rejected, turn: Turn) -> None:
        log.info("refused %s of %s: %s", type(request).__name__, request.client_id, refusal.message)
        self._answer(
            request.client_id,
            RequestResponseMessage(
                request_id=request.request_id, accepted=False, code=refusal.code, message=refusal.message
            ),
            turn,
        )

    def _done(self, item: q.Item, code: ReasonCode, message: str, turn: Turn) -> None:
        turn.batch.append(
            MessageEndpoints.request_response(item.request.client_id),
            RequestDoneMessage(
                request_id=item.request.request_id,
                success=False,
                scan_id=item.scan_id,
                error=ErrorInfo(error_message=message, code=code),
            ),
        )

    # Clients

    def _meet(self, user: str) -> None:
        """Read the requests of a user from now on."""
        if user in self._users:
            return
        if not is_name(user):
            log.error(
                "a client says that its user is %r; that cannot be part of a key, and is not read", user
            )
            return
        self._users.add(user)
        requests = MessageEndpoints.scan_queue_request(user)
        self._inbox.follow(requests, self._cursors.get(requests.key, "0"))

    def _take_request(self, delivery: Delivery, turn: Turn) -> None:
        request = delivery.message
        if not is_name(request.client_id):
            log.error(
                "a request of the user %s cannot be answered: its client_id is %r",
                delivery.user,
                request.client_id,
            )
            return
        repeated = self._first_answer(request.client_id, request.request_id)
        if repeated is not None:
            turn.batch.append(MessageEndpoints.request_response(request.client_id), repeated)
            return
        change = self._reconfiguration.change
        if change is not None and change.request_id == request.request_id:
            return
        if self._reload is not None and self._reload.request.request_id == request.request_id:
            return
        why = self._blame.requests.get(request.request_id)
        if why is not None:
            self._blame = blame.forget(self._blame, requests=[request.request_id])
            self._refuse(request, Rejected(ReasonCode.INTERNAL, f"this cannot be done: {why}"), turn)
            return
        match request:
            case ScanQueueMessage():
                self._submit(request, delivery.user, turn)
            case ScanQueueModificationMessage():
                self._take_command(request, delivery.user, turn)
            case DeviceConfigMessage():
                self._begin_change(request, delivery.user, turn)
            case InterlockRequestMessage() | BeamlineStateRequestMessage():
                self._change_conditions(request, delivery.user, turn)
            case PluginReloadMessage():
                self._begin_reload(request, turn)

    def _take_command(self, request: ScanQueueModificationMessage, user: str, turn: Turn) -> None:
        what = self._ended.get(request.scan_id or "")
        if what is not None:
            self._refuse(
                request,
                Rejected(ReasonCode.WRONG_STATE, f"{what}, so there is nothing to {request.action}"),
                turn,
            )
            return
        command = q.Commanded(
            request.request_id,
            request.client_id,
            user,
            request.action,
            request.queue,
            request.scan_id,
            request.parameter,
            self._service.new_id() if request.action is QueueAction.RESTART else "",
            self._service.clock.now(),
        )
        if request.action is QueueAction.EDIT:
            found = self._state.find(request.scan_id) if request.scan_id else None
            if found is not None and found[1].status is ItemState.PENDING:
                edited = self._edited(found[1], request)
                if isinstance(edited, Rejected):
                    self._refuse(request, edited, turn)
                    return
                command = replace(command, edited=edited)
        self._apply(command, turn)

    def _edited(self, item: q.Item, edit: ScanQueueModificationMessage) -> q.Item | Rejected:
        """The item with another request in the place of its own, checked and worked out as if it were new."""
        try:
            request = edited_request(item.request, edit.parameter)
        except ParameterError as error:
            return Rejected(error.reason, error.message)
        refusal = self._check(request)
        if refusal is not None:
            return refusal
        self._facts.refresh(self._devices_of(request))
        assembled = self._assemble(request, request_id=edit.request_id)
        if isinstance(assembled, Rejected):
            return assembled
        return self._item(request, assembled, item.user, item.scan_id, item.submitted)

    def _first_answer(self, client_id: str, request_id: str) -> RequestResponseMessage | None:
        if not self._answers.knows(client_id):
            told = patiently(self._broker, lambda: answers_of(self._broker, client_id))
            self._answers.load(client_id, told)
        return self._answers.first(client_id, request_id)

    def _take_malformed(self, item: Malformed, turn: Turn) -> None:
        log.error("%s, entry %s: %s", item.endpoint.key, item.entry_id, item.error)
        parts = item.endpoint.key.split("/")
        if parts[0] != "personal":
            return
        turn.cursors[item.endpoint] = item.entry_id
        request_id, client_id = item.error.body.get("request_id"), item.error.body.get("client_id")
        if not isinstance(request_id, str) or not isinstance(client_id, str) or not is_name(client_id):
            return
        self._answer(
            client_id,
            RequestResponseMessage(
                request_id=request_id, accepted=False, code=item.error.reason, message=item.error.message
            ),
            turn,
        )

    # Scans

    def _submit(self, request: ScanQueueMessage, user: str, turn: Turn) -> None:
        refusal = self._check(request)
        if refusal is not None:
            self._refuse(request, refusal, turn)
            return
        assembled = self._assemble(request, request_id=request.request_id)
        if isinstance(assembled, Rejected):
            self._refuse(request, assembled, turn)
            return
        if request.dry_run:
            self._answer_dry_run(request, assembled, turn)
            return
        item = self._item(request, assembled, user, self._service.new_id(), self._service.clock.now())
        turn.assembled[item.scan_id] = assembled
        turn.facts_are_fresh = True
        self._apply(q.Submitted(request.queue, item), turn)

    def _check(self, request: ScanQueueMessage) -> Rejected | None:
        """Why it cannot be queued, or begin."""
        refusal = check(
            request, self._catalogue.infos, self._facts.registry, failed_plugins=self._catalogue.failed
        )
        if refusal is None and self._reload is not None and not self._catalogue.is_ours(request.scan_type):
            return Rejected(
                ReasonCode.WRONG_STATE,
                f"the plugins are just being reloaded, and {request.scan_type} depends on them; try again in a moment",
            )
        return refusal

    def _answer_dry_run(self, request: ScanQueueMessage, assembled: Assembled, turn: Turn) -> None:
        plan = self._in_time(
            request,
            lambda: plan_of(assembled, self._facts.registry, self._learning.learned),
            request_id=request.request_id,
        )
        if isinstance(plan, Rejected):
            self._refuse(request, plan, turn)
            return
        queue = self._state.queues.get(request.queue, q.Queue())
        folder = self._service.config.data_folder.absolute()
        update: dict[str, Any] = {"queue": request.queue, "waiting": len(queue.items)}
        if assembled.scan.is_scan:
            number = self._state.last_number + 1
            target = file_target(
                folder, self._facts.account, number, request.file_suffix, request.file_directory
            )
            update["file"] = f"{target.stem}_master{target.suffix}.h5"
        self._answer(
            request.client_id,
            RequestResponseMessage(
                request_id=request.request_id, accepted=True, result=plan.model_copy(update=update)
            ),
            turn,
            is_question=True,
        )

    def _item(
        self, request: ScanQueueMessage, assembled: Assembled, user: str, scan_id: str, submitted: float
    ) -> q.Item:
        plan = assembled.plan
        return q.Item(
            request=request,
            scan_id=scan_id,
            user=user,
            submitted=submitted,
            is_scan=self._catalogue.infos[request.scan_type].is_scan,
            num_points=plan.num_points,
            estimated_s=plan.estimated_s,
            motors=plan.motors,
            owned=plan.owned,
            sweeps=assembled.scan.sweeps,
        )

    def _note_end(self, item: q.Item, how: str) -> None:
        self._ended[item.scan_id] = f"{item.label} {how}"
        while len(self._ended) > KEEP_ENDED:
            self._ended.popitem(last=False)

    def _start_item(self, start: q.Start, turn: Turn, resumed: Resumed | None = None) -> None:
        item = start.item
        assembled: Assembled | Rejected | None = turn.assembled.pop(item.scan_id, None)
        if assembled is None:
            assembled = self._assemble_again(item)
        order: Order | None = None
        if isinstance(assembled, Assembled):
            try:
                order = self._order(item)
            except ParameterError as error:
                assembled = Rejected(error.reason, error.message)
        if isinstance(assembled, Rejected) or order is None:
            refusal = assembled if isinstance(assembled, Rejected) else Rejected(ReasonCode.INTERNAL, "")
            self._done(item, refusal.code, f"{item.label} could not begin: {refusal.message}", turn)
            self._apply(q.Ended(item.scan_id), turn)
            return
        plan = assembled.plan
        if resumed is None and (seconds := self._learning.begins(item.scan_id, assembled)) is not None:
            assembled = replace(assembled, plan=replace(plan, estimated_s=seconds))
        self._assembled[item.scan_id] = assembled
        self._apply(q.Began(item.scan_id, plan.start, plan.num_points, plan.owned), turn)
        worker = self._worker(start.queue)
        mark = self._slot_for(item)
        turn.afterwards.append(lambda: worker.post(Run(order, assembled, resumed, mark)))

    def _assemble_again(self, item: q.Item) -> Assembled | Rejected:
        """The world has moved on since the item was submitted: work it out from what is now."""
        request = item.request
        if not self._blame.may(item.scan_id, WORKING_OUT):
            return Rejected(ReasonCode.INTERNAL, self._blame.why(item.scan_id))
        refusal = self._check(request)
        if refusal is not None:
            return refusal
        self._facts.refresh(self._devices_of(request))
        return self._assemble(request, item.start or None, scan_id=item.scan_id)

    def _assemble(
        self,
        request: ScanQueueMessage,
        start: Mapping[str, float] | None = None,
        *,
        request_id: str = "",
        scan_id: str = "",
    ) -> Assembled | Rejected:
        """Work a request out. request_id: it is not accepted yet; scan_id: it is."""
        kind = self._catalogue.classes[request.scan_type]
        modification = self._catalogue.modifications.get(request.scan_type)
        return self._in_time(
            request,
            lambda: assemble(kind, request, self._facts.registry, start, modification),
            request_id=request_id,
            scan_id=scan_id,
        )

    def _in_time(
        self,
        request: ScanQueueMessage,
        call: Callable[[], T | Rejected],
        *,
        request_id: str = "",
        scan_id: str = "",
    ) -> T | Rejected:
        """Do it here if all of it is our code; a plugin's is waited for, but not for ever."""
        info = self._catalogue.infos[request.scan_type]

        def guarded() -> T | Rejected:
            return _guarded(request.scan_type, call)

        if self._catalogue.is_ours(request.scan_type):
            return guarded()
        return self._code.in_time(
            guarded,
            ForeignCall(self._whose(info), info.plugin, request_id, scan_id),
            f"the scan {request.scan_type} ({_concerned(info)}) did not work out its points",
        )

    def _replace_if_stuck(self, name: str, tell: q.Tell, now: float, turn: Turn) -> None:
        """A scan's code that does not return must not keep its queue: give the queue a new worker, which ends the scan."""
        worker, found = self._workers.get(name), self._state.find(tell.scan_id)
        if worker is None or found is None:
            return
        since = worker.working_since
        if since is None:
            return
        if now - since < STUCK_S:
            self._told_to_stop[name] = (since + STUCK_S, tell)
            return
        item = found[1]
        assembled = self._assembled.get(item.scan_id)
        log.error(
            "the code of %s has not returned for %.1f s; its worker is replaced", item.label, now - since
        )
        worker.abandon()
        del self._workers[name]
        if not isinstance(assembled, Assembled):
            self._done(item, ReasonCode.ABORTED, tell.message, turn)
            self._forget_code(item.scan_id)
            self._apply(q.Ended(item.scan_id), turn)
            return
        traces = traces_of(self._broker, item.scan_id, item.request.client_id, is_scan=item.is_scan)
        # What of modifiers is to be done at the end is done, unless it is that which does not return.
        slot = self._code.give_up(item.scan_id, worker)
        hooks = None if slot is not None and slot.where == CLEANING_UP else assembled.hooks
        ending = replace(assembled, scan=_NothingMore(BoundCall((), {})), hooks=hooks, is_over=True)
        mark = self._slot_for(item) if hooks else None
        message = f"{tell.message}; its code had not returned for {now - since:.0f} s"
        successor = self._worker(name)
        order = self._order(item)
        resumed = traces.resumed if item.is_scan else None

        def hand_over() -> None:
            successor.post(Run(order, ending, resumed, mark))
            successor.post(Command(item.scan_id, tell.action, message))

        turn.afterwards.append(hand_over)
        if hooks is not None:
            self._told_to_stop[name] = (now + 2 * STUCK_S, tell)

    def _order(self, item: q.Item) -> Order:
        request = item.request
        number = item.scan_number or 0
        folder = self._service.config.data_folder.absolute()
        return Order(
            request=request,
            scan_id=item.scan_id,
            number=number,
            user=item.user,
            account=self._facts.account,
            file=file_target(folder, self._facts.account, number, request.file_suffix, request.file_directory)
            if item.is_scan
            else None,
            code_hash=self._catalogue.code_hashes.get(request.scan_type, ""),
            is_scan=item.is_scan,
        )

    def _worker(self, name: str) -> Worker:
        worker = self._workers.get(name)
        if worker is None:
            worker = Worker(
                self._broker, self._service.clock, name, self._servers, self._epochs, self._inbox.post
            ).start()
            self._workers[name] = worker
            worker.post(self._held(name))
        return worker

    def _note_empty_queues(self) -> None:
        now = self._service.clock.monotonic()
        for name, queue in self._state.queues.items():
            if queue.items or queue.locks or name == q.PRIMARY:
                self._empty_since.pop(name, None)
            else:
                self._empty_since.setdefault(name, now)

    # Facts about devices

    def _look_up_facts(self, events: Iterable[Event], turn: Turn) -> None:
        """Limits and positions for all requests of a turn, in one round trip."""
        wanted: list[str] = []
        requests = False
        for event in events:
            if not isinstance(event, Delivery) or not isinstance(event.message, ScanQueueMessage):
                continue
            requests = True
            info = self._catalogue.infos.get(event.message.scan_type)
            if info is not None:
                # Names may stand anywhere in a call that is not checked yet.
                texts = [*event.message.args, *event.message.kwargs.values()]
                wanted += [text for text in texts if isinstance(text, str) and text in self._facts.registry]
                wanted += self._used_by_modifiers(event.message.scan_type)
        if requests:
            self._facts.refresh(list(dict.fromkeys(wanted)))
            turn.facts_are_fresh = True

    def _devices_of(self, request: ScanQueueMessage) -> list[str]:
        """Of which limits and positions are wanted, of a request that is checked."""
        needed = devices_needed(self._catalogue.infos[request.scan_type], request)
        return list(dict.fromkeys([*needed, *self._used_by_modifiers(request.scan_type)]))

    def _used_by_modifiers(self, scan: str) -> list[str]:
        made = self._catalogue.modifications.get(scan)
        used = [name for kind in made.modifiers for name in kind.devices] if made else []
        return [name for name in used if name in self._facts.registry]

    def _start_epochs(self) -> None:
        assert self._service.lease is not None
        first = max(self._service.lease.epoch * _EPOCHS_PER_LIFE, self._facts.highest_epoch()) + 1
        self._epochs = itertools.count(first)

    # The device session

    def _begin_change(self, request: DeviceConfigMessage, user: str, turn: Turn) -> None:
        running = [item.label for item in self._state.active]
        change = self._reconfiguration.planned(request, user, running, self._facts.session)
        if isinstance(change, Rejected):
            self._refuse(request, change, turn)
            return
        self._apply(q.Configuring(user or "a client"), turn)
        self._reconfiguration.begin(change, turn)

    def _end_change(self, change: s.Change, turn: Turn) -> None:
        is_done = change.stage is s.Stage.DONE
        if is_done:
            self._facts.put_in_force(change.session)
            self._conditions.session_changed()
        self._answer(
            change.client_id,
            RequestResponseMessage(request_id=change.request_id, accepted=True, result=change.result)
            if is_done
            else RequestResponseMessage(
                request_id=change.request_id, accepted=False, code=change.code, message=change.problem
            ),
            turn,
        )
        self._apply(q.Configuring(""), turn)

    # Plugins

    def _begin_reload(self, request: PluginReloadMessage, turn: Turn) -> None:
        """Import the plugins again in a thread, so that a slow one keeps nobody waiting."""
        if self._reload is not None:
            self._refuse(
                request, Rejected(ReasonCode.WRONG_STATE, "the plugins are being reloaded already"), turn
            )
            return
        concerned = [
            f"{item.label} ({_concerned(info)}) {'waits' if item.status is ItemState.PENDING else 'runs'} in the queue {name}"
            for name, queue in self._state.queues.items()
            for item in queue.items
            if (info := self._catalogue.infos.get(item.request.scan_type)) is not None
            and not self._catalogue.is_ours(info.name)
            and not self._is_over(item)
        ]
        if concerned:
            more = f", and {len(concerned) - 3} more" if len(concerned) > 3 else ""
            self._refuse(
                request,
                Rejected(
                    ReasonCode.WRONG_STATE,
                    f"plugins cannot be reloaded while {'; '.join(concerned[:3])}{more}. Wait for the end, or take it out of "
                    "the queue",
                ),
                turn,
            )
            return
        reload = Reload(request, self._service.clock.monotonic() + RELOAD_S)
        self._reload = reload
        turn.is_notable = True
        catalogue, prints, states = self._catalogue, self._prints, self._state_plugins

        def around(point: EntryPoint) -> contextlib.AbstractContextManager[None]:
            return self._code.importing(point, request.request_id)

        def load() -> None:
            try:
                reload.done = reload_plugins(catalogue, prints, states=states, around=around)
            except BaseException as error:
                log.exception("the plugins could not be reloaded")
                reload.done = f"{type(error).__name__}: {error}"
            self._inbox.post(reload)

        # Not before it is on record who waits for an answer: an import can end the process.
        turn.afterwards.append(threading.Thread(target=load, name="reload-plugins", daemon=True).start)

    def _is_over(self, item: q.Item) -> bool:
        """Is its end on record? Its sender may know that before its worker has told us."""
        if item.status is ItemState.PENDING:
            return False
        return traces_of(self._broker, item.scan_id, item.request.client_id, is_scan=item.is_scan).over

    def _end_reload(self, reload: Reload, turn: Turn) -> None:
        self._reload = None
        turn.is_notable = True
        done = reload.done
        if not isinstance(done, Reloaded):
            why = done or f"they were not imported within {RELOAD_S:g} s"
            code = ReasonCode.INTERNAL if done else ReasonCode.TIMEOUT
            self._refuse(
                reload.request,
                Rejected(code, f"the plugins could not be reloaded, and are as they were before: {why}"),
                turn,
            )
            return
        before, self._catalogue = self._catalogue, done.catalogue
        self._prints = done.prints
        self._state_plugins = done.states
        self._conditions.use(done.states)
        for plugin, reason in done.report.failed.items():
            if before.failed.get(plugin) != reason:
                self._service.alarm(Severity.WARNING, f"The plugin {plugin} cannot be used: {reason}")
        turn.batch.put(MessageEndpoints.available_scans, self._catalogue.message())
        self._answer(
            reload.request.client_id,
            RequestResponseMessage(request_id=reload.request.request_id, accepted=True, result=done.report),
            turn,
        )

    # Code that is not ours

    def _whose(self, info: ScanInfo) -> str:
        file = ""
        with contextlib.suppress(OSError, TypeError):
            file = f", {inspect.getfile(self._catalogue.classes[info.name])}"
        return f"the scan {info.name} ({_concerned(info)}{file})"

    def _slot_for(self, item: q.Item) -> Slot | None:
        """To note when the scan's code runs; None if all of it is ours."""
        info = self._catalogue.infos[item.request.scan_type]
        if self._catalogue.is_ours(info.name):
            return None
        return self._code.slot_for(item.scan_id, self._whose(info), info.plugin)

    def _forget_code(self, scan_id: str) -> None:
        """The scan has ended."""
        self._code.forget(scan_id)
        self._blame = blame.forget(self._blame, scans=[scan_id])

    # After a restart

    def _restore(self, turn: Turn) -> None:
        """Go on where an earlier life stopped."""
        raw: dict[str, Any] = {}
        try:
            found = self._broker.get(MessageEndpoints.queue_state)
            raw = found.message.state if found else {}
            state = q.from_plain(raw) if raw else q.State()
        except (MessageError, ValidationError, KeyError, TypeError, ValueError) as error:
            log.error("the queues' state in Redis cannot be read, all queues are empty: %s", error)
            state, raw = q.State(), {}
        state = self._replay(state, raw)
        highest = max(
            state.last_number,
            highest_number_in_redis(self._broker),
            highest_number_in_files(self._service.config.data_folder),
        )
        self._revision = int(raw.get("revision", 0))
        self._state = replace(state, last_number=highest)
        self._restore_blame(raw.get("blame") or {})
        self._apply(q.Held(self._conditions.holds), turn)
        if raw.get("change"):
            self._take_up_change(*raw["change"], turn=turn)
        if raw.get("reload"):
            self._answer_reload(*raw["reload"], turn=turn)
        for name, queue in list(self._state.queues.items()):
            if queue.active is not None:
                self._take_up(name, queue.active, turn)
        if self._reconfiguration.change is None:
            # What was pending may start, if nothing stands before it.
            self._apply(q.Configuring(""), turn)

    def _restore_blame(self, raw: dict[str, Any]) -> None:
        try:
            known = blame.from_plain(raw)
        except (KeyError, TypeError, ValueError) as error:
            log.error("which code has ended the scan server before cannot be read: %s", error)
            known = blame.Blame()
        known = blame.blame(known, self._code.lives_before)
        over = [scan_id for scan_id in known.scans if self._state.find(scan_id) is None]
        self._blame = blame.forget(known, scans=over)
        for life in self._code.lives_before:
            for call in life.calls:
                if life.how:
                    # The supervisor has raised the alarm.
                    log.error("%s", blame.end_in_words(life, call))
                    continue
                self._service.alarm(
                    Severity.MAJOR, blame.end_in_words(life, call), scan_id=call.scan_id or None
                )

    def _take_up_change(self, request_id: str, client_id: str, user: str = "", *, turn: Turn) -> None:
        """A change of the session that was under way is begun anew, because nobody knows how far it came."""
        requests = MessageEndpoints.scan_queue_request(user) if is_name(user) else None
        for item in self._broker.entries(requests, newest=True, count=1000) if requests else ():
            request = item.message if isinstance(item, Delivery) else None
            if isinstance(request, DeviceConfigMessage) and request.request_id == request_id:
                log.warning("the device session was being changed by %s; taking it up", user)
                self._begin_change(request, user, turn)
                return
        self._answer(
            client_id,
            RequestResponseMessage(
                request_id=request_id,
                accepted=False,
                code=ReasonCode.SERVICE_DOWN,
                message="the scan server was restarted while the device session was being changed, and the request is not "
                "on record any more; load the session again",
            ),
            turn,
        )

    def _answer_reload(self, request_id: str, client_id: str, *, turn: Turn) -> None:
        """Plugins were being reloaded when an earlier life ended; this one has imported them anew."""
        if self._first_answer(client_id, request_id) is not None:
            return
        why = self._blame.requests.get(request_id)
        self._blame = blame.forget(self._blame, requests=[request_id])
        message = why or (
            "the scan server was restarted while it reloaded the plugins, by which they were all imported anew; "
            "`bec plugins show` tells what is in force"
        )
        code = ReasonCode.INTERNAL if why else ReasonCode.SERVICE_DOWN
        answer = RequestResponseMessage(request_id=request_id, accepted=False, code=code, message=message)
        self._answer(client_id, answer, turn)

    def _replay(self, state: q.State, raw: dict[str, Any]) -> q.State:
        """What happened after the state was written as a whole. raw gets what else the log says."""
        revision = int(raw.get("revision", 0))
        for entry in self._broker.entries(MessageEndpoints.queue_log):
            if isinstance(entry, Malformed):
                log.error("an entry of the queues' log cannot be read: %s", entry.error)
                continue
            message: QueueLogMessage = entry.message
            if message.revision <= revision:
                continue
            state, problems = queue_log.fold(state, message.events)
            for problem in problems:
                log.error("an event of the queues' log cannot be read: %s", problem)
            raw.pop("reload", None)
            raw.pop("blame", None)
            raw.update(message.rest, revision=message.revision)
        return state

    def _take_up(self, name: str, item: q.Item, turn: Turn) -> None:
        """An item that was running: it is over, or goes on, or is ended, as `recovery:` says."""
        # First of all, so that a predecessor that is not quite dead can add nothing to what is read now.
        self._worker(name)
        traces = traces_of(self._broker, item.scan_id, item.request.client_id, is_scan=item.is_scan)
        if traces.over:
            self._forget_code(item.scan_id)
            self._apply(q.Ended(item.scan_id), turn)
            return
        if self._blame.why(item.scan_id):
            self._end_blamed(name, item, traces, turn)
            return
        policy = self._service.config.recovery
        code_hash = self._catalogue.code_hashes.get(item.request.scan_type, "")
        is_changed = traces.intent is not None and traces.intent.code_hash != code_hash
        is_fatal = item.status is ItemState.RUNNING and self._is_fatal(item, traces, turn)
        asking = [
            name
            for name in item.owned
            if name in self._facts.registry
            and self._facts.registry[name].config.onInterrupt is InterruptPolicy.ASK
        ]
        paused = item.status is ItemState.PAUSED or (
            item.is_scan and (policy == "pause" or is_changed or is_fatal or bool(asking))
        )
        log.warning("%s was running when the scan server ended; taking it up", item.label)
        if asking and not item.is_scan:
            self._close(item, None, turn)
            why = f"was interrupted, and {', '.join(asking)} has `onInterrupt: ask`; look where it stands"
            self._done(item, ReasonCode.SERVICE_DOWN, f"{item.label} {why}", turn)
            self._apply(q.Ended(item.scan_id), turn)
            return
        if paused and item.status is ItemState.RUNNING:
            why = (
                "the code of the scan has changed"
                if is_changed
                else f"the scan server has ended {TAKE_UPS} times in a row while it ran"
                if is_fatal
                else f"the scan server was restarted, and {', '.join(asking)} has `onInterrupt: ask`"
                if asking
                else "the scan server was restarted, and `recovery: pause` is configured"
            )
            queue = self._state.queues[name]
            self._state = replace(
                self._state,
                queues={
                    **self._state.queues,
                    name: replace(
                        queue,
                        status=QueueState.PAUSED,
                        message=f"{item.label} is paused, because {why}; continue or abort it",
                        items=(replace(item, status=ItemState.PAUSED), *queue.items[1:]),
                    ),
                },
            )
        resumed = replace(traces.resumed, paused=paused)
        self._start_item(q.Start(name, item), turn, resumed if item.is_scan else None)
        if self._state.find(item.scan_id) is None:
            self._close(item, traces.intent, turn)
            return
        ending = item.stopping or ("abort" if policy == "abort" and item.is_scan else "")
        worker = self._workers.get(name)
        if ending and worker is not None:
            action = QueueAction.ABORT if ending == QueueAction.RESTART else QueueAction(ending)
            message = (
                f"{item.label} was ended by a user"
                if item.stopping
                else f"{item.label} was aborted, because the scan server was restarted and `recovery: abort` is configured"
            )
            command = Command(item.scan_id, action, message)
            turn.afterwards.append(lambda: worker.post(command))

    def _end_blamed(self, name: str, item: q.Item, traces: Traces, turn: Turn) -> None:
        """A scan whose code ends the scan server is not run again, but cleaned up after: its motors go back, its devices
        are unstaged, and modifiers may do what they do at an end, as long as it is not that which ends the scan server.
        """
        why = self._blame.why(item.scan_id)
        log.error("%s is ended: %s", item.label, why)
        if not item.is_scan or traces.intent is None:
            self._close(item, None, turn)
            self._service.alarm(Severity.MAJOR, f"{item.label}: {why}", scan_id=item.scan_id)
            self._done(item, ReasonCode.INTERNAL, f"{item.label}: {why}", turn)
            self._forget_code(item.scan_id)
            self._apply(q.Ended(item.scan_id), turn)
            return
        assembled: Assembled | Rejected | None = None
        if self._blame.may(item.scan_id, CLEANING_UP):
            assembled = self._assemble_again(item)
        plan = (
            assembled.plan
            if isinstance(assembled, Assembled)
            else plan_on_record(traces.intent, item.start, item.owned, self._facts.registry)
        )
        hooks = assembled.hooks if isinstance(assembled, Assembled) else None
        order = self._order(item)
        ending = Assembled(_NothingMore(BoundCall((), {})), plan, hooks, is_over=True)
        mark = self._slot_for(item) if hooks else None
        worker = self._worker(name)
        error = ErrorInfo(error_message=why, code=ReasonCode.INTERNAL)

        def end() -> None:
            worker.post(Run(order, ending, replace(traces.resumed, paused=False), mark))
            worker.post(Break(item.scan_id, error))

        self._assembled[item.scan_id] = ending
        turn.afterwards.append(end)

    def _is_fatal(self, item: q.Item, traces: Traces, turn: Turn) -> bool:
        """Does the scan server end whenever it runs this scan, be it that the scan's code ends the process?"""
        if not item.is_scan:
            return False
        now = self._service.clock.now()
        points = sum(count_committed(self._broker, item.scan_id, self._servers).points.values())
        turn.batch.append(
            MessageEndpoints.scan_journal(item.scan_id),
            ScanJournalMessage(scan_id=item.scan_id, step=-1, kind=TAKEN_UP, result=[now, points]),
        )
        in_vain = [at for at, so_far in traces.taken_up if so_far == points and now - at < TAKE_UPS_S]
        return len(in_vain) >= TAKE_UPS - 1

    def _close(self, item: q.Item, intent: ScanStatusMessage | None, turn: Turn) -> None:
        """A scan that cannot be taken up again ends here, and truthfully."""
        turn.batch.append(
            MessageEndpoints.device_control,
            DeviceControlMessage(kind=ControlKind.STOP, run_epoch=next(self._epochs), scan_id=item.scan_id),
        )
        if intent is None:
            return
        counted = count_committed(self._broker, item.scan_id, self._servers)
        now = self._service.clock.now()
        message = f"{item.label} could not be taken up after a restart of the scan server"
        turn.batch.append(
            MessageEndpoints.scan_status,
            intent.model_copy(
                update={
                    "status": ScanState.ABORTED,
                    "reason": "alarm",
                    "message": message,
                    "error": ErrorInfo(error_message=message, code=ReasonCode.ABORTED),
                    "num_readouts": min(counted.points.values(), default=0),
                    "ended": now,
                    "timestamp": now,
                }
            ),
        )

    def _last_stop(self) -> str:
        """Stops that were given before this start have had their effect on the devices; they are not obeyed again."""
        known = self._cursors.get(MessageEndpoints.device_stop.key)
        return known or self._broker.last_id(MessageEndpoints.device_stop)


def _fairly(events: Sequence[Event]) -> list[Event]:
    """What comes from a stream that has sent little comes before what comes from one that has sent much; within a
    stream the order stays.
    """
    sent: dict[Endpoint, int] = {}
    for event in events:
        if isinstance(event, (Delivery, Malformed)):
            sent[event.endpoint] = sent.get(event.endpoint, 0) + 1
    return sorted(events, key=lambda e: sent[e.endpoint] if isinstance(e, (Delivery, Malformed)) else 0)


def edited_request(request: ScanQueueMessage, changes: Mapping[str, Any]) -> ScanQueueMessage:
    """The request with some of its fields changed; of kwargs and metadata those that are named. Raises ParameterError."""
    allowed = (
        "scan_type",
        "args",
        "kwargs",
        "metadata",
        "monitored",
        "on_request",
        "file_suffix",
        "file_directory",
    )
    wrong = [name for name in changes if name not in allowed]
    if wrong or not changes:
        asked = f"{', '.join(wrong)} of a request cannot be edited" if wrong else "the edit says nothing"
        raise ParameterError(f"{asked}; what can be is {', '.join(allowed)}")
    fields = {**request.__dict__, **changes}
    for name in ("kwargs", "metadata"):
        if isinstance(changes.get(name), Mapping):
            fields[name] = {**getattr(request, name), **changes[name]}
    try:
        return ScanQueueMessage.model_validate(fields)
    except ValidationError as error:
        raise ParameterError(f"the edit is not right: {describe_validation(error)}") from None


def _concerned(info: ScanInfo) -> str:
    """Whose code a scan is, in words."""
    modified = f", modified by {', '.join(info.modifiers)}" if info.modifiers else ""
    return f"plugin {info.plugin}{modified}"


class _NothingMore(Scan):
    """In the place of a scan whose code does not return: nothing more is to be done."""

    scan_name = "nothing_more"

    def run(self) -> Steps:
        yield Wait(float("inf"))


def _guarded(name: str, call: Callable[[], T | Rejected]) -> T | Rejected:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - it may be a plugin's SystemExit, in a thread of its own
        return Rejected(
            ReasonCode.INTERNAL,
            f"the scan {name} failed to work out its points: {type(error).__name__}: {error}",
        )
