"""The user's own functions, from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bec_client import macros as macros_module
from bec_lib.errors import ConfigError, ParameterError


@pytest.fixture
def folder(bec: Any, tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setattr(macros_module, "HOME", tmp_path / "nowhere")
    monkeypatch.setattr(macros_module, "_plugin_folders", list)
    found = tmp_path / "macros"
    found.mkdir()
    bec.service_config = bec.service_config.model_copy(update={"user_macros": {"base_path": str(found)}})
    return found


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_macros_find_the_beamline_and_each_other(bec: Any, folder: Path) -> None:
    write(
        folder,
        "a.py",
        '"""Alignment."""\nimport math\nSTEP = 2 * 0.5\n'
        'def twice(x: float = math.pi) -> float:\n    """Two times."""\n    return 2 * x\n'
        "def where():\n    return bec.username, dev.samx.name, later()\n"
        "def _private(): ...\n",
    )
    write(folder, "b.py", "def later():\n    return twice(2)\n")
    bec.macros.load_all_user_macros()
    assert sorted(bec.macros) == ["later", "twice", "where"]
    assert bec.macros.where() == ("ada", "samx", 4)
    assert "Two times." in str(bec.macros)


def test_a_file_is_loaded_again_and_forgotten(bec: Any, folder: Path) -> None:
    seen: list[Any] = []
    bec.callbacks.register(
        "namespace_update", lambda **what: seen.append((what["action"], *what["ns_objects"]))
    )
    file = write(folder, "a.py", "def one(): return 1\ndef two(): return 2\n")
    assert bec.macros.load_user_macro(file) == ["one", "two"]
    write(folder, "a.py", "def one(): return 11\n")
    bec.load_user_script(str(file))
    assert bec.macros.one() == 11
    bec.macros.forget_user_macro("one")
    assert len(bec.macros) == 0
    assert seen == [("add", "one", "two"), ("remove", "two"), ("add", "one"), ("remove", "one")]
    with pytest.raises(AttributeError, match="no macro 'one'"):
        bec.macros.one()
    with pytest.raises(ParameterError, match="no macro 'one'"):
        bec.macros.forget_user_macro("one")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os\nos.remove('x')\n", r"line 2, would run `os.remove\('x'\)`"),
        ("POSITION = dev.samx.position\n", "line 1, would run `POSITION = dev.samx.position`"),
        ("for k in range(3):\n    pass\n", "line 1, would run `for k in range"),
        ("def f(:\n", "line 1 is not Python"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def open(): ...\n", "defines 'open', which is a name of Python's or of BEC's"),
        ("def umv(): ...\n", "defines 'umv', which is"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(bec: Any, folder: Path, text: str, told: str) -> None:
    file = write(folder, "a.py", text)
    with pytest.raises(ConfigError, match=told):
        bec.macros.load_user_macro(file)
    assert len(bec.macros) == 0


def test_one_bad_file_does_not_keep_the_others_away(bec: Any, folder: Path) -> None:
    told: list[str] = []
    bec.connection.notify = told.append
    write(folder, "a.py", "print('hello')\n")
    write(folder, "b.py", "def one(): return 1\n")
    write(folder, "c.py", "if __name__ == '__main__':\n    print('hello')\ndef one(): return 2\n")
    bec.macros.load_all_user_macros()
    assert bec.macros.one() == 1
    assert ["would run" in told[0], "both define a macro 'one'" in told[1]] == [True, True]
    with pytest.raises(ConfigError, match=r"nothing\.py cannot be read: No such file"):
        bec.macros.load_user_macro("nothing.py")
