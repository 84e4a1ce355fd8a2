"""What the package shows, what importing it costs, and which part may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import audiosearch

HEAVY = ("torch", "torchaudio", "transformers", "peft", "faiss", "av", "sqlalchemy", "alembic", "numpy", "platformdirs")

# From the bottom up; a part may import those below it and its own, and of the same line only what PEERS says.
LAYERS = (
    ("types", "errors", "config", "media_names"),
    ("demux", "file_names"),
    ("audio", "metadata"),
    ("chunk",),
    ("features",),
    ("weights",),
    ("model",),
    ("embed", "store", "indexes", "metrics"),
    ("models", "index_build"),
    ("index_cache",),
    ("ingest", "query", "export"),
    ("filling",),
    ("library",),
    ("cli", "server", "trainer"),
    ("__main__",),
)
PEERS = {
    ("types", "errors"),
    ("config", "errors"),
    ("cli", "trainer"),  # the `train` command, when it is called
}
INNERMOST = {"indexes": {"types", "errors"}, "migrations": {"store"}}  # these know less than their line would allow
PACKAGE = Path(audiosearch.__file__).parent
SIDE_FOLDERS = ("trainer", "indexes", "migrations")


def test_all_is_what_we_promise():
    assert audiosearch.__all__ == [
        "Answer",
        "AudioSearchError",
        "Hit",
        "IngestSummary",
        "Library",
        "Moment",
        "Query",
        "Status",
        "__version__",
    ]
    for name in audiosearch.__all__:
        assert getattr(audiosearch, name) is not None
    with pytest.raises(AttributeError, match="Nothing"):
        _ = audiosearch.Nothing


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def imported_by(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` ran in a new Python, beyond those loaded before it."""
    report = "import sys; before = set(sys.modules)\n{}\nprint('MODULES', *sorted(set(sys.modules) - before))"
    last = run_python(report.format(code)).splitlines()[-1].split()
    assert last[0] == "MODULES"
    return {name.partition(".")[0] for name in last[1:]}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["no-such-command"], []])
def test_help_imports_nothing_heavy(argv: list[str]):
    loaded = imported_by(f"from audiosearch.cli import run; run({argv!r})")
    assert "click" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("command", ["ingest", "query", "status", "spaces", "train", "evaluate", "doctor"])
def test_help_of_a_command_imports_nothing_heavy(command: str):
    loaded = imported_by(f"from audiosearch.cli import run; assert run([{command!r}, '--help']) == 0")
    assert not loaded & set(HEAVY)


def test_light_modules_import_nothing_heavy():
    light = "audiosearch, audiosearch.config, audiosearch.errors, audiosearch.library, audiosearch.query.engine"
    assert not imported_by(f"import {light}") & (set(HEAVY) - {"numpy"})


def sources() -> list[tuple[str, Path]]:
    """Every module as (dotted name below `audiosearch`, file), the mapped side folders included."""
    from importlib.util import find_spec

    found = [(".".join(path.relative_to(PACKAGE).with_suffix("").parts), path) for path in PACKAGE.rglob("*.py")]
    for side in SIDE_FOLDERS:
        spec = find_spec(f"audiosearch.{side}")
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        if not folder.is_relative_to(PACKAGE):  # an editable install
            found += [
                (".".join((side, *path.relative_to(folder).with_suffix("").parts)), path)
                for path in folder.rglob("*.py")
            ]
    return sorted((name.removesuffix(".__init__"), path) for name, path in found if name != "__init__")


def imports_of(path: Path, name: str) -> set[str]:
    """Parts of audiosearch that a module imports anywhere in it, in functions and under TYPE_CHECKING too."""
    parts: set[str] = set()
    package = ["audiosearch", *name.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts |= {target.split(".")[1] for target in targets if target.startswith("audiosearch.")}
    return {part for part in parts if not part.startswith("__")}


def test_imports_go_down_the_layers_and_never_back():
    level = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}
    wrong: list[str] = []
    for name, path in sources():
        part = name.partition(".")[0]
        for target in imports_of(path, name) - {part}:
            if part in INNERMOST:
                allowed = target in INNERMOST[part]
            elif target == "migrations":
                allowed = part == "store"
            elif part not in level or target not in level:
                allowed = False  # a new part: say here where it belongs
            else:
                allowed = level[target] < level[part] or (part, target) in PEERS
            if not allowed:
                wrong.append(f"audiosearch.{name} imports audiosearch.{target}")
    assert not wrong, "\n".join(wrong)


def test_the_layer_test_sees_imports_in_functions(tmp_path: Path):
    module = tmp_path / "engine.py"
    module.write_text(
        "def f():\n    from audiosearch import library\n    import audiosearch.cli.query\nfrom ..store import store\n"
        "from .moments import x\nimport numpy\n"
    )
    assert imports_of(module, "query.engine") == {"library", "cli", "store", "query"}


def test_every_command_is_listed_with_the_help_it_has():
    """The one-line helps are written twice so that `--help` imports nothing; both must say the same."""
    from importlib import import_module

    from audiosearch.cli import COMMANDS

    for name, (module, attribute, help_) in COMMANDS.items():
        command = getattr(import_module(module), attribute)
        assert command.name == name
        assert command.get_short_help_str(limit=200).rstrip(".") == help_.rstrip(".")
