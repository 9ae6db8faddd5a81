"""The service configuration: one YAML file that every process of a deployment reads.

Which file: `--config`, else the environment's BEC_CONFIG, else `bec.yaml` in the working folder, else
`~/.config/bec/services.yaml`, else defaults (a deployment called "default" with its own private Redis). Opens
no connection.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bec_lib.broker.settings import RedisSettings
from bec_lib.codec import describe_validation
from bec_lib.errors import ConfigError, ParameterError
from bec_lib.expressions import parse
from bec_lib.messages import InterlockConfig

# A unix socket's path must fit into sockaddr_un.
_SOCKET_PATH_LIMIT = 100


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileWriterConfig(_Section):
    """base_path: where files go, `$account` in it is replaced; None: `data_path`. plugin: the file format.
    flush_s: how often the growing file is flushed at least, seconds."""

    base_path: Path | None = None
    plugin: str = "nexus"
    flush_s: float = Field(0.1, gt=0, le=1.0)
    compression: Literal["none", "lz4", "gzip"] = "none"


class SourceConfig(_Section):
    """The radiation source, as written to NXsource. Nothing of it is guessed."""

    name: str = ""
    type: str = "Synchrotron X-ray Source"
    probe: str = "x-ray"


class FacilityConfig(_Section):
    """Where the instrument stands: goes into every file."""

    instrument: str = ""
    source: SourceConfig = SourceConfig()


class LogConfig(_Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    file_mb: float = 20.0
    files: int = 5


class SciHubConfig(_Section):
    """database: an SQLAlchemy URL; None: SQLite in the deployment's folder."""

    database: str | None = None


class DataPipelineConfig(_Section):
    """processes: how many fits run at the same time, each in a process of its own. refit_s: how often a live
    fit is refreshed at most.
    """

    processes: int = Field(1, ge=1, le=64)
    refit_s: float = Field(0.25, ge=0.0)


class InterlockSection(InterlockConfig):
    """An interlock that is always there; clients can disable it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("trips_when", "clears_when")
    @classmethod
    def _is_a_condition(cls, value: str) -> str:
        if value:
            try:
                parse(value)
            except ParameterError as error:
                raise ValueError(error.message) from None
        return value


# Settings that are paths, by section, "" for those of no section.
_PATHS = {
    "": ("state_path", "data_path"),
    "redis": ("password_file", "tls_ca_file", "unix_socket"),
    "file_writer": ("base_path",),
}


class ServiceConfig(_Section):
    """Everything that differs from deployment to deployment.

    deployment: goes into every key, so that several can share a Redis. redis: None for the embedded server.
    state_path: sockets, logs, the embedded Redis's data, the database; data_path: scan files.
    source_file: where this was read from, None for defaults.
    """

    deployment: str = "default"
    redis: RedisSettings | None = None
    state_path: Path | None = None
    data_path: Path | None = None
    facility: FacilityConfig = FacilityConfig()
    file_writer: FileWriterConfig = FileWriterConfig()
    recovery: Literal["resume", "pause", "abort"] = "resume"
    log: LogConfig = LogConfig()
    scihub: SciHubConfig = SciHubConfig()
    data_pipeline: DataPipelineConfig = DataPipelineConfig()
    interlocks: list[InterlockSection] = []
    acl: dict[str, Any] = {}
    device_servers: list[str] = ["main"]
    source_file: Path | None = None
    # Sections of the released BEC that mean nothing here; accepted so that its files can be used as they are.
    log_writer: Any = None
    user_macros: Any = None
    user_scripts: Any = None
    widgets_settings: Any = None
    atlas: Any = None
    scilog: Any = None
    procedures: Any = None
    abort_on_ctrl_c: bool | None = None

    @field_validator("deployment")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value or not all(c.isalnum() or c in "-_." for c in value):
            raise ValueError("may have letters, digits, '-', '_' and '.' only")
        return value

    @property
    def state_folder(self) -> Path:
        if self.state_path is not None:
            return self.state_path
        home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return Path(home) / "bec" / self.deployment

    @property
    def data_folder(self) -> Path:
        """Where scan files go."""
        return self.file_writer.base_path or self.data_path or self.state_folder / "data"

    @property
    def log_folder(self) -> Path:
        return self.state_folder / "logs"

    @property
    def is_embedded(self) -> bool:
        return self.redis is None

    @property
    def embedded_socket(self) -> Path:
        """The embedded server's socket: in the state folder, or, if that path is too long for one, in /tmp (not
        in TMPDIR: every process of the deployment must find it, and it may be long, too).
        """
        path = self.state_folder / "redis.sock"
        if len(str(path)) <= _SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path("/tmp") / f"bec-{os.getuid()}-{digest}" / "redis.sock"

    @property
    def broker_settings(self) -> RedisSettings:
        return self.redis or RedisSettings(unix_socket=str(self.embedded_socket), persistence="no")


def load_service_config(
    path: str | Path | None = None, environment: Mapping[str, str] | None = None
) -> ServiceConfig:
    """The configuration in force; `path` as given by `--config`.

    Relative paths in the file are relative to the file. BEC_REDIS_HOST ("host" or "host:port") overrides the
    server.
    Raises ConfigError naming the file, the line where possible, and all problems at once.
    """
    environment = os.environ if environment is None else environment
    named = path or environment.get("BEC_CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(
                f"the service configuration {file} does not exist (given by {'--config' if path else 'BEC_CONFIG'})"
            )
    else:
        candidates = [Path("bec.yaml"), Path.home() / ".config" / "bec" / "services.yaml"]
        file = next((candidate for candidate in candidates if candidate.is_file()), Path())
    values: dict[str, Any] = {}
    if file != Path():
        values = _read(file)
        folder = file.resolve().parent
        for section, keys in _PATHS.items():
            found = values.get(section) if section else values
            if isinstance(found, dict):
                for key in keys:
                    if isinstance(found.get(key), str) and found[key]:
                        found[key] = str(folder / Path(found[key]).expanduser())
        values["source_file"] = file.resolve()
    host = environment.get("BEC_REDIS_HOST")
    if host:
        name, _, port = host.partition(":")
        values["redis"] = {"host": name, **({"port": port} if port else {})}
    try:
        return ServiceConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"the service configuration {file} cannot be used: "
            f"{describe_validation(error, ServiceConfig.model_fields)}"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}{where}: this is not YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, not a {type(values).__name__}")
    return values
