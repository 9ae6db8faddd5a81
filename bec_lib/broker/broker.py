"""Messages in and out of Redis, by declared endpoints only.

Knows keys, codec, leases and cursors; knows nothing of scans or devices. A `Broker` may be used from several
threads; every blocking read takes a connection of its own out of the pool.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from bec_lib import PROTOCOL_VERSION, codec, crash_points
from bec_lib.broker import scripts
from bec_lib.broker.settings import RedisSettings
from bec_lib.clock import Clock, SystemClock
from bec_lib.endpoints import Endpoint, Kind
from bec_lib.errors import (
    BECError,
    BrokerError,
    EndpointError,
    Fenced,
    MessageError,
    StreamConflict,
    UnsupportedMessage,
)
from bec_lib.ids import new_id
from bec_lib.messages import Envelope, Message

log = logging.getLogger(__name__)

MAX_BLOCK_S = 5.0
# A look at latest values that a person waits for: by then it is known that Redis does not answer.
LOOK_S = 0.8
# After so long the server's clock is asked for again: two quartzes part by some 50 us each second.
CLOCK_AGE_S = 600.0
# The end of a process does not wait longer for a broker that is away.
END_S = 2.0
FIELD = b"d"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who writes: goes into every envelope. user and account are for clients."""

    service: str
    instance: str
    user: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it was read. entry_id: of the stream entry, "" for latest values and broadcasts."""

    endpoint: Endpoint
    entry_id: str
    message: Any
    envelope: Envelope

    @property
    def user(self) -> str:
        """The user in whose `personal/` stream it stood, else the sender's."""
        parts = self.endpoint.key.split("/")
        return parts[1] if parts[0] == "personal" else self.envelope.user


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that is not a message of its endpoint. It is logged, answered where possible, and passed over."""

    endpoint: Endpoint
    entry_id: str
    error: MessageError


@dataclass(slots=True)
class Lease:
    """The right to write as a role. A newer lease of the same role has a higher epoch and makes this one
    useless.

    `sequence` numbers the batches, so that one is applied once, though it was repeated after a lost connection, and
    though its first copy may come out of the network later than its successors. For that they are sent one by one.
    """

    role: str
    key: str
    epoch: int
    sequence: int = 0
    before_commit: str = field(init=False)
    after_commit: str = field(init=False)
    mutex: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.before_commit = f"{self.role}.before_commit"
        self.after_commit = f"{self.role}.after_commit"


class Waiting(Protocol):
    """Who waits for something to come on a connection of its own."""

    def hang_up(self) -> Any:
        """Give the connection up and make a new one; from any thread."""


@dataclass(slots=True)
class Batch:
    """Writes that are committed together in one round trip: all of them or none.

    Get one from `Broker.batch()`. Methods return the batch, so that they can be chained. An empty batch
    commits to nothing.
    """

    broker: Broker
    lease: Lease | None
    operations: list[Any] = field(default_factory=list)

    def append(self, endpoint: Endpoint, message: Message) -> Batch:
        """Append to a stream."""
        self.broker.check(endpoint, Kind.STREAM, message)
        keep = "" if endpoint.max_entries is None else str(endpoint.max_entries)
        return self._add("x", endpoint, "*", self.broker.encode(message, self.lease), keep)

    def append_at(self, endpoint: Endpoint, message: Message, entry_id: str, *, after: str) -> Batch:
        """Append with this entry id, if the stream's last id is `after` ("0-0": empty and never sealed)."""
        self.broker.check(endpoint, Kind.STREAM, message)
        return self._add("e", endpoint, entry_id, self.broker.encode(message, self.lease), after)

    def put(self, endpoint: Endpoint, message: Message, *, also: Endpoint | None = None) -> Batch:
        """Set a latest value and tell those who watch it. also: keep it under this key, too, which nobody watches."""
        self.broker.check(endpoint, Kind.LATEST, message)
        expires = (
            ""
            if endpoint.expires_s is None or endpoint.key.startswith("info/scan/")
            else _ms(endpoint.expires_s)
        )
        payload = self.broker.encode(message, self.lease)
        if also is not None:
            self.broker.check(also, Kind.LATEST, message)
            self._add("s", also, "" if also.expires_s is None else _ms(also.expires_s), payload, "")
        return self._add("s", endpoint, expires, payload, "1")

    def broadcast(self, endpoint: Endpoint, message: Message) -> Batch:
        """Publish; whoever does not listen misses it."""
        self.broker.check(endpoint, Kind.BROADCAST, message)
        return self._add("p", endpoint, "", self.broker.encode(message, self.lease), "")

    def cursor(self, role: str, endpoint: Endpoint, entry_id: str) -> Batch:
        """Remember how far a role has read a stream. `Broker.cursors` gives it back."""
        self.operations += ("h", self.broker.cursor_key(role), endpoint.key, entry_id, "")
        return self

    def expire(self, endpoint: Endpoint, seconds: float) -> Batch:
        """Let the key vanish after a while, counted from now."""
        return self._add("t", endpoint, _ms(seconds), b"", "")

    def seal(self, endpoint: Endpoint, keep_s: float) -> Batch:
        """Leave a mark which outlives the stream: `append_at(after="0-0")` is refused even when the stream
        itself has expired.
        """
        self.operations += ("s", self.broker.key(endpoint) + ":sealed", _ms(keep_s), b"1", "")
        return self

    def delete(self, endpoint: Endpoint) -> Batch:
        return self._add("d", endpoint, "", b"", "")

    def commit(self) -> list[str]:
        """Write everything; the ids of the appended entries, in order (empty if a repeat was recognised).

        Raises Fenced or StreamConflict, in which case nothing was written, and BrokerError when Redis stays
        out of reach. With a lease a lost connection is retried. Without one it is not, and what did not reach Redis
        within `answer_timeout_s` is not written later either; the caller's request ids make a repeat harmless.
        """
        if not self.operations:
            return []
        return self.broker.commit(self.operations, self.lease)

    def _add(self, letter: str, endpoint: Endpoint, a: str, payload: bytes, c: str) -> Batch:
        self.operations += (letter, self.broker.key(endpoint), a, payload, c)
        return self


