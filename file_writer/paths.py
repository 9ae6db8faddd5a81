"""Names beside a scan's master file: the one under which it is made, and the ones to fall back to.

Answers with paths only; the scheme of the master file itself is in `bec_lib.file_paths`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Hidden, so that whoever lists the folder or matches *.h5 does not find a file that cannot be opened yet.
_TEMPORARY = ".{name}.{mark}.tmp"
_IN_TEXT = re.compile(r"/\.([^/\s]+?)\.[\w-]+\.tmp\b")


def temporary_path(master: Path, mark: str) -> Path:
    """A hidden name in the same folder, so that renaming stays within one file system. mark: tells processes
    and attempts apart.
    """
    return master.with_name(_TEMPORARY.format(name=master.name, mark=mark))


def with_final_names(text: str) -> str:
    """A sentence for people, in which temporary files have the names of their master files."""
    return _IN_TEXT.sub(r"/\1", text)


def leftover_pattern(master: Path) -> str:
    """Matches what writers that were killed left of the temporary files of a master file."""
    return _TEMPORARY.format(name=master.name, mark="*")


def alternatives(master: Path) -> Iterator[Path]:
    """The path itself, then with _2, _3 ... before the ending, without end."""
    yield master
    number = 2
    while True:
        yield master.with_name(f"{master.stem}_{number}{master.suffix}")
        number += 1
