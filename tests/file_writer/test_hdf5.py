from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_lib.errors import StorageError
from bec_lib.messages import ScanState
from file_writer import hdf5
from file_writer.formats.nexus import NexusFormat
from file_writer.hdf5 import LiveFile, Templates, WholeFiles
from file_writer.layout import Column, EndFacts, ExternalLink, Field, Group, ScanFacts, Source
from file_writer.rows import row_arrays
from tests.file_writer.samples import (
    COUNTER,
    DIODE,
    SAMX,
    SHUTTER,
    SPECTRUM,
    STARTED,
    facts_of,
    points_of,
    schema_of,
    status_of,
)

ROOT = Path(__file__).parents[2]
VALUE = "/entry/collection/devices/{0}/{0}/value"
NUMBER = Column(Source.VALUE, 0)


def written(
    path: Path, facts: ScanFacts, count: int, *, templates: Templates | None = None, **options: Any
) -> Path:
    """A final file with so many points."""
    root = NexusFormat().layout(facts)
    live = LiveFile(path, root, expected=facts.status.num_points, templates=templates, **options)
    live.fill({Column(Source.BASELINE_VALUE, 0): 1.5, Column(Source.BASELINE_TIMESTAMP, 0): STARTED})
    live.start()
    if count:
        points = points_of(facts.schema, 0, count)
        live.append(row_arrays([points], live.columns, {1: facts.schema}, facts.status.started)[0])
    live.close()
    end = EndFacts("closed", count, STARTED + 2.0, status_of(ScanState.CLOSED))
    hdf5.complete(path, NexusFormat().closing(facts, end), {}, root)
    return path


