"""The user's own functions, from files: `bec.macros.load_all_user_macros()`, `bec.macros.align(...)`.

A macro file defines functions and classes; they see `dev`, `scans`, `bec`, `mv` and each other without importing
anything, as in the shell. A file that would do more than define is refused, so that loading one moves nothing. Loading
is this client's own: a file that somebody else saves changes nothing here until it is loaded again.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bec_client.callbacks import EventType
from bec_client.names import WrongName
from bec_lib.errors import BECError, ConfigError, ParameterError
from bec_lib.scans.signature import did_you_mean

if TYPE_CHECKING:
    from bec_client.client import BECClient

HOME = Path("~/bec/macros")
PLUGIN_GROUP = (
    "bec"  # of the released BEC: its entry point names a beamline's package, which may have a folder `macros`
)
# Before a shell adds its names to them.
_PYTHON = frozenset(vars(builtins))


@dataclass(frozen=True)
class Macro:
    """A function or class of a macro file."""

    name: str
    value: Any
    file: Path

    @property
    def doc(self) -> str:
        return (inspect.getdoc(self.value) or "").partition("\n")[0]


class UserMacros:
    """The macros of this client: by attribute, and in the shell by their bare names."""

    def __init__(self, client: BECClient):
        self._client = client
        self._macros: dict[str, Macro] = {}
        # What macro files find without importing it; one dict, so that each macro finds the others, whenever they come.
        self._names: dict[str, Any] = {}

    # Loading

    def folders(self) -> list[Path]:
        """Where `load_all_user_macros` looks: `~/bec/macros`, those of `user_macros` and `user_scripts` in the service
        configuration, and the folder `macros` of the beamline's plugin package. Not all of them need exist.
        """
        config = self._client.service_config
        configured = [
            Path(folder).expanduser()
            for section in (config.user_macros, config.user_scripts)
            for folder in _folders_in(section)
        ]
        found = [HOME.expanduser(), *configured, *_plugin_folders()]
        return list(dict.fromkeys(path.resolve() for path in found))

    def load_all_user_macros(self) -> None:
        """Forget all macros, and load those of all files in `folders()`. A file that cannot be loaded is told, and the
        others are loaded.
        """
        self.forget_all_user_macros()
        for folder in self.folders():
            for file in sorted(folder.glob("*.py")) if folder.is_dir() else ():
                try:
                    self.load_user_macro(file)
                except BECError as error:
                    self._client.notify(error.message)

    def load_user_macro(self, file: str | Path) -> list[str]:
        """Load the functions and classes of a file, or load them again when it has changed; their names.

        Raises ConfigError that says what is wrong with the file, and where in it; nothing of it is loaded then.
        """
        path = Path(file).expanduser().resolve()
        tree, source = _parsed(path)
        _refuse_what_runs(tree, path)
        module = ModuleType(f"macros.{path.stem}", ast.get_docstring(tree))
        module.__file__ = str(path)
        module.__dict__["__builtins__"] = self._surroundings()
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        except Exception as error:
            # Whatever an import or a default value in it raises.
            raise ConfigError(
                f"the macro file {path} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        found = {
            name: Macro(name, value, path)
            for name, value in vars(module).items()
            if not name.startswith("_")
            and callable(value)
            and getattr(value, "__module__", "") == module.__name__
        }
        for name in found:
            self._check_name(name, path)
        gone = {name for name, macro in self._macros.items() if macro.file == path and name not in found}
        self._remove(gone)
        self._macros.update(found)
        added = {name: macro.value for name, macro in found.items()}
        self._names.update(added)
        if added:
            self._client.callbacks.run(EventType.NAMESPACE_UPDATE, action="add", ns_objects=added)
        return list(found)

    # Forgetting

    def forget_user_macro(self, name: str) -> None:
        """Forget one macro; its file stays. Raises ParameterError if there is none of that name."""
        if name not in self._macros:
            raise ParameterError(
                f"there is no macro {name!r}.{did_you_mean(name, self._macros)} "
                "bec.macros.list_user_macros() shows those that are loaded"
            )
        self._remove({name})

    def forget_all_user_macros(self) -> None:
        """Forget all macros; their files stay."""
        self._remove(set(self._macros))

    def _remove(self, names: set[str]) -> None:
        gone = {name: self._macros.pop(name).value for name in names}
        for name in gone:
            self._names.pop(name, None)
        if gone:
            self._client.callbacks.run(EventType.NAMESPACE_UPDATE, action="remove", ns_objects=gone)

    # Looking

    def list_user_macros(self) -> None:
        """Print the macros with their files."""
        from bec_client.tables import macro_table, show

        show(macro_table(self._macros.values(), self.folders()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._macros:
            return self._macros[name].value
        raise WrongName(f"there is no macro {name!r}.{did_you_mean(name, self._macros)}")

    def __contains__(self, name: object) -> bool:
        return name in self._macros

    def __iter__(self) -> Iterator[str]:
        return iter(self._macros)

    def __len__(self) -> int:
        return len(self._macros)

    def __dir__(self) -> list[str]:
        return [*self._macros, *(name for name in dir(type(self)) if not name.startswith("_"))]

    def __str__(self) -> str:
        from bec_client.tables import as_text, macro_table

        return as_text(macro_table(self._macros.values(), self.folders()))

    __repr__ = __str__

    # Parts

    def _surroundings(self) -> dict[str, Any]:
        if not self._names:
            self._names.update(vars(builtins))
        self._names.update(self._client.namespace())
        return self._names

    def _check_name(self, name: str, path: Path) -> None:
        if name in _PYTHON or name in self._client.namespace() or hasattr(type(self), name):
            raise ConfigError(
                f"the macro file {path} defines {name!r}, which is a name of Python's or of BEC's; call it something else"
            )
        known = self._macros.get(name)
        if known is not None and known.file != path:
            raise ConfigError(f"{path} and {known.file} both define a macro {name!r}; rename one of them")


def _parsed(path: Path) -> tuple[ast.Module, str]:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"the macro file {path} cannot be read: {reason}") from error
    try:
        return ast.parse(source, str(path)), source
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ConfigError(f"the macro file {path}{where} is not Python: {error.args[0]}") from error


def _refuse_what_runs(tree: ast.Module, path: Path) -> None:
    for node in tree.body:
        if not _only_defines(node):
            raise ConfigError(
                f"the macro file {path}, line {node.lineno}, would run `{_first_line(node)}` when it is loaded; a macro "
                "file only defines functions, classes and constants. Put that into a function"
            )


def _only_defines(node: ast.stmt) -> bool:
    match node:
        case (
            ast.Import()
            | ast.ImportFrom()
            | ast.FunctionDef()
            | ast.AsyncFunctionDef()
            | ast.ClassDef()
            | ast.Pass()
        ):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return all(isinstance(target, ast.Name) for target in _targets(node)) and _is_plain(value)
        case ast.AnnAssign():
            return True
        case ast.If(test=test):
            # Neither is true when a macro file is loaded.
            text = ast.unparse(test)
            return not node.orelse and (text.endswith("TYPE_CHECKING") or text.startswith("__name__ == "))
    return False


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _is_plain(value: ast.expr) -> bool:
    """Nothing in it is called, and no device is read."""
    return not any(
        isinstance(part, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom))
        or (isinstance(part, ast.Name) and part.id in ("dev", "scans", "bec"))
        for part in ast.walk(value)
    )


def _first_line(node: ast.stmt) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 60 else text[:59] + "…"


def _folders_in(section: Any) -> list[str]:
    """The folders of a section of the service configuration: a path, a list of paths, or a mapping with `base_path`."""
    if isinstance(section, dict):
        section = section.get("base_path")
    if isinstance(section, str):
        return [section]
    return [item for item in section if isinstance(item, str)] if isinstance(section, list) else []


def _plugin_folders() -> list[Path]:
    found: list[Path] = []
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            spec = find_spec(point.module)
        except (ImportError, ValueError):
            continue
        places = (spec.submodule_search_locations if spec else None) or []
        found += [Path(place) / "macros" for place in places]
    return found
