"""The sample files that are handed out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from bec_lib.broker.settings import RedisSettings
from bec_lib.service import load_service_config
from bec_lib.service.config import ServiceConfig

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "services.yaml").read_text(encoding="utf-8")
# Read from the file itself, or a leftover of the released BEC which the file names in its last lines.
NOT_SHOWN = {"source_file", "acl"}


def defaults_of(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(exclude={"source_file"})


def test_what_the_sample_sets_is_what_holds_without_it() -> None:
    assert defaults_of(load_service_config(DEPLOY / "services.yaml", {})) == defaults_of(ServiceConfig())


@pytest.mark.parametrize(
    "name", sorted([*RedisSettings.model_fields, *(set(ServiceConfig.model_fields) - NOT_SHOWN)])
)
def test_every_setting_is_in_the_sample(name: str) -> None:
    assert re.search(rf"\b{name}\b", TEXT), f"deploy/services.yaml does not show {name}"


def test_the_redis_section_that_is_commented_out_is_right(tmp_path: Path) -> None:
    section = re.search(r"^# redis:\n((?:#   .*\n)+)", TEXT, re.MULTILINE)
    assert section is not None
    lines = [line.removeprefix("#   ") for line in section[1].splitlines()]
    found = RedisSettings.model_validate(yaml.safe_load("\n".join(lines)))
    assert found.password_file == Path("/etc/bec/redis-password")


def test_the_sample_for_redis_keeps_what_is_acknowledged() -> None:
    lines = (DEPLOY / "redis.conf").read_text(encoding="utf-8").splitlines()
    for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction", 'save ""'):
        assert line in lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize(
    ("unit", "instance"), [("bec@", "bec@x1"), ("bec-service@", "bec-service@scan-server")]
)
def test_the_systemd_units_are_right(unit: str, instance: str, tmp_path: Path) -> None:
    """With the programs put where the unit expects them, by way of a copy that names this environment."""
    programs = Path(sys.executable).parent
    text = (DEPLOY / "systemd" / f"{unit}.service").read_text(encoding="utf-8")
    assert "/opt/bec/bin/" in text
    copy = tmp_path / f"{instance}.service"
    copy.write_text(text.replace("/opt/bec/bin/", f"{programs}/"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert instance not in done.stderr, done.stderr