@contextmanager
def growing(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that writes a file; see `growing.py`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.file_writer.growing", str(path), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert said(process) == "open"
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ten_more(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said(process)


def test_a_final_file_opens_with_plain_h5py_and_holds_everything(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", facts_of(schema_of((SAMX, COUNTER, DIODE))), 3)

    with h5py.File(path) as file:
        assert file[VALUE.format("samx")][:].tolist() == [0.0, 1.0, 2.0]
        assert file[VALUE.format("counter")].dtype == np.int64
        assert file[VALUE.format("samx")].attrs["units"] == "mm"
        assert file[VALUE.format("samz")][()] == 1.5
        assert file["/entry/data/counter"] == file[VALUE.format("counter")]
        assert file["/entry/control/data"][:].tolist() == [0, 500_000_000, 1_000_000_000]
        assert file["/entry"].attrs["NX_class"] == "NXentry"
        assert file["/entry/end_time"][()] == b"2023-11-14T23:13:22.000000+01:00"
        assert file["/entry/collection/metadata/bec/status"].asstr()[()] == "closed"
        assert file["/entry/collection/metadata/bec/num_readouts"][()] == 3
        (row,) = file["/entry/collection/configuration"][:]
        assert (row["device"], row["signal"], row["value"]) == (b"samx", b"samx_velocity", b"2.5")


def test_texts_and_arrays_are_columns_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", facts_of(schema_of((SAMX, SPECTRUM, SHUTTER))), 3)

    with h5py.File(path) as file:
        assert file["/entry/collection/devices/mca/mca_spectrum/value"][:].tolist() == [
            [0] * 8,
            [1] * 8,
            [2] * 8,
        ]
        assert file[VALUE.format("shutter")].asstr()[:].tolist() == ["point 0", "point 1", "point 2"]


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_large_arrays_are_compressed_if_wanted(tmp_path: Path, compression: Any) -> None:
    spectrum = SPECTRUM.model_copy(update={"shape": [4096]})
    path = written(tmp_path / "a.h5", facts_of(schema_of((SAMX, spectrum))), 3, compression=compression)

    import hdf5plugin  # noqa: F401 - registers the filter

    with h5py.File(path) as file:
        data = file["/entry/collection/devices/mca/mca_spectrum/value"]
        assert data[:, 0].tolist() == [0, 1, 2]
        assert data.id.get_storage_size() < 3 * 4096 * 8 / 4
        assert data.id.get_create_plist().get_nfilters() > 0


def test_nothing_in_a_growing_file_is_of_variable_length_but_attributes(tmp_path: Path) -> None:
    live = LiveFile(tmp_path / "a.h5", NexusFormat().layout(facts_of(schema_of((SAMX, SHUTTER)))))
    live.close()
    variable = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "O":
            variable.append(name)

    with h5py.File(tmp_path / "a.h5") as file:
        file.visititems(look)
    assert variable == []


def test_structure_is_refused_once_the_file_grows(tmp_path: Path) -> None:
    """HDF5 does not refuse it: the file would break, or the process hang, when it is closed."""
    root = NexusFormat().layout(facts_of())
    live = LiveFile(tmp_path / "a.h5", root)
    live.start()

    with pytest.raises(StorageError, match="SWMR"):
        live.build(Group("", "", (Group("late"),)))
    with pytest.raises(StorageError, match="SWMR"):
        live.fill({Column(Source.BASELINE_VALUE, 0): 1.0})
    live.close()


def test_another_process_sees_the_rows_as_they_are_flushed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with growing(path) as process:
        with h5py.File(path, "r", swmr=True) as file:
            data = file[VALUE.format("samx")]
            assert len(data) == 0
            for expected in (10, 20, 30):
                assert ten_more(process) == str(expected)
                data.refresh()
                assert data[:].tolist() == [float(i) for i in range(expected)]
            assert file["/entry"].attrs["NX_class"] == "NXentry"
            assert file["/entry/title"].asstr()[()].startswith("scans.line_scan")
            assert file[VALUE.format("samx")].attrs["units"] == "mm"


def test_a_killed_writer_leaves_all_flushed_rows_to_swmr_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with growing(path) as process:
        for _ in range(70):  # more rows than one chunk has, so that the chunks' index grows, too
            last = ten_more(process)
        process.kill()
        process.wait()

    assert last == "700"
    with h5py.File(path, "r", swmr=True) as file:
        for device in ("samx", "counter", "diode"):
            assert file[VALUE.format(device)][:].tolist() == list(range(700))
        assert file["/entry/data"].attrs["signal"] == "counter"
    assert hdf5.text_in(path, "/entry/entry_identifier_uuid") == status_of().scan_id


def test_a_full_disk_is_told_in_words_and_the_process_lives_on(tmp_path: Path) -> None:
    """Without `_divert` the process ends by a segmentation fault when it closes the file."""
    path = tmp_path / "a.h5"
    answers = [""]
    with growing(path, "120000") as process:
        while not answers[-1].startswith("failed"):
            answers.append(ten_more(process))

        assert "a.tmp failed: File too large" in answers[-1]
        assert said(process) == "goes on"
        assert process.wait(timeout=20) == 0
    with h5py.File(path, "r", swmr=True) as file:
        flushed = int(answers[-2])
        assert file[VALUE.format("samx")][:flushed].tolist() == list(range(flushed))


def test_a_copy_of_a_template_is_the_same_file(tmp_path: Path) -> None:
    templates = Templates()
    schema = schema_of((SAMX, COUNTER, SHUTTER))
    first = status_of(
        scan_number=41,
        scan_id="the-first",
        args=["samx", -3, 3],
        user_metadata={"sample_name": "x", "run": 1},
    )
    written(tmp_path / "first.h5", facts_of(schema, first), 3, templates=templates)
    copied = written(tmp_path / "copied.h5", facts_of(schema), 3, templates=templates)
    made = written(tmp_path / "made.h5", facts_of(schema), 3)

    assert contents(copied) == contents(made)
    assert contents(copied) != contents(tmp_path / "first.h5")


def test_another_layout_is_no_copy(tmp_path: Path) -> None:
    templates = Templates()
    written(tmp_path / "a.h5", facts_of(schema_of((SAMX, COUNTER))), 1, templates=templates)
    changed = DIODE.model_copy(update={"unit": "uA"})
    for name, signals in (("b", (SAMX, DIODE)), ("c", (SAMX, changed)), ("d", (SAMX, DIODE, COUNTER))):
        facts = facts_of(schema_of(signals))
        copied = written(tmp_path / f"{name}.h5", facts, 1, templates=templates)
        made = written(tmp_path / f"{name}-made.h5", facts, 1)
        assert contents(copied) == contents(made)


def test_a_template_with_links_to_other_files_gets_the_new_ones(tmp_path: Path) -> None:
    templates = Templates()

    def linked(name: str) -> str:
        root = Group("", "NXroot", (Group("g", "", (ExternalLink("data", name, "/d"),)),))
        LiveFile(tmp_path / f"of-{name}", root, templates=templates).close()
        with h5py.File(tmp_path / f"of-{name}") as file:
            return str(file["g"].get("data", getlink=True).filename)

    assert [linked("S1_eiger.h5"), linked("S2_eiger.h5")] == ["S1_eiger.h5", "S2_eiger.h5"]


def test_templates_forget_the_oldest_when_they_are_too_many(tmp_path: Path) -> None:
    templates = Templates(keep_bytes=1)
    written(tmp_path / "a.h5", facts_of(), 1, templates=templates)
    written(tmp_path / "b.h5", facts_of(), 1, templates=templates)

    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")


SHUTTER_AND_ALL = (SAMX, COUNTER, DIODE, SPECTRUM, SHUTTER)
STARTED_BEFORE = "018bcfe5-6800-7000-8000-0000000000ff"


def test_a_file_written_in_one_go_is_the_same_as_one_that_grew(tmp_path: Path) -> None:
    schema = schema_of(SHUTTER_AND_ALL)
    facts = facts_of(schema)
    first = status_of(scan_number=41, scan_id=STARTED_BEFORE, args=["samx", -3, 3])
    other = facts_of(schema, first)
    root = NexusFormat().layout(facts)
    whole_files = WholeFiles()
    live = LiveFile(tmp_path / "live.tmp", root)
    rows, _ = row_arrays([points_of(schema, 0, 3)], live.columns, {1: schema}, STARTED)
    end = EndFacts("closed", 3, STARTED + 2.0, status_of(ScanState.CLOSED))
    closing = NexusFormat().closing(facts, end)
    scalars = {VALUE.format("samz"): 1.5, VALUE.format("samz").replace("value", "timestamp"): STARTED}
    path = tmp_path / "whole.h5"

    assert not whole_files.write(path, root, live.skeleton, rows, closing, scalars)
    whole_files.learn(tmp_path / "t.tmp", NexusFormat().layout(other), live.skeleton, 3)
    assert whole_files.write(path, root, live.skeleton, rows, closing, scalars)

    assert contents(path) == contents(written(tmp_path / "grown.h5", facts, 3))
    live.discard()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["grown.h5", "whole.h5"]
    # Readers that know the growing file open the final one in the same way.
    with h5py.File(path, "r", swmr=True) as file:
        assert file[VALUE.format("counter")][:].tolist() == [0, 1, 2]


def test_a_file_of_another_length_is_not_written_in_one_go(tmp_path: Path) -> None:
    schema = schema_of()
    root = NexusFormat().layout(facts_of(schema))
    whole_files = WholeFiles()
    live = LiveFile(tmp_path / "live.tmp", root)
    rows, _ = row_arrays([points_of(schema, 0, 2)], live.columns, {1: schema}, STARTED)
    whole_files.learn(tmp_path / "t.tmp", root, live.skeleton, 3)

    assert not whole_files.write(tmp_path / "whole.h5", root, live.skeleton, rows, {}, {})
    assert not whole_files.write(tmp_path / "whole.h5", root, live.skeleton, [], {}, {})
    live.discard()


def test_a_file_that_is_let_go_keeps_its_inode_until_hdf5_has_forgotten_it(tmp_path: Path) -> None:
    """HDF5 knows files by their inode: a new file with that of an open one is taken for the open one."""
    root = NexusFormat().layout(facts_of())
    first = LiveFile(tmp_path / "first", root)
    inode = first.path.stat().st_ino
    with hdf5._diverted(first._file):
        first.path.unlink()
        second = LiveFile(tmp_path / "second", root)
        assert second.path.stat().st_ino != inode
    first._file = None
    second.close()


def contents(path: Path) -> dict[str, Any]:
    """Everything in a file, by path."""
    found: dict[str, Any] = {}

    def look(name: str, item: Any) -> None:
        value = repr(item[()]) if isinstance(item, h5py.Dataset) else None
        found[name] = (value, {key: repr(item.attrs[key]) for key in item.attrs})
        if isinstance(item, h5py.Group):
            for key in item:
                link = item.get(key, getlink=True)
                if isinstance(link, h5py.SoftLink):
                    found[f"{name}/{key}"] = link.path

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def test_a_text_that_is_too_long_for_a_header_is_stored_all_the_same(tmp_path: Path) -> None:
    long = "x" * 200_000
    root = Group("", "NXroot", (Field("long", long), Field("short", "äöü"), Field("list", ["a", "bcd"])))
    LiveFile(tmp_path / "a.h5", root).close()

    with h5py.File(tmp_path / "a.h5") as file:
        assert file["long"].asstr()[0] == long
        assert file["short"].asstr()[()] == "äöü"
        assert file["list"].asstr()[:].tolist() == ["a", "bcd"]


def test_many_rows_of_an_unannounced_number_are_kept(tmp_path: Path) -> None:
    root = Group("", "", (Field("v", dtype="float64", column=NUMBER),))
    live = LiveFile(tmp_path / "a.h5", root)
    live.start()
    for first in range(0, 3000, 300):
        live.append([np.arange(first, first + 300, dtype="float64")])
    live.close()

    with h5py.File(tmp_path / "a.h5") as file:
        assert file["v"][:].tolist() == list(range(3000))


def test_a_file_is_given_its_name_only_if_that_is_free(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("new")
    target.write_text("other")

    assert not hdf5.place(source, target)
    assert target.read_text() == "other"
    target.write_text("")  # a reservation
    assert hdf5.place(source, target)
    assert target.read_text() == "new"
    assert not source.exists()


def test_the_errors_of_the_system_are_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match=r"creating the folder .*file/below failed: Not a directory"):
        hdf5.make_folder(tmp_path / "file" / "below")
    with pytest.raises(StorageError, match=r"creating .*nowhere.* failed: No such file or directory"):
        LiveFile(tmp_path / "nowhere" / "a.h5", Group("", ""))


def test_what_is_no_file_of_ours_has_no_text(tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    other.write_bytes(os.urandom(1000))

    assert hdf5.text_in(other, "/entry/entry_identifier_uuid") is None