class Broker:
    """The verbs.

    connect, longest_block_s: for tests that bring their own client (fakeredis), whose blocking reads cannot be woken.
    """

    def __init__(
        self,
        settings: RedisSettings,
        deployment: str,
        sender: Sender,
        *,
        clock: Clock | None = None,
        connect: Callable[[], redis.Redis] | None = None,
        longest_block_s: float = MAX_BLOCK_S,
    ):
        self.settings = settings
        self.deployment = deployment
        self.sender = sender
        self.clock: Clock = clock or SystemClock()
        self.longest_block_s = longest_block_s
        self._connect = connect
        self.redis = self.connect_own()
        self._blocking: redis.Redis | None = None
        self._quick: redis.Redis | None = None
        self._commit = self.redis.register_script(scripts.COMMIT)
        self._claim = self.redis.register_script(scripts.CLAIM)
        self._prefix = f"bec:{deployment}:"
        self._closing = False
        # Do reads wait for a lost connection, as batches under a lease do (services), and how long if not (clients)?
        self.is_patient = False
        self.patience_s = 0.0
        # Does a patient broker wait for as long as it takes (a service that runs), or for `give_up_after_s`?
        self.endures = False
        self._give_up_at: float | None = None
        self._away_since: float | None = None
        self._waiting: weakref.WeakSet[Waiting] = weakref.WeakSet()
        # The server's clock less our monotonic one, and when that was found out.
        self._ahead_s: float | None = None
        self._compared = 0.0

    # Keys

    def key(self, endpoint: Endpoint) -> str:
        """The full key in Redis."""
        if "{" in endpoint.key:
            raise EndpointError(
                f"endpoint {endpoint.key} still has placeholders; call it with {endpoint.placeholders}"
            )
        return self._prefix + endpoint.key

    def cursor_key(self, role: str) -> str:
        return f"{self._prefix}internal/cursors/{role}"

    def check(self, endpoint: Endpoint, kind: Kind, message: Message | None = None) -> None:
        """Raises EndpointError if the endpoint is of another kind or does not carry this message."""
        if endpoint.kind is not kind:
            raise EndpointError(f"{endpoint.key} is a {endpoint.kind}, not a {kind}")
        if message is not None and type(message) not in endpoint.messages:
            raise EndpointError(f"{endpoint.key} does not carry {type(message).__name__}")

    def encode(self, message: Message, lease: Lease | None = None) -> bytes:
        sender = self.sender
        return codec.encode(
            message,
            Envelope(
                PROTOCOL_VERSION,
                type(message).msg_type,
                new_id(self.clock),
                sender.service,
                sender.instance,
                lease.epoch if lease else 0,
                sender.user,
                sender.account,
                self.now(),
            ),
        )

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC by the server's clock, which is one for all hosts; by ours if it was never asked.

        All ages of messages are by this clock: `broker.now() - item.envelope.sent` holds across hosts whose clocks differ.
        """
        return self.clock.now() if self._ahead_s is None else self.clock.monotonic() + self._ahead_s

    def compare_clocks(self, older_than_s: float = 0.0) -> None:
        """Ask the server what time it is, if that was done longer ago than this. Raises BrokerError."""
        before = self.clock.monotonic()
        if self._ahead_s is not None and before - self._compared < older_than_s:
            return
        try:
            seconds, micros = cast("tuple[int, int]", self._reading(self.redis.time))
        except BrokerError as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                log.warning("%s Ages of messages are by this host's clock.", error)
                return
            raise
        after = self.clock.monotonic()
        self._ahead_s = seconds + micros / 1e6 - (before + after) / 2
        self._compared = after

    # Writing

    def batch(self, lease: Lease | None = None) -> Batch:
        return Batch(self, lease)

    def append(self, endpoint: Endpoint, message: Message) -> str:
        """Append to a stream; the entry's id."""
        return self.batch().append(endpoint, message).commit()[0]

    def put(self, endpoint: Endpoint, message: Message) -> None:
        """Set a latest value."""
        self.batch().put(endpoint, message).commit()

    def broadcast(self, endpoint: Endpoint, message: Message) -> None:
        self.batch().broadcast(endpoint, message).commit()

    def commit(self, operations: list[Any], lease: Lease | None) -> list[str]:
        if lease is not None:
            with lease.mutex:
                lease.sequence += 1
                arguments = [str(lease.epoch), str(lease.sequence), *operations]
                crash_points.reached(lease.before_commit)
                words = _words(self._persist(lambda: self._commit(keys=[lease.key], args=arguments)))
                crash_points.reached(lease.after_commit)
        else:
            words = self._commit_in_time(operations)
        match words[0]:
            case "ok":
                return words[1:]
            case "repeated":
                return []
            case "fenced":
                raise Fenced(
                    f"another {lease.role if lease else 'writer'} has taken over (epoch {words[1] or 'none'}); "
                    "this process must end"
                )
            case _:
                raise StreamConflict(f"{words[1]} is at {words[2]}, expected {words[3]}; nothing was written")

    def _commit_in_time(self, operations: list[Any]) -> list[str]:
        """Without a lease: what comes out of the network after its sender was told that it failed has no effect."""
        if self._ahead_s is not None:
            self.compare_clocks(CLOCK_AGE_S)
        for _ in range(2):
            sent = self.clock.monotonic()
            until = (
                ""
                if self._ahead_s is None
                else str(int((sent + self._ahead_s + self.settings.answer_timeout_s) * 1000))
            )
            arguments = ["", until, *operations]
            words = _words(self._guarded(lambda a=arguments: self._commit(keys=[""], args=a)))  # type: ignore[misc]
            if words[0] != "late":
                return words
            # It has answered in time, so that the clocks were not what we took them for.
            self.compare_clocks()
        raise BrokerError(
            f"Redis at {self.settings.address()} received this {self.settings.answer_timeout_s:g} s too late, or its clock "
            "is being set; nothing was written. Try again."
        )

    def acquire_lease(self, role: str) -> Lease:
        """Become the one writer of a role. Whoever held it before is fenced off from now on."""
        key = f"{self._prefix}internal/leases/{role}"
        claim = f"{self.sender.instance} {new_id(self.clock)}"
        while True:
            known = cast("bytes | None", self._reading(lambda: self.redis.hget(key, "epoch"))) or b"0"
            arguments = [self.sender.instance, claim, known]
            epoch = int(cast(Any, self._reading(lambda a=arguments: self._claim(keys=[key], args=a))))  # type: ignore[misc]
            if epoch:
                return Lease(role, key, epoch)

    # Reading

    def get(self, endpoint: Endpoint) -> Delivery | None:
        """The latest value, or None. Raises MessageError if what stands there is no message of this endpoint."""
        return self.get_many([endpoint])[0]

    def get_many(self, endpoints: Iterable[Endpoint], *, quickly: bool = False) -> list[Delivery | None]:
        """Several latest values in one round trip. quickly: raise BrokerError if there is no answer within `LOOK_S`."""
        wanted = list(endpoints)
        if not wanted:
            return []
        for endpoint in wanted:
            self.check(endpoint, Kind.LATEST)
        keys = [self.key(endpoint) for endpoint in wanted]
        if quickly:
            if self._quick is None:
                self._quick = self.connect_own(LOOK_S)
            quick = self._quick
            raw = self._guarded(lambda: quick.mget(keys))
        else:
            raw = self._reading(lambda: self.redis.mget(keys))
        result: list[Delivery | None] = []
        for endpoint, data in zip(wanted, cast("list[bytes | None]", raw), strict=True):
            if data is None:
                result.append(None)
                continue
            item = self.decode(endpoint, "", data)
            if isinstance(item, Malformed):
                raise item.error
            result.append(item)
        return result

    def read(
        self, cursors: Mapping[Endpoint, str], block_s: float | None = None, count: int = 1000
    ) -> list[Delivery | Malformed]:
        """What stands in the streams after the cursors ("0": from the beginning), oldest first within each
        stream.

        block_s: wait up to this long (at most `longest_block_s`) if there is nothing; None: do not wait.
        """
        if not cursors:
            raise EndpointError("read needs at least one stream")
        by_key = {self.key(endpoint).encode(): endpoint for endpoint in cursors}
        streams = {self.key(endpoint): cursor for endpoint, cursor in cursors.items()}
        block = None if block_s is None else max(1, int(min(block_s, self.longest_block_s) * 1000))
        client = self.redis
        if block is not None and block > self.settings.answer_timeout_s * 500:
            if self._blocking is None:
                self._blocking = self.connect_own(self.longest_block_s + self.settings.answer_timeout_s)
            client = self._blocking
        reply = self._reading(lambda: client.xread(cast(Any, streams), count=count, block=block))
        return self._entries(by_key, reply)

    def entries(
        self,
        endpoint: Endpoint,
        *,
        first: str = "-",
        last: str = "+",
        count: int | None = None,
        newest: bool = False,
    ) -> list[Delivery | Malformed]:
        """A range of a stream. newest: count from the end; the result is oldest first all the same."""
        self.check(endpoint, Kind.STREAM)
        key = self.key(endpoint)
        if newest:
            raw = self._reading(lambda: self.redis.xrevrange(key, last, first, count=count))
            rows = list(reversed(cast("list[Any]", raw)))
        else:
            rows = cast("list[Any]", self._reading(lambda: self.redis.xrange(key, first, last, count=count)))
        return [self.decode(endpoint, _text(entry_id), fields.get(FIELD, b"")) for entry_id, fields in rows]

    def last_id(self, endpoint: Endpoint) -> str:
        """The id of a stream's last entry, "0-0" if it is empty: read after it to see only what is new."""
        rows = cast("list[Any]", self._reading(lambda: self.redis.xrevrange(self.key(endpoint), count=1)))
        return _text(rows[0][0]) if rows else "0-0"

    def cursors(self, role: str) -> dict[str, str]:
        """Endpoint key -> how far the role has read, as committed by `Batch.cursor`."""
        raw = self._reading(lambda: self.redis.hgetall(self.cursor_key(role)))
        return {_text(key): _text(value) for key, value in cast("dict[bytes, bytes]", raw).items()}

    def decode(self, endpoint: Endpoint, entry_id: str, data: bytes) -> Delivery | Malformed:
        try:
            message, envelope = codec.decode(data)
            if type(message) not in endpoint.messages:
                error = UnsupportedMessage(
                    f"{endpoint.key} does not take messages of type {envelope.msg_type!r}"
                )
                error.body = dict(message.__dict__)
                raise error
        except MessageError as error:
            return Malformed(endpoint, entry_id, error)
        return Delivery(endpoint, entry_id, message, envelope)

    # The server

    def connect_own(self, timeout_s: float | None = None) -> redis.Redis:
        """A further client with connections of its own, for a thread that blocks. timeout_s: after which a call has
        failed; None: `answer_timeout_s`.
        """
        if self._connect is not None:
            return self._connect()
        return _connect(self.settings, timeout_s or self.settings.answer_timeout_s)

    def add_waiting(self, waiting: Waiting) -> None:
        """Have it connect again whenever another call was not answered. Held weakly."""
        self._waiting.add(waiting)

    def wait_until_reachable(self, timeout_s: float, *, though_silent: bool = True) -> None:
        """Raises BrokerError with the reason if Redis does not answer in time; a refused log-in fails at once, and so
        does, unless `though_silent`, a network that swallows what is sent: that is not a server that is being started.
        Compares the clocks.
        """
        deadline = self.clock.monotonic() + timeout_s
        delay = 0.01
        while True:
            try:
                self._guarded(self.redis.ping)
                self.compare_clocks()
                return
            except BrokerError as error:
                left = deadline - self.clock.monotonic()
                is_silent = isinstance(error.__cause__, redis.TimeoutError)
                if left <= 0 or "log-in" in error.message or (is_silent and not though_silent):
                    raise
                time.sleep(min(delay, left))
                delay = min(delay * 2, 0.5)

    def server_warnings(self) -> list[str]:
        """What about the server's settings endangers data, as sentences; empty if all is well."""
        try:
            config = cast(
                "dict[str, str]",
                {
                    **cast(Any, self.redis.config_get("appendonly")),
                    **cast(Any, self.redis.config_get("maxmemory-policy")),
                    **cast(Any, self.redis.config_get("appendfsync")),
                },
            )
        except redis.RedisError as error:
            return [
                f"Redis at {self.settings.address()} does not tell its settings ({error}); check that appendonly is yes"
            ]
        found = []
        if config.get("appendonly") != "yes":
            found.append(
                f"Redis at {self.settings.address()} runs without its append-only file: everything acknowledged is lost "
                "when it ends. Set `appendonly yes` in its configuration."
            )
        if config.get("maxmemory-policy") != "noeviction":
            found.append(
                f"Redis at {self.settings.address()} may throw away data when its memory is full. "
                "Set `maxmemory-policy noeviction`."
            )
        if config.get("appendfsync") == "everysec":
            found.append(
                f"Redis at {self.settings.address()} has `appendfsync everysec`, which can lose acknowledged writes when "
                "it is killed. Set `always`, or `no` with a supervisor that syncs the file."
            )
        return found

    def give_up(self) -> None:
        """The process is to end: from now on nothing waits longer than `END_S` for a broker that is away. Safe in a
        signal handler.
        """
        self._give_up_at = self.clock.monotonic() + END_S

    def close(self) -> None:
        self._closing = True
        for client in (self.redis, self._blocking, self._quick):
            if client is not None:
                client.close()

    def _entries(self, by_key: Mapping[bytes, Endpoint], reply: Any) -> list[Delivery | Malformed]:
        found: list[Delivery | Malformed] = []
        if not reply:
            return found
        items = reply.items() if isinstance(reply, dict) else reply
        for key, chunks in items:
            endpoint = by_key[key]
            # RESP3 gives {key: [[entries]]}, RESP2 [(key, [entries])].
            rows = chunks[0] if isinstance(reply, dict) else chunks
            for entry_id, fields in rows:
                found.append(self.decode(endpoint, _text(entry_id), fields.get(FIELD, b"")))
        return found

    def _reading(self, call: Callable[[], Any]) -> Any:
        if self.is_patient:
            return self._persist(call)
        return self._persist(call, self.patience_s) if self.patience_s > 0 else self._guarded(call)

    def _persist(self, call: Callable[[], Any], patience_s: float | None = None) -> Any:
        """Repeat over lost connections: so long, else until `give_up_after_s`, or without end if the broker `endures`.
        Only for calls that may be repeated.
        """
        begun = self.clock.monotonic()
        deadline: float | None = begun + (self.settings.give_up_after_s if patience_s is None else patience_s)
        if self.endures and patience_s is None:
            deadline = None
        delay = 0.02
        while True:
            try:
                reply = self._guarded(call)
            except BrokerError as error:
                if (
                    not isinstance(error.__cause__, redis.ConnectionError | redis.TimeoutError | OSError)
                    or self._closing
                ):
                    raise
                if self._away_since is None:
                    self._away_since = begun
                    if self.endures:
                        log.warning("%s Work goes on when it is back.", error)
                if isinstance(error.__cause__, redis.AuthenticationError) and deadline is None:
                    # The new password may be on its way to its file.
                    deadline = self.clock.monotonic() + self.settings.give_up_after_s
                next_at = self.clock.monotonic() + delay
                if any(end is not None and next_at > end for end in (deadline, self._give_up_at)):
                    raise
                # What else lies in the pool is as dead as this one was; and after a cut an old connection takes as long
                # again to come to life, a new one does not.
                self.redis.connection_pool.disconnect(inuse_connections=False)
                if isinstance(error.__cause__, redis.TimeoutError):
                    for waiting in list(self._waiting):
                        waiting.hang_up()
                time.sleep(delay)
                delay = min(delay * 2, 0.5)
                continue
            since, self._away_since = self._away_since, None
            if since is not None and self.endures:
                log.warning(
                    "Redis at %s is back; it was away for %.1f s",
                    self.settings.address(),
                    self.clock.monotonic() - since,
                )
            return reply

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Run a redis call; errors come out in words."""
        try:
            return call()
        except redis.RedisError as error:
            raise self.explain(error) from error
        except OSError as error:
            raise BrokerError(f"Redis at {self.settings.address()} cannot be used: {error}") from error

    def explain(self, error: redis.RedisError) -> BECError:
        """A redis-py exception as a sentence that says what to do."""
        where = self.settings.address()
        text = str(error).rstrip(".")
        if isinstance(error, redis.AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
            return BrokerError(
                f"Redis at {where} refuses the log-in: {text}. Check `username` and `password_file` in the service configuration."
            )
        if isinstance(error, redis.BusyLoadingError):
            return BrokerError(f"Redis at {where} is still loading its data; try again in a moment.")
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return BrokerError(
                f"Redis at {where} cannot be reached ({text}). Is it running? "
                "`bec-server start` starts one if no `redis:` is configured."
            )
        if "OOM" in text:
            return BrokerError(
                f"Redis at {where} is out of memory; nothing was written. Raise `maxmemory` or free some."
            )
        if "NOPERM" in text:
            return BrokerError(f"Redis at {where} does not permit this: {text}")
        return BrokerError(f"Redis at {where} refused: {text}")


class _FromFile(CredentialProvider):
    """Name and password for each log-in anew, so that a password can be changed while services run."""

    def __init__(self, settings: RedisSettings):
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        secret = self._settings.secret() or ""
        return (self._settings.username, secret) if self._settings.username else (secret,)


def _connect(settings: RedisSettings, timeout_s: float) -> redis.Redis:
    # redis-py's own default would retry for seconds.
    common: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(settings.connect_timeout_s, timeout_s),
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "db": settings.db,
    }
    try:
        secret = settings.secret()
        if settings.password_file is not None:
            common["credential_provider"] = _FromFile(settings)
        elif settings.username or secret:
            common["username"] = settings.username
            common["password"] = secret
    except OSError as error:
        raise BrokerError(
            f"the password for Redis cannot be read from {settings.password_file}: {error.strerror or error}; put it there, "
            "or correct `password_file` under `redis:` in the service configuration"
        ) from error
    ca_file = settings.tls_ca_file
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        why = "cannot be read by this user" if ca_file.exists() else "does not exist"
        raise BrokerError(
            f"{ca_file}, by which Redis is to prove who it is, {why}; put it there, or correct `tls_ca_file` under `redis:` "
            "in the service configuration"
        )
    if settings.sentinel:
        from redis.sentinel import Sentinel

        nodes = [(name.rsplit(":", 1)[0], int(name.rsplit(":", 1)[1])) for name in settings.sentinel]
        return cast(
            redis.Redis,
            Sentinel(nodes, socket_timeout=settings.connect_timeout_s).master_for(
                settings.sentinel_name, **common
            ),
        )
    if settings.tls or ca_file:
        common["ssl"] = True
        common["ssl_ca_certs"] = str(ca_file) if ca_file else None
    if settings.unix_socket:
        return redis.Redis(unix_socket_path=settings.unix_socket, **common)
    if settings.url:
        common.pop("ssl", None)
        if "db" in common and not common["db"]:
            common.pop("db")
        try:
            return redis.Redis.from_url(settings.url, **common)
        except ValueError as error:
            raise BrokerError(f"`redis:` is not a usable address: {settings.url!r}: {error}") from error
    return redis.Redis(host=settings.host, port=settings.port, **common)


def _words(reply: Any) -> list[str]:
    return [_text(item) for item in cast("list[Any]", reply)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _ms(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))
