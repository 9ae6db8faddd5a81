"""Labels of points: what a scan may declare, and what it may say with its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib.errors import ParameterError, PluginError
from bec_lib.scans import Label, PointScan, Scan, Trajectory, describe_scan
from bec_lib.scans.labels import label_columns
from bec_lib.scans.signature import BoundCall

KEY = {"image_key": Label(3), "phase": Label(0.0), "mark": Label("")}


def test_what_is_not_said_is_the_default_for_all_points() -> None:
    assert label_columns(KEY, {}, 5) == {"image_key": [3], "phase": [0.0], "mark": [""]}


@pytest.mark.parametrize("said", [[0, 1, 2], (0, 1, 2), np.array([0, 1, 2]), np.array([0.0, 1.0, 2.0])])
def test_values_are_of_the_labels_type(said: Any) -> None:
    column = label_columns(KEY, {"image_key": said}, 3)["image_key"]
    assert column == [0, 1, 2]
    assert {type(value) for value in column} == {int}


def test_one_value_is_for_all_points_also_if_nobody_knows_how_many() -> None:
    columns = label_columns(KEY, {"image_key": np.int32(1), "phase": 2, "mark": "up"}, None)
    assert columns == {"image_key": [1], "phase": [2.0], "mark": ["up"]}


@pytest.mark.parametrize(
    ("said", "count", "text"),
    [
        ({"key": 1}, 3, "the label key .* image_key, phase, mark"),
        ({"image_key": [0, 1]}, 3, "2 values of the label image_key for 3 points"),
        ({"image_key": [0, 1]}, None, "an unknown number of points"),
        ({"image_key": 0.5}, 3, "0.5 cannot be a value of the label image_key, which is of type int"),
        ({"mark": 1}, 3, "of type str"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(said: dict[str, Any], count: int | None, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        label_columns(KEY, said, count)


@pytest.mark.parametrize("labels", [{"image key": Label(1)}, {"key": 1}, {"key": Label(None)}])  # type: ignore[arg-type]
def test_a_wrong_declaration_is_the_plugins_fault(labels: Any) -> None:
    kind = type("Wrong", (Scan,), {"scan_name": "wrong", "point_labels": labels})
    with pytest.raises(PluginError, match="label"):
        describe_scan(kind)


def test_labels_are_repeated_with_their_positions_in_a_burst() -> None:
    class Marked(PointScan):
        scan_name = "marked"
        point_labels = KEY

        def label_positions(self) -> dict[str, Any]:
            return {"image_key": np.array([0, 1]), "mark": "x"}

    facts = {part.name: part.default for part in describe_scan(Marked).parameters}
    scan = Marked(BoundCall((), {**facts, "burst_at_each_point": 2}))
    scan.targets = np.zeros((4, 1))
    (step,) = scan.run()
    assert isinstance(step, Trajectory)
    assert label_columns(KEY, step.labels, 4)["image_key"] == [0, 0, 1, 1]
    assert step.labels["mark"] == "x"
