"""Final files before the two independent NeXus validators; `make judge FILE=...` installs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from file_writer import hdf5
from file_writer.formats.nexus import NexusFormat
from file_writer.layout import EndFacts, Facility, ScanFacts
from file_writer.rows import row_arrays
from tests.file_writer.samples import (
    COUNTER,
    DIODE,
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
    ],
)
def test_a_final_file_passes_both_validators(tmp_path: Path, facts: ScanFacts) -> None:
    path = tmp_path / "S00042_master.h5"
    root = NexusFormat().layout(facts)
    live = hdf5.LiveFile(path, root)
    live.start()
    points = [points_of(facts.schema, 0, 4)]
    live.append(row_arrays(points, live.columns, {1: facts.schema}, STARTED)[0])
    live.close()
    hdf5.complete(path, NexusFormat().closing(facts, EndFacts("closed", 4, STARTED + 2)), {}, root)

    verdicts = judge(path)

    assert {verdict.judge: verdict.complaints for verdict in verdicts if not verdict.passed} == {}
