"""What is known of the devices? Their session, limits and positions, the lives of their servers, and the account.

Reads Redis when it is asked to, as often as requests need it. Changes nothing; reconfiguration.py does.
"""

from __future__ import annotations

import logging

from pydantic import ValidationError

from bec_lib.devices.registry import Registry
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import MessageError
from bec_lib.messages import DeviceSessionMessage
from bec_lib.service import Service
from scan_server.restore import patiently

log = logging.getLogger(__name__)


class Facts:
    """session: in force; None before the first. registry: its devices with what is known of them."""

    def __init__(self, service: Service):
        self._broker = service.broker
        self._servers = list(service.config.device_servers)
        self.session: DeviceSessionMessage | None = None
        self.registry = Registry()
        self.account = ""
        # Of the device servers: life, version of the session, how often they loaded it.
        self._lives: dict[str, tuple[str, int, int]] = {}

    def load(self) -> None:
        """The session in Redis, and all that is known of its devices."""
        try:
            found = self._broker.get(MessageEndpoints.device_session)
        except MessageError as error:
            log.error("the device session in Redis cannot be read: %s", error)
            return
        if found is not None:
            self.put_in_force(found.message)

    def put_in_force(self, session: DeviceSessionMessage) -> None:
        self.session = session
        try:
            self.registry = Registry.of_session(session)
        except ValidationError as error:
            log.error("the device session in Redis holds what is no device: %s", error)
            self.registry = Registry()
        self.refresh(list(self.registry))

    def refresh(self, names: list[str]) -> None:
        """Ask for what is known of these devices, and for the account, in one round trip. If a device server has begun
        a new life or a new session meanwhile, ask for all devices.
        """
        servers = [MessageEndpoints.device_server_info(server) for server in self._servers]
        infos = [MessageEndpoints.device_info(name) for name in names]
        readbacks = [MessageEndpoints.device_readback(name) for name in names]
        try:
            wanted = [MessageEndpoints.account, *servers, *infos, *readbacks]
            found = patiently(self._broker, lambda: self._broker.get_many(wanted))
        except MessageError as error:
            log.error("what is known of the devices cannot be read: %s", error)
            return
        account, *known = [item.message if item else None for item in found]
        self.account = account.account if account else ""
        lives = {
            life.server: (life.boot_id, life.session_version, life.loads)
            for life in known[: len(servers)]
            if life
        }
        told, read = known[len(servers) : len(servers) + len(names)], known[len(servers) + len(names) :]
        self.registry = self.registry.with_facts(
            {name: info for name, info in zip(names, told, strict=True) if info is not None},
            {name: reading for name, reading in zip(names, read, strict=True) if reading is not None},
        )
        if lives != self._lives:
            self._lives = lives
            self.refresh(list(self.registry))

    def highest_epoch(self) -> int:
        """Of the runs that the device servers have heard of."""
        found = self._broker.get_many(
            [MessageEndpoints.device_server_info(server) for server in self._servers]
        )
        return max((item.message.run_epoch for item in found if item is not None), default=0)
