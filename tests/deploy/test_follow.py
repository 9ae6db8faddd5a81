"""Following log files."""

from __future__ import annotations

from pathlib import Path

from deploy.follow import follow


def test_new_lines_come_from_all_files_also_from_new_and_rotated_ones(tmp_path: Path) -> None:
    first = tmp_path / "a.log"
    first.write_text("old\n")
    (tmp_path / "other.txt").write_text("not a log\n")
    lines = follow(tmp_path)
    assert next(lines) == ("a.log", "old")

    def add(path: Path, text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    # The watch is set when the first line comes, so nothing written from here on is missed.
    add(first, "new\nhalf")
    assert next(lines) == ("a.log", "new")
    add(first, " line\n")
    assert next(lines) == ("a.log", "half line")
    add(tmp_path / "b.err", "trouble\n")
    assert next(lines) == ("b.err", "trouble")
    first.rename(tmp_path / "a.log.1")
    add(first, "after rotation\n")
    assert next(lines) == ("a.log", "after rotation")
    lines.close()
