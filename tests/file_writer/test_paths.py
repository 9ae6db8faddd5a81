from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from file_writer.paths import alternatives, leftover_pattern, temporary_path, with_final_names

MASTER = Path("/data/S00042_master.h5")


def test_a_temporary_file_is_hidden_and_beside_its_master_file() -> None:
    path = temporary_path(MASTER, "123-1")

    assert path.parent == MASTER.parent
    assert path.name.startswith(".")
    assert not path.name.endswith(".h5")
    assert temporary_path(MASTER, "123-2") != path


def test_leftovers_of_one_master_file_are_recognised() -> None:
    pattern = leftover_pattern(MASTER)

    assert fnmatch(temporary_path(MASTER, "9-9").name, pattern)
    assert not fnmatch(temporary_path(Path("/data/S00043_master.h5"), "9-9").name, pattern)
    assert not fnmatch(MASTER.name, pattern)


def test_the_names_to_fall_back_to_are_numbered() -> None:
    assert [path.name for path in islice(alternatives(MASTER), 3)] == [
        "S00042_master.h5",
        "S00042_master_2.h5",
        "S00042_master_3.h5",
    ]


def test_people_are_told_the_final_name() -> None:
    text = f"creating {temporary_path(MASTER, '123-1-final')} failed: No space left on device"

    assert with_final_names(text) == "creating /data/S00042_master.h5 failed: No space left on device"
    assert with_final_names("renaming to /data/S00042_master.h5 failed") == (
        "renaming to /data/S00042_master.h5 failed"
    )
