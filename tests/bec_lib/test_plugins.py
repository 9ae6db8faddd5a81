"""Entry points, the good and the broken ones."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bec_lib.errors import BECError, PluginError
from bec_lib.plugins import SCANS, classes_in, import_object, load_plugins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "beamline_x"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from collections import OrderedDict\n\nclass Mine(dict):\n    pass\n"
    )
    (folder / "broken.py").write_text("import not_installed_anywhere\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "beamline_x"  # type: ignore[misc]
    for name in [name for name in sys.modules if name.startswith("beamline_x")]:
        del sys.modules[name]


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="bec.test")


def test_what_fails_is_named_and_the_rest_is_loaded(package: str) -> None:
    loaded, failed = load_plugins(
        "bec.test",
        [point("good", package), point("broken", f"{package}.broken"), point("leaves", f"{package}.leaves")],
    )
    assert [plugin.name for plugin in loaded] == ["good"]
    assert "not_installed_anywhere" in failed["broken"]
    assert "SystemExit" in failed["leaves"]


def test_two_plugins_of_one_name_are_both_refused(package: str) -> None:
    loaded, failed = load_plugins("bec.test", [point("x", package), point("x", "json")])
    assert loaded == []
    assert "rename" in failed["x"]


def test_a_module_offers_its_own_classes_only(package: str) -> None:
    loaded, _ = load_plugins("bec.test", [point("good", package)])
    assert [kind.__name__ for kind in classes_in(loaded[0].value, dict)] == ["Mine"]
    assert classes_in(BECError, BaseException) == [BECError]
    assert classes_in(BECError, dict) == []


def test_our_own_scans_come_through_the_same_door() -> None:
    loaded, failed = load_plugins(SCANS)
    assert "builtin" in [plugin.name for plugin in loaded]
    assert failed == {}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("Nothing", "dotted path"),
        ("no_such_package.devices.Motor", "no module 'no_such_package'"),
        ("json.NoSuchClass", "has no 'NoSuchClass'"),
        ("beamline_x.broken.Thing", "cannot be imported"),
    ],
)
def test_an_object_that_is_not_there_is_explained(package: str, path: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        import_object(path)
