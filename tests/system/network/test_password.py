"""A password is changed while services run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bec_lib.broker import Broker, RedisSettings, Sender
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BrokerError
from bec_lib.messages import AccountMessage
from tests.system.network.hosts import PASSWORD, redis_on_tcp


def test_a_password_file_is_read_at_each_log_in(tmp_path: Path) -> None:
    server, port = redis_on_tcp(tmp_path / "redis")
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n", encoding="utf-8")
    broker = Broker(
        RedisSettings(host="127.0.0.1", port=port, password_file=file, give_up_after_s=0.2),
        "x",
        Sender("t", "a"),
    )
    try:
        broker.wait_until_reachable(20.0)
        broker.is_patient = broker.endures = True
        lease = broker.acquire_lease("scan_server")
        broker.redis.config_set("requirepass", "another")
        # Whoever knows the old password only is refused in the end: it may stand in another file.
        broker.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        with pytest.raises(BrokerError, match="refuses the log-in"):
            broker.batch(lease).put(MessageEndpoints.account, AccountMessage(account="a")).commit()
        file.write_text("another\n", encoding="utf-8")
        broker.batch(lease).put(MessageEndpoints.account, AccountMessage(account="b")).commit()
        found = broker.get(MessageEndpoints.account)
        assert found is not None and found.message.account == "b"
    finally:
        broker.close()
        server.kill()
        server.wait()
