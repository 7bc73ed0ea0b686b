"""Fingerprints of data sets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.capture import fingerprint_dataset

KIB = 1024


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small data set: two files in folders, one beside them."""
    root = tmp_path / "data"
    for name, content in {"labels.csv": b"a,b\n", "train/0.png": b"zero", "val/0.png": b"null"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def fingerprint(path: Path, **limits: int) -> str:
    return str(fingerprint_dataset(path, **limits)["fingerprint"])


# --- What it says ------------------------------------------------------------------------------------------------


def test_a_folder_is_described(data: Path) -> None:
    """Counts, sizes and the way the fingerprint was made are told, as plain values."""
    facts = fingerprint_dataset(data)
    assert len(facts.pop("fingerprint")) == 64
    assert facts == {
        "algorithm": "sha256-tree-v1",
        "mode": "full",
        "sample_bytes": None,
        "path": str(data),
        "file_count": 3,
        "total_bytes": 12,
        "link_count": 0,
        "unreadable_count": 0,
        "unreadable": [],
    }


def test_a_file_has_the_digest_that_sha256sum_prints(data: Path) -> None:
    """The fingerprint of one file can be checked with the tool that everybody has."""
    facts = fingerprint_dataset(data / "labels.csv")
    assert (facts["fingerprint"], facts["algorithm"]) == (hashlib.sha256(b"a,b\n").hexdigest(), "sha256")


def test_a_tree_has_the_digest_that_the_documentation_defines(data: Path) -> None:
    """The records of version 1 stay as they are: an old fingerprint can be compared with a new one for ever."""
    (data / "link").symlink_to("labels.csv")
    records = b""
    for kind, name, content in [
        (b"file", b"labels.csv", b"a,b\n"),
        (b"link", b"link", b"labels.csv"),
        (b"file", b"train/0.png", b"zero"),
        (b"file", b"val/0.png", b"null"),
    ]:
        what = content if kind == b"link" else hashlib.sha256(content).hexdigest().encode()
        size = 0 if kind == b"link" else len(content)
        records += b"%s\0%s\0%d\0%s\n" % (kind, name, size, what)
    assert fingerprint(data) == hashlib.sha256(records).hexdigest()


def test_a_relative_path_and_the_home_folder_are_understood(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the folder is named, it is the same data set with an absolute path."""
    monkeypatch.chdir(data.parent)
    monkeypatch.setenv("HOME", str(data.parent))
    for named in ("data", "data/../data/", "~/data", Path("data")):
        facts = fingerprint_dataset(named)
        assert (facts["path"], facts["fingerprint"]) == (str(data), fingerprint(data))


def test_a_missing_path_is_a_mistake_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what was given, where that was looked for, and what is wanted."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        fingerprint_dataset("imagenet")
    assert "'imagenet'" in str(raised.value)
    assert str(tmp_path / "imagenet") in str(raised.value)


def test_an_empty_folder_has_a_fingerprint(tmp_path: Path) -> None:
    """No files are also a content."""
    facts = fingerprint_dataset(tmp_path)
    assert (facts["file_count"], facts["mode"]) == (0, "full")


# --- Same content, same fingerprint; other content, another one ---------------------------------------------------


def test_a_copy_elsewhere_has_the_same_fingerprint(data: Path, tmp_path: Path) -> None:
    """Place, times and permissions do not count."""
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(data, copy)
    os.utime(copy / "labels.csv", (1, 1))
    (copy / "labels.csv").chmod(0o600)
    (copy / "empty").mkdir()
    assert fingerprint(copy) == fingerprint(data)


def overwrite(data: Path) -> None:
    (data / "train" / "0.png").write_bytes(b"ZERO")


def rename(data: Path) -> None:
    (data / "train" / "0.png").rename(data / "train" / "1.png")


def move(data: Path) -> None:
    (data / "train" / "0.png").rename(data / "0.png")


def add_empty(data: Path) -> None:
    (data / "empty").touch()


def remove(data: Path) -> None:
    (data / "labels.csv").unlink()


def swap(data: Path) -> None:
    (data / "train" / "0.png").write_bytes(b"null")
    (data / "val" / "0.png").write_bytes(b"zero")


@pytest.mark.parametrize("change", [overwrite, rename, move, add_empty, remove, swap])
def test_every_change_changes_the_fingerprint(data: Path, change: Any) -> None:
    """Content, names and places all count."""
    before = fingerprint(data)
    change(data)
    assert fingerprint(data) != before


NAMES = st.text(st.sampled_from("ab-/\n é"), min_size=1, max_size=6)
TREES = st.dictionaries(NAMES, st.binary(max_size=4), max_size=4)


def as_folder(tree: dict[str, bytes], root: Path) -> dict[str, bytes]:
    """Write *tree* below *root*, as far as a file system can hold it, and return what is there."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in tree.items():
        path = root / name.strip("/").replace("//", "/").replace("//", "/")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError:  # a file where a folder is needed, or the other way round
            continue
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@settings(deadline=None)  # writing folders takes as long as the disk takes
@given(first=TREES, second=TREES)
def test_trees_are_equal_when_their_fingerprints_are(
    first: dict[str, bytes], second: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No two different trees share a fingerprint, whatever their names are made of; equal ones do."""
    base = tmp_path_factory.getbasetemp()
    one, two = as_folder(first, base / "one"), as_folder(second, base / "two")
    assert (fingerprint(base / "one") == fingerprint(base / "two")) == (one == two)


# --- Data that is too large to read --------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """One file of 64 KiB; tests take a limit of 16 KiB, so 8 KiB of its head and of its tail are read."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * 256)
    return path


def change_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def test_large_data_is_sampled_and_says_so(large: Path) -> None:
    """Above the limit only heads and tails are read, and mode and sample size tell it."""
    facts = fingerprint_dataset(large, max_bytes=16 * KIB)
    assert (facts["mode"], facts["sample_bytes"], facts["algorithm"]) == (
        "sampled",
        8 * KIB,
        "sha256-tree-v1",
    )
    assert facts["total_bytes"] == 64 * KIB
    assert fingerprint_dataset(large, max_bytes=64 * KIB)["mode"] == "full"


@pytest.mark.parametrize(
    ("position", "seen"),
    [
        (0, True),
        (8 * KIB - 1, True),
        (8 * KIB, False),
        (56 * KIB - 1, False),
        (56 * KIB, True),
        (64 * KIB - 1, True),
    ],
)
def test_a_sample_sees_head_and_tail(large: Path, position: int, seen: bool) -> None:
    """A change in the head or the tail is found, one in the middle is not: that is what ``sampled`` means."""
    before = fingerprint(large, max_bytes=16 * KIB)
    change_byte(large, position)
    assert (fingerprint(large, max_bytes=16 * KIB) != before) is seen


def test_a_sample_sees_the_size(large: Path) -> None:
    """A file that grew in its unread middle has another fingerprint."""
    before = fingerprint(large, max_bytes=16 * KIB)
    content = large.read_bytes()
    large.write_bytes(content[: 32 * KIB] + b"more" + content[32 * KIB :])
    assert fingerprint(large, max_bytes=16 * KIB) != before


def test_many_files_get_smaller_samples(tmp_path: Path) -> None:
    """However many files there are, about the limit is read, and at least 4 KiB of each head and tail."""
    for number in range(8):
        (tmp_path / str(number)).write_bytes(b"x" * 64 * KIB)
    assert fingerprint_dataset(tmp_path, max_bytes=128 * KIB)["sample_bytes"] == 8 * KIB
    assert fingerprint_dataset(tmp_path, max_bytes=1)["sample_bytes"] == 4 * KIB


def test_too_many_files_are_cut_and_say_so(tmp_path: Path) -> None:
    """Beyond the limit of files the first ones by name count, the same on every machine."""
    for name in ("d", "b", "c/1", "c/2", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    facts = fingerprint_dataset(tmp_path, max_files=3)
    assert (facts["mode"], facts["file_count"]) == ("partial", 3)
    (tmp_path / "c" / "2").write_text("not looked at")
    assert fingerprint(tmp_path, max_files=3) == facts["fingerprint"]
    (tmp_path / "c" / "1").write_text("looked at")
    assert fingerprint(tmp_path, max_files=3) != facts["fingerprint"]
    assert fingerprint_dataset(tmp_path, max_files=5)["mode"] == "full"


# --- Links and files that cannot be read ---------------------------------------------------------------------------


def test_links_count_by_their_text_and_are_not_followed(data: Path, tmp_path: Path) -> None:
    """What a link leads to is not read, so data outside of the folder is never part of it; where it points to is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("first")
    (data / "file-link").symlink_to(outside / "secret")
    (data / "folder-link").symlink_to(outside)
    (data / "broken-link").symlink_to("nowhere")
    facts = fingerprint_dataset(data)
    assert (facts["file_count"], facts["link_count"], facts["total_bytes"]) == (3, 3, 12)
    (outside / "secret").write_text("second")
    assert fingerprint(data) == facts["fingerprint"]
    (data / "broken-link").unlink()
    (data / "broken-link").symlink_to("elsewhere")
    assert fingerprint(data) != facts["fingerprint"]


def test_links_that_form_a_circle_end(data: Path) -> None:
    """A link to a folder above does not make the data set endless."""
    (data / "train" / "up").symlink_to(data)
    assert fingerprint_dataset(data)["file_count"] == 3


def test_the_path_itself_may_be_a_link(data: Path, tmp_path: Path) -> None:
    """A link that the caller names stands for the data set behind it."""
    (tmp_path / "current").symlink_to(data)
    assert fingerprint(tmp_path / "current") == fingerprint(data)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_what_is_no_file_is_listed_and_not_opened(data: Path) -> None:
    """A named pipe, which would block whoever opens it, is listed as unreadable and changes the fingerprint."""
    before = fingerprint(data)
    os.mkfifo(data / "pipe")
    facts = fingerprint_dataset(data)
    assert facts["unreadable"] == [{"path": "pipe", "reason": "not a regular file"}]
    assert (facts["unreadable_count"], facts["file_count"]) == (1, 3)
    assert facts["fingerprint"] != before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_files_and_folders_are_listed(data: Path) -> None:
    """What may not be read is named with the reason; the rest is read."""
    (data / "labels.csv").chmod(0)
    (data / "val").chmod(0)
    try:
        facts = fingerprint_dataset(data)
    finally:
        (data / "val").chmod(0o700)
    assert facts["unreadable"] == [
        {"path": "labels.csv", "reason": "Permission denied"},
        {"path": "val", "reason": "Permission denied"},
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_only_the_first_ten_unreadable_entries_are_listed(data: Path) -> None:
    """Thousands of unreadable entries are counted, not listed."""
    for number in range(12):
        os.mkfifo(data / f"pipe{number:02}")
    facts = fingerprint_dataset(data)
    assert facts["unreadable_count"] == 12
    assert [entry["path"] for entry in facts["unreadable"]] == [f"pipe{number:02}" for number in range(10)]


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs files whose size is not what they hold"
)
def test_a_file_that_changes_meanwhile_is_listed() -> None:
    """A file that does not hold as much as it claims, as one that grows while it is read, is not trusted."""
    facts = fingerprint_dataset("/proc/self/status")
    assert facts["unreadable"] == [{"path": "", "reason": "changed while it was read"}]


def test_names_of_any_bytes_are_possible(data: Path) -> None:
    """A name that is no UTF-8 does not stop the fingerprint; Windows and macOS refuse to make one."""
    try:
        (data / os.fsdecode(b"caf\xe9")).write_text("x")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    facts = fingerprint_dataset(data)
    assert facts["file_count"] == 4
    assert json.dumps(facts)


def test_a_deep_folder_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    """Depth is bounded by the file system, not by Python's stack."""
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "leaf").touch()
    program = (
        "import sys; from lezea_mlops.capture import fingerprint_dataset; sys.setrecursionlimit(150); "
        "print(fingerprint_dataset(sys.argv[1])['file_count'])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"
