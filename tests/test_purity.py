"""Pure modules are pure: what the import contracts (`lint-imports`) cannot see.

The contracts forbid the imports of clocks, threads, sockets and vendor libraries. A module can still reach
the outside world through a harmless import (`datetime.now()`), so the calls are looked at too.
"""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CALLS = {
    "datetime.now": "the time is an argument",
    "datetime.utcnow": "the time is an argument",
    "datetime.today": "the time is an argument",
    "date.today": "the time is an argument",
    "uuid.uuid1": "identifiers are arguments",
    "uuid.uuid4": "identifiers are arguments",
    "uuid.uuid7": "identifiers are arguments",
    "uuid1": "identifiers are arguments",
    "uuid4": "identifiers are arguments",
    "os.getenv": "settings are arguments",
    "os.urandom": "randomness is an argument",
    "os.getpid": "the process is nobody's business here",
    "open": "files are opened by shell modules",
    "input": "nobody sits at a pure module",
}
RANDOM = {
    "betavariate",
    "choice",
    "choices",
    "gauss",
    "integers",
    "normal",
    "permutation",
    "poisson",
    "rand",
    "randint",
    "randn",
    "random",
    "randrange",
    "sample",
    "shuffle",
    "uniform",
}


def pure_modules() -> list[str]:
    """The modules under the purity contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (c for c in settings["importlinter"]["contracts"] if c["name"].startswith("Pure modules"))
    return list(contract["source_modules"])


def files_of(module: str) -> list[Path]:
    """The source files of a module or, with all that is below it, of a package; empty if there is none."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    return [path.with_suffix(".py")] if path.with_suffix(".py").exists() else []


def impure_calls(source: str) -> list[str]:
    """One line for each call that reads the clock, the environment, a file or unseeded randomness."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ":
            found.append(f"line {node.lineno}: os.environ, settings are arguments")
        if not isinstance(node, ast.Call):
            continue
        parts = ast.unparse(node.func).split(".")
        name = ".".join(parts[-2:])
        if name in CALLS:
            found.append(f"line {node.lineno}: {name}(), {CALLS[name]}")
        elif parts[-1] == "default_rng" and not node.args and not node.keywords:
            found.append(f"line {node.lineno}: default_rng() without a seed")
        elif (parts[-2:-1] == ["random"] and parts[-1] in RANDOM) or (
            name == "random.Random" and not node.args
        ):
            found.append(f"line {node.lineno}: {name}() without a seed")
    return found


def test_mypy_is_strict_on_exactly_the_pure_modules() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (strict,) = (o for o in settings["mypy"]["overrides"] if o.get("disallow_untyped_defs"))
    assert [m.removesuffix(".*") for m in strict["module"]] == pure_modules()
    for pattern in strict["module"]:
        is_package = ROOT.joinpath(*pattern.removesuffix(".*").split(".")).is_dir()
        assert pattern.endswith(".*") == is_package, (
            f"{pattern}: write PACKAGE.* for a package, MODULE for a module"
        )


@pytest.mark.parametrize("module", pure_modules())
def test_a_pure_module_reads_no_clock_environment_file_or_dice(module: str) -> None:
    files = files_of(module)
    assert files, f"{module} is listed as pure and does not exist"
    found = [
        f"{path.relative_to(ROOT)} {fault}" for path in files for fault in impure_calls(path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "started = datetime.datetime.now(UTC)",
        "name = str(uuid.uuid4())",
        "home = os.environ['HOME']",
        "text = open(path).read()",
        "noise = np.random.normal(0, 1)",
        "rng = np.random.default_rng()",
        "rng = random.Random()",
    ],
)
def test_an_impure_call_is_seen(source: str) -> None:
    """The control: without it the test above would pass if the search found nothing at all."""
    assert impure_calls(source)


@pytest.mark.parametrize(
    "source",
    ["rng = np.random.default_rng(seed)", "rng = random.Random(7)", "x = rng.uniform(0, 1)", "f.open()"],
)
def test_a_seeded_or_innocent_call_is_not_a_fault(source: str) -> None:
    assert not impure_calls(source)
