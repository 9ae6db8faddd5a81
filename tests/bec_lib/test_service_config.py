"""Which configuration is in force, and what is said about one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bec_lib.broker import Broker, Sender
from bec_lib.errors import BrokerError, ConfigError
from bec_lib.service import load_service_config


def write(folder: Path, text: str, name: str = "services.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_there_is_a_private_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_service_config(environment={})
    assert config.is_embedded
    assert config.source_file is None
    assert config.broker_settings.unix_socket == str(config.embedded_socket)


def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    named = write(tmp_path, "deployment: a", "a.yaml")
    other = write(tmp_path, "deployment: b", "b.yaml")
    assert load_service_config(named, {"BEC_CONFIG": str(other)}).deployment == "a"
    assert load_service_config(None, {"BEC_CONFIG": str(other)}).deployment == "b"


def test_the_working_folder_comes_before_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / ".config" / "bec"
    home.mkdir(parents=True)
    write(home, "deployment: from-home")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(work)
    assert load_service_config(environment={}).deployment == "from-home"
    write(work, "deployment: from-work", "bec.yaml")
    assert load_service_config(environment={}).deployment == "from-work"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_service_config(write(tmp_path, "data_path: data\nstate_path: state"), {})
    assert config.data_folder == tmp_path / "data"
    assert config.log_folder == tmp_path / "state" / "logs"


@pytest.mark.parametrize(
    ("given", "meant"), [("secrets/x", "{folder}/secrets/x"), ("/etc/x", "/etc/x"), ("~/x", "{home}/x")]
)
@pytest.mark.parametrize("setting", ["password_file", "tls_ca_file", "unix_socket"])
def test_paths_of_redis_are_relative_to_the_file_too(
    tmp_path: Path, setting: str, given: str, meant: str
) -> None:
    config = load_service_config(write(tmp_path, f"redis:\n  {setting}: {given}\n"), {})
    assert str(getattr(config.redis, setting)) == meant.format(folder=tmp_path, home=Path.home())


def test_a_folder_for_files_of_its_own_is_relative_to_the_file(tmp_path: Path) -> None:
    config = load_service_config(write(tmp_path, "file_writer:\n  base_path: data/$account\n"), {})
    assert config.data_folder == tmp_path / "data" / "$account"


@pytest.mark.parametrize("setting", ["password_file", "tls_ca_file"])
def test_a_file_for_redis_that_is_not_there_is_named(tmp_path: Path, setting: str) -> None:
    config = load_service_config(write(tmp_path, f"redis:\n  {setting}: missing\n"), {})
    with pytest.raises(BrokerError, match=f"{tmp_path}/missing.*correct `{setting}`"):
        Broker(config.broker_settings, config.deployment, Sender("test", "test")).redis.ping()


def test_files_of_the_released_bec_can_be_used(tmp_path: Path) -> None:
    text = "redis:\n  host: localhost\n  port: 6379\nfile_writer:\n  plugin: default_NeXus_format\n  base_path: ./\n"
    config = load_service_config(
        write(tmp_path, text + "user_macros: {base_path: ./m}\nabort_on_ctrl_c: true\n"), {}
    )
    assert config.broker_settings.address() == "localhost:6379"


def test_an_url_may_stand_for_the_server(tmp_path: Path) -> None:
    config = load_service_config(write(tmp_path, "redis: rediss://ada:secret@broker:6380/0"), {})
    assert config.broker_settings.address() == "rediss://broker:6380/0"


def test_the_environment_may_name_the_server(tmp_path: Path) -> None:
    config = load_service_config(write(tmp_path, "deployment: x"), {"BEC_REDIS_HOST": "other:7000"})
    assert config.broker_settings.address() == "other:7000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deployment: [", "line 1, column"),
        ("- a\n- b", "mapping of settings, not a list"),
        ("deployment: a/b", "letters, digits"),
        ("deployement: x\nrediss: 3", "deployement: is not known; did you mean deployment.*rediss: .*redis"),
        ("redis: {hots: x}", "redis.hots"),
        ("recovery: maybe", "resume"),
    ],
)
def test_a_wrong_file_is_refused_with_all_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_service_config(write(tmp_path, text), {})


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist \(given by BEC_CONFIG"):
        load_service_config(None, {"BEC_CONFIG": str(tmp_path / "no.yaml")})


def test_a_socket_path_that_is_too_long_is_shortened(tmp_path: Path) -> None:
    config = load_service_config(write(tmp_path, f"state_path: {'long/' * 30}state"), {})
    assert len(str(config.embedded_socket)) < 108
    again = load_service_config(tmp_path / "services.yaml", {})
    assert again.embedded_socket == config.embedded_socket
