"""A process that writes a growing file: for each line on standard input ten rows, flushed, then the number of
rows on standard output. Started by test_hdf5.

    python -m tests.file_writer.growing PATH [BYTES]

BYTES: no file may become larger (stands for a full disk).
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bec_lib.errors import StorageError
from file_writer.formats.nexus import NexusFormat
from file_writer.hdf5 import LiveFile, place
from file_writer.rows import row_arrays
from tests.file_writer.samples import STARTED, facts_of, points_of, schema_of


def main(path: Path, limit: int | None) -> None:
    schema = schema_of()
    temporary = path.with_suffix(".tmp")
    live = LiveFile(temporary, NexusFormat().layout(facts_of(schema)))
    live.start()
    place(temporary, path)
    print("open", flush=True)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for _ in sys.stdin:
        rows, _ = row_arrays([points_of(schema, live.rows, 10)], live.columns, {1: schema}, STARTED)
        try:
            live.append(rows)
            live.flush()
        except StorageError as error:
            print(f"failed: {error}", flush=True)
            # A full disk is full for files on it alone.
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            live.discard()
            print("goes on", flush=True)
            return
        print(live.rows, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
