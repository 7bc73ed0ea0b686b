"""Blobs: what a file held at the call is kept under its hash, whatever becomes of the file."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from lezea_mlops.journal import BlobStore, Captured, place_under_name
from lezea_mlops.journal.blobs import clone

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "run" / "blobs" / "sha256")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights" * 1_000)
    return path


def files(store: BlobStore) -> list[str]:
    """Return every file below the store."""
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("*") if path.is_file())


def place_of(content: bytes) -> str:
    """Return where *content* belongs."""
    digest = sha256(content).hexdigest()
    return f"{digest[:2]}/{digest[2:]}"


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3 * MIB + 1)], ids=["empty", "short", "long"])
def test_content_stands_under_its_hash(store: BlobStore, tmp_path: Path, content: bytes) -> None:
    """A file and bytes of the same content are one blob, private, at the place that its hash names."""
    source = tmp_path / "source"
    source.write_bytes(content)
    captured = store.put_file(source, 10 * MIB)
    assert captured == Captured(sha256(content).hexdigest(), len(content)) == store.put_bytes(content)
    assert files(store) == [place_of(content)]
    place = store.path(captured.sha256)
    assert place.read_bytes() == content
    assert place.stat().st_mode & 0o777 == 0o600


def test_what_is_overwritten_later_is_kept_as_it_was(store: BlobStore, source: Path) -> None:
    """A checkpoint that the next epoch writes into, cuts or deletes is delivered as it was at its call."""
    before = source.read_bytes()
    captured = store.put_file(source, MIB)
    assert captured is not None
    with source.open("r+b") as file:
        file.write(b"WEIGHTS")
    later = store.put_file(source, MIB)
    assert later is not None
    source.write_bytes(b"")
    source.unlink()
    assert store.path(captured.sha256).read_bytes() == before
    assert store.path(later.sha256).read_bytes() == b"WEIGHTS" + before[7:]


def test_the_same_content_is_stored_once(store: BlobStore, source: Path) -> None:
    """A second capture leaves the blob where it is, and nothing beside it."""
    captured = store.put_file(source, MIB)
    assert captured is not None
    first = store.path(captured.sha256).stat()
    assert store.put_file(source, MIB) == store.put_bytes(source.read_bytes()) == captured
    again = store.path(captured.sha256).stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert files(store) == [place_of(source.read_bytes())]


@pytest.mark.parametrize("left", [b"", b"half"])
def test_a_blob_that_lost_its_content_is_stored_again(store: BlobStore, source: Path, left: bytes) -> None:
    """A power loss may leave a name without its content; the next capture of the content mends it."""
    content = source.read_bytes()
    for put in (lambda: store.put_bytes(content), lambda: store.put_file(source, MIB)):
        captured = put()
        assert captured is not None
        store.path(captured.sha256).write_bytes(left)
        put()
        assert store.path(captured.sha256).read_bytes() == content
    assert files(store) == [place_of(content)]


def test_threads_that_store_the_same_content_do_not_meet(store: BlobStore, source: Path) -> None:
    """Eight captures at once all succeed and leave one whole blob."""
    results: list[Captured | None] = []
    threads = [threading.Thread(target=lambda: results.append(store.put_file(source, MIB))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = source.read_bytes()
    assert results == [Captured(sha256(content).hexdigest(), len(content))] * 8
    assert files(store) == [place_of(content)]
    assert store.path(sha256(content).hexdigest()).read_bytes() == content


def test_a_missing_source_or_a_folder_raises_and_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    """The error is the system's own."""
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "missing", MIB)
    with pytest.raises(IsADirectoryError):
        store.put_file(tmp_path, MIB)
    assert files(store) == []


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that opens and cannot be read")
def test_a_source_that_fails_while_it_is_read_leaves_nothing(store: BlobStore) -> None:
    """The first page of this process's memory opens as a file and gives an error when read."""
    with pytest.raises(OSError, match="Input/output error"):
        store.put_file(Path("/proc/self/mem"), MIB)
    assert files(store) == []


def test_an_unreadable_source_raises_and_leaves_nothing(store: BlobStore, source: Path) -> None:
    """A file of someone else's is an error at the call."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    source.chmod(0)
    with pytest.raises(PermissionError):
        store.put_file(source, MIB)
    assert files(store) == []


def test_a_store_that_takes_nothing_raises_and_leaves_nothing(store: BlobStore, source: Path) -> None:
    """Where the place is taken by something else, the error comes out and the unfinished file is gone."""
    content = source.read_bytes()
    place = store.path(sha256(content).hexdigest())
    place.parent.parent.mkdir(parents=True)
    place.parent.write_bytes(b"a file where a folder belongs")
    for put in (lambda: store.put_bytes(content), lambda: store.put_file(source, MIB)):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            put()
    assert files(store) == [place.parent.name]


def can_clone(folder: Path) -> bool:
    """Tell whether this file system shares blocks between files."""
    (folder / "one").write_bytes(b"x" * 8_192)
    with (folder / "one").open("rb") as one, (folder / "two").open("wb") as two:
        return clone(one.fileno(), two.fileno())


def test_what_is_too_large_to_copy_is_cloned_or_left(store: BlobStore, source: Path, tmp_path: Path) -> None:
    """Above the limit the file is taken only where that costs nothing; else nothing is left behind."""
    captured = store.put_file(source, 6_999)
    if can_clone(tmp_path):
        assert captured is not None
        assert store.path(captured.sha256).read_bytes() == source.read_bytes()
    else:
        assert captured is None
        assert files(store) == []
    assert store.put_file(source, 7_000) is not None


def test_a_placed_file_has_the_name_and_the_content(store: BlobStore, source: Path, tmp_path: Path) -> None:
    """A destination that asks for a file name gets one, whatever folders the name speaks of."""
    captured = store.put_file(source, MIB)
    assert captured is not None
    blob = store.path(captured.sha256)
    for name, expected in (
        ("model.pt", "model.pt"),
        ("checkpoints/../best.pt", "best.pt"),
        ("/etc/x.pt", "x.pt"),
    ):
        placed = place_under_name(blob, tmp_path / "run", name)
        assert placed == tmp_path / "run" / expected
        assert placed.read_bytes() == source.read_bytes()


def test_a_name_that_is_taken_is_given_anew_and_no_blob_is_written_into(
    store: BlobStore, tmp_path: Path
) -> None:
    """A placed file may be a blob's other name: placing another one under it changes the name, not the blob."""
    blobs = [store.path(store.put_bytes(content).sha256) for content in (b"first", b"second")]
    for turn in (0, 1, 1, 0):
        placed = place_under_name(blobs[turn], tmp_path, "model.pt")
        assert placed.read_bytes() == (b"first", b"second")[turn]
    assert [blob.read_bytes() for blob in blobs] == [b"first", b"second"]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_a_file_is_placed_on_another_file_system_by_copy(store: BlobStore) -> None:
    """Where no hard link reaches, the content is copied."""
    blob = store.path(store.put_bytes(b"content").sha256)
    folder = Path("/dev/shm") / f"lezea-test-{os.getpid()}"
    folder.mkdir()
    try:
        placed = place_under_name(blob, folder, "model.pt")
        assert placed.read_bytes() == b"content"
        placed.unlink()
    finally:
        folder.rmdir()
    assert blob.read_bytes() == b"content"
