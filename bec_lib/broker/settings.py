"""How to reach Redis. No connection is made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator


class RedisSettings(BaseModel):
    """The `redis:` section of the service configuration.

    url: redis://, rediss:// or unix://; else host and port. Paths in a configuration file are relative to it.
    password_file is read at every log-in, so that a
    password can be changed without touching the configuration. sentinel: "host:port" names of sentinels, with
    the service's name in sentinel_name.
    persistence: what is expected of appendfsync, see the operators' guide; services warn if the server says
    something else.
    connect_timeout_s: for one attempt. answer_timeout_s: a connection on which a call is not answered within that is
    taken to be dead; a cut network says nothing. give_up_after_s: how long a service that starts, and a client's
    request, go on trying; a service that runs waits for as long as it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    host: str = "localhost"
    port: int = 6379
    unix_socket: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    sentinel: list[str] = []
    sentinel_name: str = "bec"
    persistence: Literal["no", "everysec", "always"] | None = None
    connect_timeout_s: float = 2.0
    answer_timeout_s: float = 2.0
    give_up_after_s: float = 10.0

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    def secret(self) -> str | None:
        """The password, or None. Raises OSError if the password file cannot be read."""
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").strip()
        return self.password

    def address(self) -> str:
        """Where the server is, for messages; without any secret."""
        if self.sentinel:
            return f"{self.sentinel_name} (by sentinels {', '.join(self.sentinel)})"
        if self.unix_socket:
            return self.unix_socket
        if self.url:
            scheme, _, rest = self.url.partition("://")
            return f"{scheme}://{rest.rsplit('@', 1)[-1]}"
        return f"{self.host}:{self.port}"
