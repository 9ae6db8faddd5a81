"""Where the files of a scan go, by the beamlines' scheme.

    <base>/<account>/S01000-01999/S01234[_suffix]/S01234_master[_suffix].h5

Answers with paths only: it does not know whether a file or folder exists, or may be written. `$account` in
the base stands for the account, which then gets no level of its own; without an account the level is left
out. A directory given by the user replaces the two levels below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bec_lib.errors import ParameterError
from bec_lib.messages import FileTarget

SCANS_PER_FOLDER = 1000
ACCOUNT = "$account"

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FOLDER = re.compile(r"[A-Za-z0-9_.-]+")
# A scan's folder or file; not the folder of a thousand scans, S01000-01999.
_SCAN = re.compile(r"S(\d{5,})(?![0-9-])")


def file_target(base: Path, account: str, number: int, suffix: str = "", directory: str = "") -> FileTarget:
    """The place of a scan's files.

    base: absolute, may have `$account` in it. account: "" for none. suffix: letters, digits, `_` and `-`.
    directory: relative, levels separated by `/`.
    Raises ParameterError, listing all problems, if a name has other characters or would lead out of the base,
    or if the number is not positive.
    """
    problems = []
    if not base.is_absolute():
        problems.append(f"the base folder {str(base)!r} must be an absolute path")
    if number < 1:
        problems.append(f"a scan number starts at 1, this is {number}")
    if account and not _is_level(account):
        problems.append(
            f"the account {account!r} cannot be a folder: it may have letters, digits, '_', '-' and '.' only"
        )
    if suffix and not _NAME.fullmatch(suffix):
        problems.append(f"the file suffix {suffix!r} may have letters, digits, '_' and '-' only")
    levels = [level for level in directory.split("/") if level]
    if directory.startswith("/") or ".." in levels:
        problems.append(
            f"the file directory {directory!r} leads out of {base}: give a path below it, without '..'"
        )
    elif not all(_is_level(level) for level in levels):
        problems.append(
            f"the file directory {directory!r} may have letters, digits, '_', '-', '.' and '/' only"
        )
    if problems:
        raise ParameterError("; ".join(problems))
    ending = f"_{suffix}" if suffix else ""
    name = _scan_name(number)
    if not levels:
        levels = [_thousand(number), name + ending]
    folder = _account_folder(base, account).joinpath(*levels)
    return FileTarget(stem=str(folder / name), suffix=ending)


def master_path(target: FileTarget) -> Path:
    """The scan's own file."""
    return Path(f"{target.stem}_master{target.suffix}.h5")


def detector_path(target: FileTarget, device: str) -> Path:
    """A detector's file, beside the master file. Raises ParameterError if the name cannot be part of a file name."""
    if not _NAME.fullmatch(device):
        raise ParameterError(
            f"the device name {device!r} cannot be part of a file name: it may have letters, digits, '_' and '-' only"
        )
    return Path(f"{target.stem}_{device}{target.suffix}.h5")


def scan_folder(base: Path, account: str) -> Path:
    """The folder below which the account's scans are found: the base with the account's level."""
    return _account_folder(base, account)


def numbers_in(names: Iterable[str]) -> int:
    """The highest scan number among names of scan folders and files (without their path); 0 if there is none."""
    found = (_SCAN.match(name) for name in names)
    return max((int(match.group(1)) for match in found if match), default=0)


def _account_folder(base: Path, account: str) -> Path:
    if ACCOUNT in str(base):
        parts = [part.replace(ACCOUNT, account) for part in base.parts]
        return Path(*[part for part in parts if part])
    return base / account if account else base


def _scan_name(number: int) -> str:
    return f"S{number:05d}"


def _thousand(number: int) -> str:
    first = number // SCANS_PER_FOLDER * SCANS_PER_FOLDER
    return f"S{first:05d}-{first + SCANS_PER_FOLDER - 1:05d}"


def _is_level(name: str) -> bool:
    return bool(_FOLDER.fullmatch(name)) and name not in (".", "..")
