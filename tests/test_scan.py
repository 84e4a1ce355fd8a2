"""What the walk takes, passes over and survives."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiosearch.errors import UsageError
from audiosearch.ingest.scan import Target, listed, scan, stat_file, targets


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(root: Path, **options) -> list[str]:
    return [os.fsdecode(file.path) for file in scan(str(root), **options)]


def test_media_of_every_kind_is_found_with_its_size_and_time(tmp_path):
    put(tmp_path / "b.WAV", b"12345")
    for name in ("a.flac", "deep/er/c.Mp3", "film.mkv", "notes.txt", "no_extension", ".wav", "script.ts"):
        put(tmp_path / name)
    files = {os.fsdecode(file.path): file for file in scan(str(tmp_path))}
    assert list(files) == ["a.flac", "b.WAV", "film.mkv", "deep/er/c.Mp3"]
    stat = (tmp_path / "b.WAV").stat()
    assert (files["b.WAV"].size, files["b.WAV"].mtime_ns, files["b.WAV"].inode) == (5, stat.st_mtime_ns, stat.st_ino)


def test_a_directory_named_like_a_file_is_walked_and_not_taken(tmp_path):
    put(tmp_path / "x.wav" / "inside.wav")
    assert found(tmp_path) == ["x.wav/inside.wav"]


def test_trash_thumbnails_and_version_control_are_left_out(tmp_path):
    for name in ("@eaDir/a.wav", ".git/a.wav", ".Trash-1000/a.wav", "$RECYCLE.BIN/a.wav", "._a.wav", "sub/._b.mp3"):
        put(tmp_path / name)
    put(tmp_path / ".hidden" / "kept.wav")
    assert found(tmp_path) == [".hidden/kept.wav"]


def test_symlink_loops_end_and_the_real_name_wins(tmp_path):
    put(tmp_path / "real" / "a.wav")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real" / "self")
    (tmp_path / "again").symlink_to(tmp_path / "real")
    assert found(tmp_path) == ["real/a.wav"]


def test_linked_directories_and_files_are_followed(tmp_path):
    put(tmp_path / "elsewhere" / "a.wav")
    put(tmp_path / "elsewhere" / "deep" / "b.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (root / "one.wav").symlink_to(tmp_path / "elsewhere" / "a.wav")
    assert found(root) == ["one.wav", "link/b.wav"]


def test_a_dangling_link_and_a_pipe_are_passed_over(tmp_path):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    warnings: list[str] = []
    assert found(tmp_path, warnings=warnings) == []
    assert len(warnings) == 1 and "gone.wav" in warnings[0]


def test_a_directory_that_cannot_be_listed_is_a_warning(tmp_path, monkeypatch):
    put(tmp_path / "good" / "a.wav")
    put(tmp_path / "locked" / "b.wav")
    list_directory = os.scandir

    def deny(path):
        if os.fsencode(path).endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return list_directory(path)

    monkeypatch.setattr(os, "scandir", deny)  # tests may run as root, whom no mode bits stop
    warnings: list[str] = []
    assert found(tmp_path, warnings=warnings) == ["good/a.wav"]
    assert len(warnings) == 1 and "locked" in warnings[0] and "Permission denied" in warnings[0]


def test_a_name_in_no_encoding_survives(tmp_path):
    name = b"caf\xe9.wav"
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(b"x")
    assert [file.path for file in scan(str(tmp_path))] == [name]


def test_a_tree_deeper_than_the_stack_is_walked(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 300)
    put(deep / "a.wav")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        assert [path.count("/") for path in found(tmp_path)] == [300]
    finally:
        sys.setrecursionlimit(limit)


def test_a_single_file_is_taken_whatever_its_name(tmp_path):
    put(tmp_path / "take.xyz", b"123")
    (target,) = targets([str(tmp_path / "take.xyz")], [])
    assert target == Target(str(tmp_path), b"take.xyz", is_file=True)
    assert [(file.path, file.size) for file in target.files([])] == [(b"take.xyz", 3)]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.*No such file"):
        targets([str(tmp_path), str(tmp_path / "nowhere")], [])


def test_a_device_is_refused():
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        targets([os.devnull], [])


def test_a_file_belongs_to_one_root_only(tmp_path):
    put(tmp_path / "a" / "1.wav")
    put(tmp_path / "a" / "sub" / "2.wav")
    outer, inner = str(tmp_path / "a"), str(tmp_path / "a" / "sub")
    (part,) = targets([inner], [outer])
    assert (part.root, part.under) == (outer, b"sub")
    assert [file.path for file in part.files([])] == [b"sub/2.wav"]
    whole = targets([outer], [inner])
    assert [(target.root, file.path) for target in whole for file in target.files([])] == [
        (outer, b"1.wav"),
        (inner, b"2.wav"),
    ]
    (single,) = targets([inner + "/2.wav"], [outer, str(tmp_path / "a" / "su")])
    assert (single.root, single.under) == (outer, b"sub/2.wav")


def test_the_library_itself_is_not_walked(tmp_path):
    put(tmp_path / "library" / "a.wav")
    put(tmp_path / "b.wav")
    (target,) = targets([str(tmp_path)], [], exclude=[str(tmp_path / "library")])
    assert [file.path for file in target.files([])] == [b"b.wav"]


def test_a_file_that_is_gone_says_why(tmp_path):
    assert stat_file(str(tmp_path), b"gone.wav").error == "No such file or directory"


def test_scanning_imports_nothing_heavy():
    code = (
        "import sys, audiosearch.ingest.scan\n"
        "print(sorted({'numpy', 'torch', 'av', 'faiss', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_listed_files_belong_to_the_innermost_root_and_may_have_gone(tmp_path: Path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for path in (outer / "a.wav", inner / "b.wav", tmp_path / "c.wav"):
        path.write_bytes(b"x")
    chosen = [str(path) for path in (outer / "a.wav", inner / "b.wav", tmp_path / "c.wav", outer / "gone.wav")]
    by_root = listed(chosen, [str(outer), str(inner)])
    assert [(each.root, each.paths) for each in by_root] == [
        (str(outer), (b"a.wav", b"gone.wav")),
        (str(inner), (b"b.wav",)),
        (str(tmp_path), (b"c.wav",)),
    ]
    warnings: list[str] = []
    assert [file.path for each in by_root for file in each.files(warnings)] == [b"a.wav", b"b.wav", b"c.wav"]
    assert warnings == []
