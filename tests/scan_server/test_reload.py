"""Plugins imported again: what is new, changed, gone, failed, and what stays as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from scan_server.catalogue import Catalogue, load_catalogue
from scan_server.reload import Reloaded, load_states, prints_of, reload_plugins
from scan_server.states import BeamlineStates

BUILTIN = EntryPoint("builtin", "scan_server.scans", "bec.scans")
SCAN = """
from bec_lib.scans import PointScan
from {package} import tools

class Mine(PointScan):
    scan_name = "{name}"
    number = tools.NUMBER
"""
MODIFIER = """
from bec_lib.scans import ScanModifier, Wait, before

class Quiet(ScanModifier):
    @before("points", scans="line_scan")
    def rest(self):
        yield Wait({seconds})
"""


class Site:
    """A folder of packages, as they would be installed, and their entry points."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.points = [BUILTIN]

    def write(self, package: str, *, name: str, number: int = 1, seconds: int = 1) -> None:
        folder = self.folder / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "tools.py").write_text(f"NUMBER = {number}\n" + "#" * number)
        (folder / "scans.py").write_text(SCAN.format(package=package, name=name))
        (folder / "modifiers.py").write_text(MODIFIER.format(seconds=seconds) + "#" * seconds)
        for point in (
            EntryPoint(package, f"{package}.scans", "bec.scans"),
            EntryPoint(package, f"{package}.modifiers", "bec.scan_modifiers"),
        ):
            if point not in self.points:
                self.points.append(point)

    def load(self) -> tuple[Catalogue, dict[str, str]]:
        catalogue = load_catalogue(self.points)
        return catalogue, prints_of(catalogue)

    def reload(self, catalogue: Catalogue, prints: dict[str, str]) -> Reloaded:
        return reload_plugins(catalogue, prints, self.points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in [name for name in sys.modules if name.startswith(("plug_", "plugs_"))]:
        del sys.modules[name]


def test_a_new_package_is_found_and_one_that_is_the_same_is_no_news(site: Site) -> None:
    catalogue, prints = site.load()
    assert prints == {} and catalogue.is_ours("line_scan")
    site.write("plug_new", name="mine")
    first = site.reload(catalogue, prints)
    assert first.report.loaded == ["plug_new"] and not first.report.failed
    assert "mine" in first.catalogue.infos
    assert not first.catalogue.is_ours("mine") and not first.catalogue.is_ours("line_scan")
    again = site.reload(first.catalogue, first.prints).report
    assert (again.loaded, again.changed, again.removed, again.failed) == ([], [], [], {})


def test_a_change_in_a_helper_module_is_a_change(site: Site) -> None:
    site.write("plug_tools", name="mine", number=1)
    catalogue, prints = site.load()
    site.write("plug_tools", name="mine", number=2)
    done = site.reload(catalogue, prints)
    assert done.report.changed == ["plug_tools"]
    assert done.catalogue.classes["mine"].number == 2  # type: ignore[attr-defined]
    assert catalogue.classes["mine"].number == 1  # type: ignore[attr-defined]


def test_the_hash_of_a_scan_has_the_modifiers_that_apply(site: Site) -> None:
    plain, _ = site.load()
    site.write("plug_hash", name="mine", seconds=1)
    one, prints = site.load()
    site.write("plug_hash", name="mine", seconds=2)
    two = site.reload(one, prints).catalogue
    hashes = {c.code_hashes["line_scan"] for c in (plain, one, two)}
    assert len(hashes) == 3
    assert len({c.code_hashes["grid_scan"] for c in (plain, one, two)}) == 1


def test_a_package_that_fails_stays_whole_as_it_was(site: Site) -> None:
    site.write("plug_bad", name="mine", seconds=1)
    site.write("plug_good", name="yours")
    (site.folder / "plug_good" / "modifiers.py").write_text(
        MODIFIER.replace("line_", "grid_").format(seconds=1)
    )
    catalogue, prints = site.load()
    assert not catalogue.failed
    site.write("plug_bad", name="renamed", seconds=2)
    (site.folder / "plug_bad" / "modifiers.py").write_text("import nothing_like_it\n")
    site.write("plug_good", name="ours", number=2)
    (site.folder / "plug_good" / "modifiers.py").write_text(
        MODIFIER.replace("line_", "grid_").format(seconds=1)
    )
    done = site.reload(catalogue, prints)
    assert done.report.kept == ["plug_bad"] and done.report.changed == ["plug_good"]
    assert "nothing_like_it" in done.report.failed["plug_bad"]
    assert "the version before stays in force" in done.report.failed["plug_bad"]
    # Its scans are as they were, too, though their module could have been imported.
    assert "mine" in done.catalogue.infos and "renamed" not in done.catalogue.infos
    assert {"ours"} <= set(done.catalogue.infos) and "yours" not in done.catalogue.infos
    assert done.catalogue.code_hashes["line_scan"] == catalogue.code_hashes["line_scan"]
    assert sys.modules["plug_bad.scans"].Mine is done.catalogue.classes["mine"]
    # Mended: all of it is new.
    site.write("plug_bad", name="mended")
    mended = site.reload(done.catalogue, done.prints)
    assert mended.report.changed == ["plug_bad"] and mended.report.failed == {}
    assert "mended" in mended.catalogue.infos


def test_a_declaration_that_is_wrong_is_a_failure_like_another(site: Site) -> None:
    site.write("plug_wrong", name="mine")
    catalogue, prints = site.load()
    site.write("plug_wrong", name="Not A Name")
    done = site.reload(catalogue, prints)
    assert "scan_name is 'Not A Name'" in done.report.failed["plug_wrong"]
    assert done.report.kept == ["plug_wrong"] and "mine" in done.catalogue.infos


def test_a_package_that_was_broken_from_the_start_is_named_and_can_be_mended(site: Site) -> None:
    site.write("plug_late", name="mine")
    (site.folder / "plug_late" / "tools.py").write_text("raise SystemExit(3)")
    catalogue, prints = site.load()
    assert "SystemExit" in catalogue.failed["plug_late"] and "line_scan" in catalogue.infos
    still = site.reload(catalogue, prints)
    assert "plug_late" in still.report.failed and still.report.loaded == []
    site.write("plug_late", name="mine")
    done = site.reload(still.catalogue, still.prints)
    assert not done.report.failed and "mine" in done.catalogue.infos


def test_a_package_that_is_gone_takes_its_scans_with_it(site: Site) -> None:
    site.write("plug_gone", name="mine")
    catalogue, prints = site.load()
    site.points = [BUILTIN]
    done = site.reload(catalogue, prints)
    assert done.report.removed == ["plug_gone"]
    assert "mine" not in done.catalogue.infos and done.catalogue.is_ours("line_scan")
    assert "plug_gone" not in sys.modules


def test_our_own_scans_are_not_imported_again(site: Site) -> None:
    catalogue, prints = site.load()
    done = site.reload(catalogue, prints)
    assert done.catalogue.classes["line_scan"] is catalogue.classes["line_scan"]


STATE = """
from typing import ClassVar
from bec_lib.states import BeamlineStateConfig

class Warm(BeamlineStateConfig):
    kind: ClassVar[str] = "Warm"
    signal: str{more}

    def names(self):
        return [self.signal]

    def evaluate(self, value):
        return ("valid" if value(self.signal) > {limit} else "invalid"), ""
"""


def with_states(site: Site, package: str, *, limit: int = 10, more: str = "", top: str = "") -> None:
    site.write(package, name=f"{package}_scan")
    (site.folder / package / "states.py").write_text(top + STATE.format(limit=limit, more=more) + "#" * limit)
    point = EntryPoint(package, f"{package}.states", "bec.states")
    if point not in site.points:
        site.points.append(point)


def test_kinds_of_beamline_states_are_imported_again_with_their_package(site: Site) -> None:
    with_states(site, "plugin_w")
    catalogue, states = load_catalogue(site.points), load_states(site.points)
    prints = prints_of(catalogue, states.plugins)
    assert list(states.kinds) == ["Warm"] and states.failed == {}
    told = BeamlineStates(states.kinds, Values({"t": 15.0}))
    told.define(told.config_of("Warm", {"name": "sample", "signal": "t"}), 1.0)
    assert [s.status for s in told.judge(2.0)] == ["valid"]

    with_states(site, "plugin_w", limit=20)
    again = reload_plugins(catalogue, prints, site.points, states=states)
    assert again.report.changed == ["plugin_w"] and again.report.failed == {}
    told.use(again.states.kinds, again.states.failed, 3.0)
    assert [s.status for s in told.judge(4.0)] == ["invalid"]

    # Broken: the whole package stays as it was, its scans too.
    with_states(site, "plugin_w", limit=30, top="import no_such_library\n")
    site.write("plugin_w", name="other_scan")
    broken = reload_plugins(again.catalogue, again.prints, site.points, states=again.states)
    assert broken.report.kept == ["plugin_w"]
    assert "no_such_library" in broken.report.failed["plugin_w"]
    assert "stays in force" in broken.report.failed["plugin_w"]
    assert "plugin_w_scan" in broken.catalogue.infos and "other_scan" not in broken.catalogue.infos
    assert broken.states.kinds == again.states.kinds

    # A state that does not hold any more is kept, unknown, and comes back with its kind.
    with_states(site, "plugin_w", limit=5, more="\n    needed: float")
    other = reload_plugins(broken.catalogue, broken.prints, site.points, states=broken.states)
    told.use(other.states.kinds, other.states.failed, 5.0)
    [kept] = told.message().states.values()
    assert kept.status == "unknown" and "needed" in kept.label
    with_states(site, "plugin_w", limit=6)
    mended = reload_plugins(other.catalogue, other.prints, site.points, states=other.states)
    told.use(mended.states.kinds, mended.states.failed, 6.0)
    assert [s.status for s in told.judge(7.0)] == ["valid"]


class Values:
    """Readings that are given."""

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def value(self, name: str) -> Any:
        return self.values[name]
