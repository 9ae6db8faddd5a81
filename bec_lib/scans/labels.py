"""What does a scan say of its points beside where they are? Labels: a word or number on each, as a column of its data.

A scan class declares them in `point_labels`, and gives their values with the steps that take points. They go with the
points to whoever reads those: the live table, the file, fits. Knows no device and no stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bec_lib.errors import ParameterError, PluginError

_DTYPES: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "str"}


@dataclass(frozen=True)
class Label:
    """A label that a scan puts on its points. default: of points for which it says nothing, for instance those of a
    modifier; its type (int, float, bool, str) is the label's. doc: what the values mean. unit: of a number.
    """

    default: int | float | bool | str
    doc: str = ""
    unit: str = ""

    @property
    def dtype(self) -> str:
        return _DTYPES[type(self.default)]


def check_labels(labels: Mapping[str, Label], where: str) -> None:
    """Raises PluginError if a class's declaration of labels cannot be meant. where: the class."""
    for name, label in labels.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise PluginError(f"{where}: the label {name!r} needs a name of letters, digits and '_'")
        if not isinstance(label, Label) or type(label.default) not in _DTYPES:
            raise PluginError(
                f"{where}: the label {name} must be a Label(default), with a default of type int, float, bool or str"
            )


def label_columns(
    declared: Mapping[str, Label], said: Mapping[str, Any], count: int | None
) -> dict[str, list[Any]]:
    """Name -> one value for each of `count` points, or a list of one for all of them. count: None if it is not known,
    and then each must be one value.

    said: name -> value or sequence. Raises ParameterError for a label that is not declared, and for values of another
    type or number.
    """
    unknown = sorted(set(said) - set(declared))
    if unknown:
        names = ", ".join(declared) or "none"
        raise ParameterError(
            f"it puts the label {unknown[0]} on its points, and its point_labels has {names}"
        )
    return {
        name: _column(name, label, said[name], count) if name in said else [label.default]
        for name, label in declared.items()
    }


def _column(name: str, label: Label, said: Any, count: int | None) -> list[Any]:
    if isinstance(said, np.ndarray):
        said = said.tolist()
    if isinstance(said, str) or not isinstance(said, Sequence):
        return [_value(name, label, said)]
    if len(said) != count:
        points = "an unknown number of" if count is None else count
        raise ParameterError(f"it has {len(said)} values of the label {name} for {points} points")
    return [_value(name, label, value) for value in said]


def _value(name: str, label: Label, value: Any) -> Any:
    kind = type(label.default)
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) is kind:
        return value
    if isinstance(value, (int, float)) and kind in (int, float, bool) and kind(value) == value:
        return kind(value)
    raise ParameterError(f"{value!r} cannot be a value of the label {name}, which is of type {kind.__name__}")
