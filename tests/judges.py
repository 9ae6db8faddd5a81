"""Judges NeXus files with two independent validators, nexusformat's nxvalidate and pynxtools' pynx.

Run by `make judge FILE=...`. The validators live in an environment of their own, .venv-judges; this file
needs nothing but Python and may be imported from tests. Their exit codes say nothing (0 for most broken
files), so their words are read, and a file passes only if both say so: no answer, an unknown one and no
definition are failures.

Known blind spots: neither looks at the rank of a dataset, nxvalidate not at units, pynx not at missing
groups. pynx wants a `target` attribute at whatever a link points to, and has a definition of NXxas of its own
that rejects files which follow the official one.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = Path(__file__).parents[1] / ".venv-judges"
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Verdict:
    judge: str
    passed: bool
    complaints: tuple[str, ...]
    """What the judge found wrong, in its own words; all it said if that cannot be told."""


def read_nxvalidate(output: str) -> Verdict:
    """The verdict in the output of `nxvalidate -w`: passed with no warning, no error and a definition."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    totals = [int(n) for n in re.findall(r"Total number of (?:warnings|errors): (\d+)", text)]
    # One block of two totals for each entry judged.
    definitions = re.findall(r"^Application Definition: NX\w+", text, flags=re.MULTILINE)
    passed = bool(definitions) and len(totals) == 2 * len(definitions) and not any(totals)
    heading = re.compile(r"(Filename|Path|Definitions|Application Definition|NXDL File|Total number of \w+):")
    complaints = tuple(line for line in lines if not heading.match(line)) or tuple(lines)
    return Verdict("nxvalidate", passed, () if passed else complaints)


def read_pynx(output: str) -> Verdict:
    """The verdict in the output of `pynx validate`: passed if each entry is said to be valid."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    valid = [line for line in lines if "is valid according to" in line]
    refused = [line for line in lines if "is NOT valid" in line or line.startswith(("Traceback", "Error"))]
    passed = bool(valid) and not refused
    return Verdict("pynx", passed, () if passed else tuple(lines))


def judge(path: Path, environment: Path = ENVIRONMENT) -> list[Verdict]:
    """Both verdicts on the file; raises FileNotFoundError if there is no file or no judge."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file.")
    verdicts = []
    for read, command in (
        (read_nxvalidate, ["nxvalidate", "-w"]),
        (read_pynx, ["pynx", "validate", "--ignore-undocumented"]),
    ):
        program = environment / "bin" / command[0]
        if not program.exists():
            raise FileNotFoundError(f"{program} is missing: `make judge FILE={path}` installs the judges.")
        file = path.resolve()
        verdicts.append(read(_output_of([str(program), *command[1:], str(file)], file.parent)))
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge NeXus files with nxvalidate and pynx.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    failed = 0
    for path in parser.parse_args().files:
        try:
            verdicts = judge(path)
        except FileNotFoundError as error:
            print(f"judge: {error}", file=sys.stderr)
            return 2
        for verdict in verdicts:
            print(f"{path}: {verdict.judge}: {'passed' if verdict.passed else 'FAILED'}")
            for line in verdict.complaints or ([] if verdict.passed else ["it said nothing"]):
                print(f"    {line}")
            failed += not verdict.passed
    return 1 if failed else 0


def _output_of(command: list[str], folder: Path) -> str:
    # Wide, plain lines: neither judge shall wrap or colour what is read here.
    settings = {**os.environ, "NO_COLOR": "1", "COLUMNS": "1000", "HDF5_USE_FILE_LOCKING": "FALSE"}
    try:
        done = subprocess.run(
            command,
            # pynx takes the file of an external link as relative to where it runs.
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=settings,
            timeout=TIMEOUT_S,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Error: no verdict within {TIMEOUT_S:.0f} s"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
