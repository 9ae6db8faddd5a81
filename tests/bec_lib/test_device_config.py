"""Device files: what is right, what is refused, and in which words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bec_lib.devices import (
    DeviceConfig,
    ReadoutPriority,
    build_order,
    config_hash,
    dump_device_file,
    load_device_file,
    validate_devices,
)
from bec_lib.errors import ConfigError, ReasonCode

MINIMAL = {"deviceClass": "ophyd.Signal", "enabled": True, "readoutPriority": "monitored"}


def write(folder: Path, text: str, name: str = "devices.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def device(name: str, **fields: object) -> str:
    lines = [f"{name}:"] + [f"  {key}: {value}" for key, value in {**MINIMAL, **fields}.items()]
    return "\n".join(lines) + "\n"


def problem_of(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_device_file(file)
    assert caught.value.reason is ReasonCode.CONFIG
    return str(caught.value)


def test_fields_that_are_not_given_have_their_defaults() -> None:
    (samx,) = validate_devices({"samx": MINIMAL}).values()
    assert samx == DeviceConfig(
        deviceClass="ophyd.Signal",
        enabled=True,
        readoutPriority=ReadoutPriority.MONITORED,
        deviceConfig={},
        connectionTimeout=5.0,
        description="",
        deviceTags=[],
        needs=[],
        onFailure="retry",
        readOnly=False,
        softwareTrigger=False,
        userParameter={},
        units=None,
        deviceServer="main",
        onInterrupt="repeat",
    )


def test_a_field_that_is_null_is_the_empty_one(tmp_path: Path) -> None:
    text = device("samx", deviceConfig="null", userParameter="", deviceTags="null", needs="", description="")
    samx = load_device_file(write(tmp_path, text))["samx"]
    assert (samx.deviceConfig, samx.userParameter, samx.deviceTags, samx.needs, samx.description) == (
        {},
        {},
        [],
        [],
        "",
    )


def test_tags_may_be_a_yaml_set(tmp_path: Path) -> None:
    assert load_device_file(write(tmp_path, device("samx", deviceTags="!!set {b, a}")))[
        "samx"
    ].deviceTags == [
        "a",
        "b",
    ]


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    config = load_device_file(write(tmp_path, device("samx", deviceConfig="{rate: 1e6, low: -2E-3}")))["samx"]
    assert config.deviceConfig == {"rate": 1e6, "low": -2e-3}


def test_an_empty_file_has_no_devices(tmp_path: Path) -> None:
    assert load_device_file(write(tmp_path, "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("samx:\n  deviceClass: [a\nb: 1\n", "line 3, column 2"),
        ("samx:\n\tenabled: true\n", "line 2, column 1"),
        ("samx: {a: 1\n", "line 2, column 1"),
        ("- samx\n", "must be a device"),
        ("samx\n", "must hold a mapping of device names"),
        ("samx: 3\n", "a device is a mapping of fields, this is a int"),
        ("samx:\n", "a device is a mapping of fields, this is nothing"),
        ("samx: !!python/object/apply:os.system [id]\n", "never code"),
        (
            device("samx") + device("samy") + device("samx"),
            "line 9, column 1: 'samx' stands here for the second time",
        ),
        (
            device("samx") + "  enabled: false\n",
            "'enabled' stands here for the second time (first in line 3)",
        ),
    ],
)
def test_a_file_that_is_no_device_file_is_refused_with_its_place(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = write(tmp_path, text)
    assert expected in problem_of(file)
    assert str(file) in problem_of(file)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "was_here"
    problem_of(write(tmp_path, f"samx: !!python/object/apply:os.mkdir ['{mark}']\n"))
    assert not mark.exists()


def test_all_problems_of_all_devices_come_in_one_error(tmp_path: Path) -> None:
    text = (
        "samx:\n  deviceclass: ophyd.Signal\n  enabled: maybe\n  readoutPriority: monitred\n"
        "samy:\n  deviceClass: ophyd.Signal\n  enabled: true\n  connectionTimeout: 0\n  readoutPriority: baseline\n"
        "'2theta': {deviceClass: ophyd.Signal, enabled: true, readoutPriority: baseline, needs: [samz]}\n"
    )
    problem = problem_of(write(tmp_path, text))
    for expected in (
        "it has 7 problems",
        "samx (",
        "line 1)",
        "unknown field 'deviceclass'; did you mean 'deviceClass'?",
        "the field 'deviceClass' is missing",
        "enabled should be a valid boolean, and is 'maybe'",
        "readoutPriority cannot be 'monitred'",
        "did you mean 'monitored'?",
        "connectionTimeout should be greater than 0, and is 0",
        "2theta (",
        "this is no name for a device",
        "needs 'samz', which is not in the configuration; did you mean 'samy'?",
    ):
        assert expected in problem


@pytest.mark.parametrize("name", ["sam x", "1samx", "sam-x", "lambda", "_samx", "", "sam.x"])
def test_a_name_that_python_cannot_write_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a device"):
        validate_devices({name: MINIMAL})


@pytest.mark.parametrize("limits", [[1], [1, 2, 3], ["a", "b"], 5, [2, 1]])
def test_limits_which_are_no_pair_are_refused(limits: object) -> None:
    with pytest.raises(ConfigError, match=r"limits must be \[low, high\]"):
        validate_devices({"samx": {**MINIMAL, "deviceConfig": {"limits": limits}}})


def test_units_are_a_text_or_a_mapping() -> None:
    assert validate_devices({"a": {**MINIMAL, "units": {"a": "mm"}}})["a"].units == {"a": "mm"}
    with pytest.raises(ConfigError, match="units must be a text or a mapping"):
        validate_devices({"a": {**MINIMAL, "units": 3}})


def test_cyclic_needs_are_found_and_named() -> None:
    raw = {name: {**MINIMAL, "needs": [other]} for name, other in (("a", "b"), ("b", "c"), ("c", "a"))}
    with pytest.raises(ConfigError, match="a -> b -> c -> a"):
        validate_devices(raw)


def test_devices_are_built_after_what_they_need() -> None:
    raw = {
        "det": {**MINIMAL, "needs": ["samx", "samy"]},
        "samy": {**MINIMAL, "needs": ["samx"]},
        "samx": MINIMAL,
    }
    assert build_order(validate_devices(raw)) == ["samx", "samy", "det"]


def test_includes_single_list_and_nested(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", device("samx") + "more: !include deeper.yaml\n", "stage.yaml")
    write(tmp_path / "parts", device("samy"), "deeper.yaml")
    write(tmp_path, device("eiger"), "cameras.yaml")
    write(tmp_path, device("diode"), "diodes.yaml")
    main = write(
        tmp_path,
        "sample: !include parts/stage.yaml\n"
        "detectors:\n  - !include ./cameras.yaml\n  - !include diodes.yaml\n" + device("shutter"),
    )
    assert list(load_device_file(main)) == ["samx", "samy", "eiger", "diode", "shutter"]


def test_an_include_may_name_a_list_of_files(tmp_path: Path) -> None:
    write(tmp_path, device("a"), "a.yaml")
    write(tmp_path, device("b"), "b.yaml")
    assert list(load_device_file(write(tmp_path, "all: !include [a.yaml, b.yaml]\n"))) == ["a", "b"]


def test_a_device_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, "\n" + device("samx"), "a.yaml")
    problem = problem_of(write(tmp_path, "part: !include a.yaml\n" + device("samx")))
    assert "samx is defined twice: in" in problem
    assert "a.yaml, line 2" in problem
    assert "devices.yaml, line 2" in problem


def test_an_include_that_is_missing_and_one_that_includes_itself_are_named(tmp_path: Path) -> None:
    write(tmp_path, "back: !include devices.yaml\n", "a.yaml")
    problem = problem_of(write(tmp_path, "x: !include nothing.yaml\ny: !include a.yaml\n"))
    assert "line 1: the included file" in problem
    assert "includes itself (devices.yaml -> a.yaml -> devices.yaml)" in problem


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "does not exist" in problem_of(tmp_path / "none.yaml")


def test_the_hash_follows_the_content_not_the_order() -> None:
    one = validate_devices({"a": MINIMAL, "b": {**MINIMAL, "deviceConfig": {"x": 1, "y": 2}}})
    two = validate_devices({"b": {**MINIMAL, "deviceConfig": {"y": 2, "x": 1}}, "a": MINIMAL})
    other = validate_devices({"a": MINIMAL, "b": {**MINIMAL, "deviceConfig": {"x": 1, "y": 3}}})
    assert config_hash(one) == config_hash(two) != config_hash(other)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    config=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda key: key != "limits"), plain, max_size=4
    ),
    description=st.text(max_size=40),
    enabled=st.booleans(),
    units=st.none()
    | st.text(max_size=5)
    | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_a_written_file_reads_back_to_the_same_devices(
    tmp_path_factory: pytest.TempPathFactory,
    config: dict[str, object],
    description: str,
    enabled: bool,
    units: object,
) -> None:
    raw = {**MINIMAL, "deviceConfig": config, "description": description, "enabled": enabled, "units": units}
    devices = validate_devices({"samx": raw, "det": {**MINIMAL, "needs": ["samx"], "onFailure": "buffer"}})
    file = tmp_path_factory.mktemp("dump") / "d.yaml"
    dump_device_file(file, devices)
    assert load_device_file(file) == devices


def test_a_file_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        dump_device_file(tmp_path / "no" / "folder.yaml", validate_devices({"a": MINIMAL}))
