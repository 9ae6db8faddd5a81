"""What the keeper looks after."""

from __future__ import annotations

from pathlib import Path

from deploy.keeper import append_only_files


def test_both_layouts_of_the_append_only_file_are_found(tmp_path: Path) -> None:
    assert append_only_files(tmp_path) == []
    (tmp_path / "appendonly.aof").write_bytes(b"")
    (tmp_path / "appendonlydir").mkdir()
    for name in ("appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest"):
        (tmp_path / "appendonlydir" / name).write_bytes(b"")
    assert [path.name for path in append_only_files(tmp_path)] == [
        "appendonly.aof",
        "appendonly.aof.1.incr.aof",
    ]
