"""The default format: what is where in the file. The whole tree is in tests/snapshots/nexus_*.txt; to accept a
change of it, run this test with BEC_UPDATE_SNAPSHOTS=1 and look at the difference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bec_lib.errors import ReasonCode
from bec_lib.messages import DeviceSchema, ErrorInfo, ScanState
from file_writer.formats.nexus import NexusFormat
from file_writer.layout import (
    EndFacts,
    ExternalLink,
    Facility,
    Field,
    Group,
    Link,
    Member,
    ScanFacts,
    text_of,
    walk,
)
from tests.file_writer.samples import (
    COUNTER,
    DIODE,
    FRAMES,
    IMAGE_KEY,
    OMEGA,
    OMEGA_TARGET,
    SAMX,
    SAMX_TARGET,
    SAMY,
    SHUTTER,
    SPECTRUM,
    STARTED,
    facts_of,
    schema_of,
    status_of,
)

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"


def members_of(facts: ScanFacts) -> dict[str, Member]:
    return dict(walk(NexusFormat().layout(facts)))


def tomogram() -> ScanFacts:
    schema = schema_of(
        (OMEGA, SAMX, COUNTER, FRAMES, OMEGA_TARGET, SAMX_TARGET, IMAGE_KEY), (), ("omega", "samx")
    )
    return facts_of(schema, status_of(scan_name="tomo_scan", motors=["omega", "samx"], shape=[]))


def attributes(members: dict[str, Member], path: str) -> dict[str, Any]:
    found = members[path]
    assert isinstance(found, Group | Field)
    return dict(found.attributes)


def link(members: dict[str, Member], path: str) -> str:
    found = members[path]
    assert isinstance(found, Link)
    return found.target


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("line_scan", facts_of()),
        (
            "grid_scan",
            facts_of(
                schema_of((SAMX, SAMY, COUNTER, SPECTRUM), motors=("samx", "samy")),
                status_of(scan_name="grid_scan", motors=["samx", "samy"], shape=[3, 3], num_points=9),
            ),
        ),
        (
            "acquire",
            facts_of(
                schema_of((DIODE, SHUTTER), motors=()),
                status_of(scan_name="acquire", motors=[], args=[], shape=[]),
                facility=Facility(),
            ),
        ),
        ("tomo_scan", tomogram()),
    ],
)
def test_the_layout_is_as_recorded(name: str, facts: ScanFacts) -> None:
    file = SNAPSHOTS / f"nexus_{name}.txt"
    text = text_of(NexusFormat().layout(facts))
    if os.environ.get("BEC_UPDATE_SNAPSHOTS"):
        file.write_text(text, encoding="utf-8")

    assert text == file.read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    for facts in (
        facts_of(),
        facts_of(schema_of((SAMX, SAMY), motors=("samx", "samy"))),
        facts_of(schema_of(())),
        tomogram(),
    ):
        members = members_of(facts)
        broken = {path: item.target for path, item in members.items() if isinstance(item, Link)}
        broken = {path: target for path, target in broken.items() if target not in members}
        assert broken == {}


def test_targets_and_labels_are_no_devices_but_the_positioners_and_the_scans() -> None:
    members = members_of(facts_of(schema_of((SAMX, COUNTER, SAMX_TARGET, IMAGE_KEY))))

    target = members["/entry/collection/setpoints/samx"]
    assert isinstance(target, Field) and target.column is not None and target.column.index == 2
    assert link(members, "/entry/instrument/samx/target_value") == "/entry/collection/setpoints/samx"
    assert members["/entry/collection/labels/image_key"].attributes["description"].startswith("0: projection")
    assert not [path for path in members if path.startswith("/entry/collection/devices/image_key")]
    assert "/entry/collection/devices/samx/samx_target" not in members
    assert "image_key" not in attributes(members, "/entry/data").get("auxiliary_signals", [])


def test_a_tomogram_has_an_entry_of_nxtomo() -> None:
    members = members_of(tomogram())
    tomo = "/entry/tomo_entry"

    definition = members[f"{tomo}/definition"]
    assert isinstance(definition, Field) and definition.value == "NXtomo"
    for place in ("instrument/detector", "data"):
        assert link(members, f"{tomo}/{place}/data").endswith("/camera/camera_image/value")
        assert link(members, f"{tomo}/{place}/image_key") == "/entry/collection/labels/image_key"
    for place in ("sample", "data"):
        assert link(members, f"{tomo}/{place}/rotation_angle").endswith("/omega/omega/value")
    assert attributes(members, "/entry")["default"] == "tomo_entry"


def test_frames_of_a_camera_that_writes_a_file_are_linked_from_there() -> None:
    folder = "/data/p12345/S00000-00999/S00042"
    camera = DeviceSchema(
        name="eiger", files=[{"path": f"{folder}/S00042_eiger.h5", "dataset": "/entry/data"}]
    )
    schema = schema_of((OMEGA, COUNTER, IMAGE_KEY), (), ("omega",))
    facts = facts_of(
        schema.model_copy(update={"devices": [*schema.devices, camera]}), status_of(motors=["omega"])
    )
    found = members_of(facts)["/entry/tomo_entry/instrument/detector/data"]
    assert isinstance(found, ExternalLink)
    assert (found.file, found.path) == ("S00042_eiger.h5", "/entry/data")
    assert "/entry/tomo_entry/definition" in members_of(facts)
    whole = camera.model_copy(update={"files": [{"path": f"{folder}/S00042_eiger.h5", "dataset": "/"}]})
    unknown = facts_of(schema.model_copy(update={"devices": [*schema.devices, whole]}), facts.status)
    assert isinstance(members_of(unknown)["/entry/tomo_entry/data/data"], Link)
    several = facts.status.model_copy(update={"scan_parameters": {"frames_per_trigger": 3}})
    assert "/entry/tomo_entry/definition" not in members_of(facts_of(facts.schema, several))


def test_without_frames_there_are_the_numbers_and_no_claim_to_be_nxtomo() -> None:
    members = members_of(
        facts_of(schema_of((OMEGA, COUNTER, IMAGE_KEY), (), ("omega",)), status_of(motors=["omega"]))
    )
    assert link(members, "/entry/tomo_entry/data/data").endswith("/counter/counter/value")
    assert "/entry/tomo_entry/definition" not in members
    assert attributes(members, "/entry")["default"] == "data"


def test_the_default_plot_is_the_first_hinted_detector_against_the_motor() -> None:
    members = members_of(facts_of())
    data = attributes(members, "/entry/data")

    assert data["signal"] == "counter"
    assert data["auxiliary_signals"] == ["diode"]
    assert data["axes"] == ["samx"]
    assert data["samx_indices"] == [0]
    assert link(members, "/entry/data/counter").endswith("/devices/counter/counter/value")


def test_without_motors_the_axis_is_the_time() -> None:
    members = members_of(facts_of(schema_of((DIODE,), motors=()), status_of(motors=[])))

    assert attributes(members, "/entry/data")["axes"] == ["elapsed_time"]
    assert attributes(members, "/entry/data/elapsed_time")["units"] == "s"


@pytest.mark.parametrize(
    ("motors", "shape", "axes"),
    [
        (["samx", "samy"], [3, 3], ["samx", "samy"]),
        (["samx", "samy"], [], ["samx", "samy"]),
        (["samx", "samy"], [9], ["samx"]),
        (["samx", "samy", "omega"], [3, 3, 3], ["samx"]),
    ],
)
def test_points_in_a_plane_have_two_axes_and_all_others_one(
    motors: list[str], shape: list[int], axes: list[str]
) -> None:
    schema = schema_of((SAMX, SAMY, OMEGA, COUNTER), motors=motors)
    data = attributes(
        members_of(facts_of(schema, status_of(motors=motors, shape=shape))),
        "/entry/data",
    )

    assert data["axes"] == axes
    assert all(data[f"{motor}_indices"] == [0] for motor in motors)


def test_an_array_is_plotted_only_if_there_is_no_scalar() -> None:
    both = attributes(members_of(facts_of(schema_of((SAMX, SPECTRUM, COUNTER)))), "/entry/data")
    alone = attributes(members_of(facts_of(schema_of((SAMX, SPECTRUM)))), "/entry/data")

    assert both["signal"] == "counter"
    assert (alone["signal"], alone["axes"]) == ("mca_spectrum", ["samx", "."])


def test_a_scan_that_reads_nothing_but_its_motors_plots_one_of_them_over_the_time() -> None:
    data = attributes(members_of(facts_of(schema_of((SAMX,)))), "/entry/data")

    assert (data["signal"], data["axes"]) == ("samx", ["elapsed_time"])


def test_a_scan_without_columns_names_no_default_plot() -> None:
    members = members_of(facts_of(schema_of((), baseline=(), motors=())))

    assert "default" not in attributes(members, "/entry")
    assert "signal" not in attributes(members, "/entry/data")


def test_counting_detectors_stand_in_the_instrument_and_others_in_its_collection() -> None:
    members = members_of(facts_of())

    def nx_class(path: str) -> str:
        found = members[path]
        assert isinstance(found, Group)
        return found.nx_class

    assert nx_class("/entry/instrument/counter") == "NXdetector"
    assert nx_class("/entry/instrument/detectors/diode") == "NXdetector"
    assert nx_class("/entry/instrument/samx") == "NXpositioner"
    assert link(members, "/entry/data/data") == link(members, "/entry/instrument/counter/data")
    assert "/entry/instrument/clock" not in members


def test_without_a_counting_detector_the_clock_is_one() -> None:
    members = members_of(facts_of(schema_of((SAMX, DIODE))))

    assert link(members, "/entry/instrument/clock/data") == "/entry/control/data"


def test_the_rotation_angle_is_that_of_the_motor_that_turns() -> None:
    turned = members_of(facts_of(schema_of((OMEGA, COUNTER), motors=("omega",))))
    baseline = members_of(facts_of(schema_of(baseline=(OMEGA,))))
    neither = members_of(facts_of())

    for members in (turned, baseline):
        assert link(members, "/entry/sample/rotation_angle").endswith("/devices/omega/omega/value")
    field = neither["/entry/sample/rotation_angle"]
    assert isinstance(field, Field)
    assert field.value != field.value  # NaN
    assert field.attributes["description"] == "not measured"


def test_names_that_are_taken_are_numbered() -> None:
    """A device may be called like something that NeXus has at the same place."""
    source = COUNTER.model_copy(update={"device": "source", "signal": "source"})
    data = COUNTER.model_copy(update={"device": "data", "signal": "data"})
    schema = schema_of((SAMX, COUNTER)).model_copy(update={"signals": [SAMX, source, data]})
    members = members_of(facts_of(schema))

    assert link(members, "/entry/instrument/source_2/data").endswith("/devices/source/source/value")
    assert link(members, "/entry/data/data_2").endswith("/devices/data/data/value")


def test_the_source_is_as_configured_and_nothing_is_invented() -> None:
    members = members_of(facts_of())
    name = members["/entry/instrument/source/name"]
    assert isinstance(name, Field)
    assert name.value == "a storage ring"
    bare = members_of(facts_of(facility=Facility()))
    assert "/entry/instrument/source" not in bare
    assert "/entry/instrument/name" not in bare


def test_detector_files_are_linked_relative_to_the_file() -> None:
    eiger = DeviceSchema(
        name="eiger",
        files=[
            {"path": "/data/p12345/S00000-00999/S00042/S00042_eiger.h5", "dataset": "/entry/data"},
            {"path": "/elsewhere/x.h5", "dataset": "/d", "name": "raw"},
        ],
    )
    schema = schema_of()
    members = members_of(facts_of(schema.model_copy(update={"devices": [*schema.devices, eiger]})))

    near, far = (members[f"/entry/collection/file_references/eiger/{name}"] for name in ("data", "raw"))
    assert near == ExternalLink("data", "S00042_eiger.h5", "/entry/data")
    assert far == ExternalLink("raw", "/elsewhere/x.h5", "/d")


def test_the_command_is_one_that_can_be_typed_again() -> None:
    command = members_of(facts_of())["/entry/collection/metadata/bec/scan_command"]

    assert isinstance(command, Field)
    assert command.value == "scans.line_scan(dev.samx, -1, 1, steps=3, relative=False)"


def test_a_device_that_is_monitored_and_in_the_baseline_stands_once() -> None:
    members = members_of(facts_of(schema_of((SAMX, COUNTER), baseline=(SAMX,))))

    value = members["/entry/collection/devices/samx/samx/value"]
    assert isinstance(value, Field)
    assert value.grows


def test_the_closing_facts_are_those_of_the_end() -> None:
    facts = facts_of()
    last = status_of(
        ScanState.ABORTED,
        reason="alarm",
        error=ErrorInfo(error_message="samx stalled", code=ReasonCode.DEVICE_FAILED),
    )
    closing = NexusFormat().closing(facts, EndFacts("aborted", 2, STARTED + 1.5, last))
    members = members_of(facts)
    bec = "/entry/collection/metadata/bec"

    assert closing["/entry/end_time"] == "2023-11-14T23:13:21.500000+01:00"
    assert closing[f"{bec}/status"] == "aborted"
    assert closing[f"{bec}/exit_reason"] == "alarm"
    assert closing[f"{bec}/error"] == "samx stalled"
    assert closing[f"{bec}/num_readouts"] == 2
    assert closing[f"{bec}/dead_time_s"] == 0.0
    assert set(closing) <= set(members)


@pytest.mark.parametrize(
    ("announced", "stored"),
    [
        ("float32", "float32"),
        ("uint16", "uint16"),
        ("bool", "bool"),
        ("str", "str"),
        ("<U12", "str"),
        ("?!", "str"),
    ],
)
def test_what_is_no_number_is_stored_as_text(announced: str, stored: str) -> None:
    odd = DIODE.model_copy(update={"dtype": announced, "shape": [4]})
    value = members_of(facts_of(schema_of((SAMX, odd))))["/entry/collection/devices/diode/diode/value"]

    assert isinstance(value, Field)
    assert value.dtype == stored
    assert value.shape == (() if stored == "str" else (4,))
