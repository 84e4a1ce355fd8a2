"""What an installation holds, and that the documents say what is true of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from fnmatch import fnmatch
from importlib import import_module, metadata
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

import audiosearch
from audiosearch.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SIDE_FOLDERS = ("trainer", "indexes", "migrations")
MOST_WEIGHTS_BYTES = 40_000_000
JUNK = ("__pycache__", "*.pyc", ".*", "*.egg-info")


def sources() -> set[str]:
    """Every file of the tree's package folders, by the path it must have once installed."""
    found = set()
    for folder, installed in {"audiosearch": "", **{side: side for side in SIDE_FOLDERS}}.items():
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            if path.is_file() and not any(fnmatch(part, junk) for part in relative.parts for junk in JUNK):
                found.add((Path("audiosearch") / installed / relative).as_posix())
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel would hold it, built from a copy of the tree."""
    copy = tmp_path_factory.mktemp("build")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("audiosearch", *SIDE_FOLDERS):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*JUNK))
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "build_py", "--build-lib", "built"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return copy / "built"


def test_a_wheel_holds_every_file_and_no_other(built: Path):
    holds = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert holds == sources()  # missing on the left: `packages` or `package_data` in setup.cfg


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "__main__.py",
        "trainer/loop.py",
        "trainer/recipes/mini.yaml",
        "indexes/flat.py",
        "migrations/env.py",
        "migrations/versions/0001_first_catalogue.py",
        "migrations/versions/0002_metadata_of_files.py",
        "migrations/versions/0003_volumes_of_roots.py",
    ],
)
def test_what_runs_only_later_is_in_the_wheel(built: Path, name: str):
    assert (built / "audiosearch" / name).is_file()


def test_the_bundled_model_is_in_the_wheel(built: Path):
    folder = built / "audiosearch/weights/alm2vec-mini"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "CREDITS.csv"):
        assert (folder / name).is_file(), f"{name} is missing"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST_WEIGHTS_BYTES


def test_every_package_has_an_init(built: Path):
    """A folder without one is a namespace package, which tools treat in as many ways as there are tools."""
    folders = {path.parent for path in built.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_torch_and_torchaudio_are_pinned_to_one_release():
    """`2.11.*` also takes torchaudio 2.11.1, which does not load beside torch 2.11.0; there is no torch 2.11.1."""
    wanted = [Requirement(line) for line in metadata.requires("audiosearch") or ()]
    pins = {need.name: str(need.specifier) for need in wanted if need.name in ("torch", "torchaudio")}
    assert pins["torch"] == pins["torchaudio"]
    assert re.fullmatch(r"==\d+\.\d+\.\d+", pins["torch"])


def test_installed_metadata_agrees():
    assert metadata.version("audiosearch") == audiosearch.__version__
    scripts = metadata.entry_points(group="console_scripts", name="audiosearch")
    assert [script.value for script in scripts] == ["audiosearch.cli:main"]


@pytest.mark.parametrize(
    ("platform", "machine", "expected"),
    [("linux", "x86_64", "faiss-gpu"), ("linux", "aarch64", "faiss-cpu"), ("darwin", "arm64", "faiss-cpu")],
)
def test_exactly_one_faiss_on_each_platform(platform: str, machine: str, expected: str):
    """Two distributions own the module `faiss`; with both, the one unpacked last wins."""
    wanted = [Requirement(line) for line in metadata.requires("audiosearch") or () if line.startswith("faiss")]
    environment = {"sys_platform": platform, "platform_machine": machine}
    assert [need.name for need in wanted if need.marker is None or need.marker.evaluate(environment)] == [expected]


def test_python_m_works_outside_the_tree(tmp_path: Path):
    command = [sys.executable, "-m", "audiosearch", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"audiosearch, version {audiosearch.__version__}\n"


# --- documents ---


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/audiosearch demo",
        "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest",
    ],
)
def test_readme_has_the_two_commands(command: str):
    assert f"    {command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def typed_commands() -> list[tuple[str, list[str]]]:
    """Every line of an indented block in a document that calls `audiosearch`, as (where, words after the name)."""
    found = []
    for document in DOCUMENTS:
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            if re.match(r" {4}(\S*/)?audiosearch ", line):
                words = shlex.split(line.strip(), comments=True)
                found.append((f"{document.name}:{number}", words[1:]))
    return found


def parse(words: list[str]) -> None:
    """Parse a command line and run nothing. Raises click's errors for what it does not know."""
    at = next(index for index, word in enumerate(words) if word in COMMANDS)
    context = cli.make_context("audiosearch", words[: at + 1])
    command = cli.get_command(context, words[at])
    assert command is not None
    command.make_context(words[at], words[at + 1 :], parent=context)


@pytest.mark.parametrize(("where", "words"), typed_commands(), ids=lambda value: str(value)[:40])
def test_documented_commands_can_be_typed(where: str, words: list[str], tmp_path: Path):
    """The name and the options exist; folders that stand for the reader's own are replaced by one that does."""
    parse([str(tmp_path) if word.startswith("~/") else word for word in words])


def test_every_command_is_documented():
    documented = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for name in COMMANDS:
        assert re.search(rf"^    .*\baudiosearch( --\S+ \S+)* {name}\b", documented, re.MULTILINE), name


def test_a_wrong_line_in_a_document_would_be_noticed():
    with pytest.raises(click.NoSuchOption):
        parse(["query", "rain", "--no-such-option"])
    with pytest.raises(click.BadParameter):
        parse(["ingest", "/no/such/folder"])
    with pytest.raises(StopIteration):
        parse(["no-such-command"])


def anchors(document: Path) -> set[str]:
    """The fragments that a Markdown document's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        linked = (document.parent / path) if path else document
        assert linked.exists(), f"{document.name} links to {target}, which is not there"
        assert not fragment or fragment in anchors(linked), f"{document.name}: no heading for {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path):
    """A path in backquotes that begins with a folder of this repository is a file or a pattern that matches some."""
    folders = "audiosearch|trainer|indexes|migrations|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{folders})/[\w./*-]+)`", document.read_text(encoding="utf-8")):
        assert list(ROOT.glob(name.rstrip("/"))), f"{document.name} names {name}, which is not there"


def test_changelog_begins_with_what_is_not_released():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_marks_are_those_contributors_are_told_of():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    marks = [line.partition(":")[0] for line in config["tool:pytest"]["markers"].split("\n") if line]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert marks and all(f"`{mark}`" in text for mark in marks)


def test_public_modules_of_the_side_folders_import_by_their_installed_name():
    for side in SIDE_FOLDERS:
        assert import_module(f"audiosearch.{side}").__name__ == f"audiosearch.{side}"
