"""What the NeXus judges say is read rightly: words recorded from nexusformat 2.1.0 and pynxtools 0.16.0."""

from tests.judges import read_nxvalidate, read_pynx

HEAD = """\x1b[0m
\x1b[0mFilename: a.nxs\x1b[0m
\x1b[0mPath: /entry\x1b[0m
\x1b[0mDefinitions: nexusformat/definitions\x1b[0m
\x1b[0mApplication Definition: NXscan\x1b[0m
\x1b[0mNXDL File: nexusformat/definitions/applications/NXscan.nxdl.xml\x1b[0m
"""
VALID = "The entry `entry` in file `a.nxs` is valid according to the `NXscan` application definition."
NOT_VALID = "Invalid: " + VALID.replace("is valid", "is NOT valid")


def totals(warnings: int, errors: int) -> str:
    return f"Total number of warnings: {warnings}\x1b[0m\n\x1b[0mTotal number of errors: {errors}\n\x1b[0m"


def test_nxvalidate_passes_a_file_without_complaint() -> None:
    verdict = read_nxvalidate(HEAD + totals(0, 0))
    assert verdict.passed
    assert verdict.complaints == ()


def test_nxvalidate_fails_a_file_with_an_error_and_says_which() -> None:
    complaint = (
        "Field: /entry/title\n\x1b[38;5;1m\x1b[1m    This required field is not in the NeXus file\x1b[0m\n"
    )
    verdict = read_nxvalidate(HEAD + complaint + totals(0, 1))
    assert not verdict.passed
    assert verdict.complaints == (
        "Field: /entry/title",
        "    This required field is not in the NeXus file",
    )


def test_nxvalidate_fails_a_file_with_a_mere_warning() -> None:
    assert not read_nxvalidate(HEAD + totals(1, 0)).passed


def test_nxvalidate_that_found_nothing_to_judge_has_not_passed_the_file() -> None:
    assert not read_nxvalidate('No application definition is defined in "/entry"').passed
    assert not read_nxvalidate("").passed
    assert not read_nxvalidate(HEAD).passed


def test_pynx_passes_a_file_only_if_it_says_so() -> None:
    assert read_pynx(VALID).passed
    assert not read_pynx("WARNING: Could not find any valid entry in file a.nxs").passed
    assert not read_pynx("").passed


def test_pynx_fails_a_file_of_which_one_entry_is_not_valid() -> None:
    verdict = read_pynx(
        f"{VALID}\nWARNING: Missing data for signal in /entry/data/nope.\nWARNING: {NOT_VALID}\n"
    )
    assert not verdict.passed
    assert "WARNING: Missing data for signal in /entry/data/nope." in verdict.complaints
