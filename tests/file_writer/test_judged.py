"""Final files before the two independent NeXus validators; `make judge FILE=...` installs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bec_lib.messages import DeviceSchema
from device_server.frames import DATASET, FrameFile
from file_writer import hdf5
from file_writer.formats.nexus import NexusFormat
from file_writer.layout import EndFacts, Facility, ScanFacts
from file_writer.rows import row_arrays
from tests.file_writer.samples import (
    COUNTER,
    DIODE,
    IMAGE_KEY,
    OMEGA,
    SAMX,
    SAMY,
    SHUTTER,
    SPECTRUM,
    STARTED,
    facts_of,
    points_of,
    schema_of,
    status_of,
)
from tests.file_writer.test_nexus import tomogram
from tests.judges import ENVIRONMENT, judge

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not (ENVIRONMENT / "bin" / "pynx").exists(), reason="`make judge` has not been run: no validators"
    ),
]


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(facts_of(), id="line scan"),
        pytest.param(
            facts_of(
                schema_of((SAMX, SAMY, COUNTER, SPECTRUM, SHUTTER, DIODE), (OMEGA,), ("samx", "samy")),
                status_of(scan_name="grid_scan", motors=["samx", "samy"], shape=[2, 2], num_points=4),
            ),
            id="grid scan with everything",
        ),
        pytest.param(
            facts_of(
                schema_of((DIODE,), (), ()),
                status_of(scan_name="acquire", motors=[], args=[], shape=[], account="", user=""),
                facility=Facility(),
            ),
            id="acquire with little",
        ),
        pytest.param(facts_of(schema_of((), (), ()), status_of(motors=[])), id="nothing"),
        pytest.param(tomogram(), id="tomogram"),
        pytest.param(
            facts_of(schema_of((OMEGA, DIODE, IMAGE_KEY), (), ("omega",)), status_of(motors=["omega"])),
            id="tomogram without frames",
        ),
    ],
)
def test_a_final_file_passes_both_validators(tmp_path: Path, facts: ScanFacts) -> None:
    path = write(tmp_path, facts)
    assert complaints(path) == {}
    with h5py.File(path) as file:
        if file["/entry"].attrs.get("default") != "tomo_entry":
            return
    # Neither validator looks into a subentry: the same as an entry of its own.
    alone = tmp_path / "tomo.h5"
    with h5py.File(path) as whole, h5py.File(alone, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        whole.copy("/entry/tomo_entry", file, "entry", expand_soft=True)
        file["entry"].attrs["NX_class"] = "NXentry"
        for field in ("sample/rotation_angle", "instrument/detector/image_key", "instrument/detector/data"):
            file["entry"][field].attrs["target"] = f"/entry/{field}"
            name = field.rpartition("/")[2]
            del file["entry/data"][name]
            file["entry/data"][name] = h5py.SoftLink(f"/entry/{field}")
    assert complaints(alone) == {}


def test_a_tomogram_whose_camera_writes_a_file_passes_both_validators(tmp_path: Path) -> None:
    frames = FrameFile(tmp_path / "S00042_eiger.h5", (3, 4))
    for _ in range(4):
        frames.append(np.zeros((3, 4)))
    frames.close()
    schema = schema_of((OMEGA, COUNTER, IMAGE_KEY), (), ("omega",))
    camera = DeviceSchema(
        name="eiger", files=[{"path": str(frames.path), "name": "data", "dataset": DATASET}]
    )
    facts = replace(
        facts_of(
            schema.model_copy(update={"devices": [*schema.devices, camera]}), status_of(motors=["omega"])
        ),
        file=str(tmp_path / "S00042_master.h5"),
    )
    path = write(tmp_path, facts)
    with h5py.File(path) as file:
        assert file["/entry/tomo_entry/data/data"].shape == (4, 3, 4)
        assert file["/entry/tomo_entry/definition"][()] == b"NXtomo"
    assert complaints(path) == {}


def write(folder: Path, facts: ScanFacts) -> Path:
    """The final file of four points."""
    path = folder / "S00042_master.h5"
    root = NexusFormat().layout(facts)
    live = hdf5.LiveFile(path, root)
    live.start()
    points = [points_of(facts.schema, 0, 4)]
    live.append(row_arrays(points, live.columns, {1: facts.schema}, STARTED)[0])
    live.close()
    hdf5.complete(path, NexusFormat().closing(facts, EndFacts("closed", 4, STARTED + 2)), {}, root)
    return path


def complaints(path: Path) -> dict[str, tuple[str, ...]]:
    return {verdict.judge: verdict.complaints for verdict in judge(path) if not verdict.passed}
