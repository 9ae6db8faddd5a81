from pathlib import Path

import pytest

from bec_lib.errors import ParameterError
from bec_lib.file_paths import detector_path, file_target, master_path, numbers_in, scan_folder

BASE = Path("/data")


def test_a_scan_has_a_folder_among_a_thousand_below_its_account() -> None:
    target = file_target(BASE, "p1", 1234)

    assert target.stem == "/data/p1/S01000-01999/S01234/S01234"
    assert master_path(target) == Path("/data/p1/S01000-01999/S01234/S01234_master.h5")


def test_the_suffix_ends_the_names_of_folder_and_files() -> None:
    target = file_target(BASE, "p1", 42, suffix="cold-2")

    assert master_path(target) == Path("/data/p1/S00000-00999/S00042_cold-2/S00042_master_cold-2.h5")
    assert detector_path(target, "eiger") == Path(
        "/data/p1/S00000-00999/S00042_cold-2/S00042_eiger_cold-2.h5"
    )


def test_a_directory_replaces_both_levels() -> None:
    target = file_target(BASE, "p1", 42, directory="sampleA/cold")

    assert master_path(target) == Path("/data/p1/sampleA/cold/S00042_master.h5")


def test_without_an_account_there_is_no_level_for_it() -> None:
    assert file_target(BASE, "", 1).stem == "/data/S00000-00999/S00001/S00001"


@pytest.mark.parametrize(
    ("base", "account", "folder"),
    [
        ("/data/$account/raw", "p1", "/data/p1/raw"),
        ("/data/$account/raw", "", "/data/raw"),
        ("/data/e-$account", "p1", "/data/e-p1"),
        ("/data", "p1", "/data/p1"),
    ],
)
def test_the_account_may_stand_inside_the_base(base: str, account: str, folder: str) -> None:
    assert scan_folder(Path(base), account) == Path(folder)
    assert file_target(Path(base), account, 7).stem == f"{folder}/S00000-00999/S00007/S00007"


def test_more_than_five_digits_are_kept() -> None:
    assert file_target(BASE, "", 123456).stem == "/data/S123000-123999/S123456/S123456"


@pytest.mark.parametrize("suffix", ["a b", "ä", "../x", "a.b", "a/b"])
def test_a_suffix_of_other_characters_is_refused(suffix: str) -> None:
    with pytest.raises(ParameterError, match="file suffix"):
        file_target(BASE, "p1", 1, suffix=suffix)


@pytest.mark.parametrize("directory", ["..", "a/../../b", "/etc", "../p2"])
def test_a_directory_outside_of_the_base_is_refused(directory: str) -> None:
    with pytest.raises(ParameterError, match="leads out of /data"):
        file_target(BASE, "p1", 1, directory=directory)


@pytest.mark.parametrize("account", ["..", ".", "a/b", "p 1"])
def test_an_account_that_cannot_be_a_folder_is_refused(account: str) -> None:
    with pytest.raises(ParameterError, match="account"):
        file_target(BASE, account, 1)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        file_target(Path("data"), "a/b", 0, suffix="ö", directory="../x")

    for word in ("absolute", "account", "starts at 1", "suffix", "leads out"):
        assert word in str(caught.value)


def test_a_device_name_that_cannot_be_in_a_file_name_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"\.\./eiger"):
        detector_path(file_target(BASE, "p1", 1), "../eiger")


def test_the_highest_number_is_found_among_folders_and_files() -> None:
    names = [
        "S00000-00999",
        "S00007",
        "S00041_cold",
        "S00012_master.h5",
        "S1234567-1234999",
        "notes.txt",
        "XS00099",
    ]

    assert numbers_in(names) == 41
    assert numbers_in(["S123456_master.h5"]) == 123456
    assert numbers_in([]) == 0
