"""Fingerprints of data sets: the same content gives the same fingerprint, wherever it lies.

How a fingerprint is made (``algorithm``):

``sha256``
    One file, read whole: the plain SHA-256 of its content, the one that ``sha256sum`` prints.
``sha256-tree-v1``
    Everything else: the SHA-256 over one record per entry, in the order of their paths. A record is
    ``<kind> NUL <path> NUL <size> NUL <what> LF``; the path is relative to the folder, with ``/`` (empty for a single
    file), and paths are ordered by their bytes. By kind:

    * ``file``: *what* is the SHA-256 of what was read of the content, in hexadecimal;
    * ``link``: size 0, *what* is the text of a symbolic link, which is never followed;
    * ``unreadable``: *what* is empty.

    Empty folders, times, owners and permissions do not count.

How much of it was read (``mode``): ``full``, every byte; ``sampled``, the first and the last ``sample_bytes`` of each
file, because the data is larger than the limit; ``partial``, only the entries met first by going through the folders in
the order of names, because there are too many. A change that the mode does not look at does not change the
fingerprint, so only a ``full`` one proves that nothing changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

_MIB = 1024 * 1024
_CHUNK_BYTES = _MIB
_LARGEST_SAMPLE_BYTES = _MIB
_SMALLEST_SAMPLE_BYTES = 4096
_LISTED_UNREADABLE = 10


def fingerprint_dataset(
    path: Path | str, *, max_files: int = 100_000, max_bytes: int = 1024 * _MIB
) -> dict[str, Any]:
    """Fingerprint the content of a file or a folder, reading a bounded amount of it.

    Args:
        path: the file or folder; a link here is followed, links inside the folder are not.
        max_files: entries looked at; a folder with more gets a fingerprint of the first ones, with mode ``partial``.
        max_bytes: data up to this size is read whole; of larger data each file's head and tail are read, at most
            1 MiB each, and less where there are so many files that this would exceed the limit too.

    Returns:
        ``fingerprint`` (hexadecimal), ``algorithm``, ``mode`` and ``sample_bytes`` (None where files were read whole)
        as the head of this module defines them; ``path`` (absolute), ``file_count``, ``total_bytes``, ``link_count``,
        and ``unreadable_count`` with the first ten of them as ``unreadable`` (path and reason).

    Raises:
        FileNotFoundError: there is nothing at *path*.
    """
    root = Path(os.path.abspath(os.path.expanduser(path)))
    if not root.exists():
        raise FileNotFoundError(
            f"dataset path {str(path)!r} does not exist (looked at {root}): "
            "name the file or the folder that holds the data"
        )
    survey = _survey(root, max_files)
    sample_bytes = None if survey.total_bytes <= max_bytes else _sample_bytes(max_bytes, len(survey.files))
    fingerprint, algorithm = _fingerprint(survey, sample_bytes)
    whole = "full" if sample_bytes is None else "sampled"
    return {
        "fingerprint": fingerprint,
        "algorithm": algorithm,
        "mode": "partial" if survey.cut else whole,
        "sample_bytes": sample_bytes,
        "path": str(root),
        "file_count": len(survey.files),
        "total_bytes": survey.total_bytes,
        "link_count": len(survey.links),
        "unreadable_count": len(survey.unreadable),
        "unreadable": [
            {"path": name, "reason": reason}
            for name, reason in islice(sorted(survey.unreadable.items()), _LISTED_UNREADABLE)
        ],
    }


@dataclass
class _Survey:
    """What a data set consists of, by relative path; and what could not be looked into."""

    root: Path
    files: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    @property
    def total_bytes(self) -> int:
        return sum(self.files.values())


def _survey(root: Path, max_files: int) -> _Survey:
    """List what lies below *root*, sizes and links, without opening a file."""
    survey = _Survey(root)
    if root.is_file():
        survey.files[""] = root.stat().st_size
        return survey
    # One more than is looked at, to learn whether there are more.
    entries = _entries_below(root, max_files + 1, survey.unreadable)
    for entry, name in islice(entries, max_files):
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                survey.links[name] = os.readlink(entry.path)
            elif stat.S_ISREG(status.st_mode):
                survey.files[name] = status.st_size
            else:
                survey.unreadable[name] = "not a regular file"  # to open a pipe would wait for its writer
        except OSError as error:
            survey.unreadable[name] = _reason(error)
    survey.cut = next(entries, None) is not None
    return survey


def _entries_below(
    root: Path, limit: int, unreadable: dict[str, str]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield every entry that is no folder, with its relative path, always in the same order."""
    open_folders = [_listing(str(root), "", limit, unreadable)]
    while open_folders:
        for entry, name in open_folders[-1]:
            if _is_folder(entry):
                open_folders.append(_listing(entry.path, f"{name}/", limit, unreadable))
                break
            yield entry, name
        else:
            open_folders.pop()


def _listing(
    folder: str, prefix: str, limit: int, unreadable: dict[str, str]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield the first *limit* entries of one folder by name, without keeping millions of them in memory."""
    try:
        with os.scandir(folder) as entries:
            first = nsmallest(limit, entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        unreadable[prefix.rstrip("/")] = _reason(error)
        return
    for entry in first:
        yield entry, prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # what is wrong with it is said where its size is asked for


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _sample_bytes(max_bytes: int, file_count: int) -> int:
    """Return how much of a file's head, and of its tail, is read so that all files together stay near *max_bytes*."""
    return min(_LARGEST_SAMPLE_BYTES, max(_SMALLEST_SAMPLE_BYTES, max_bytes // (2 * file_count)))


def _fingerprint(survey: _Survey, sample_bytes: int | None) -> tuple[str, str]:
    """Return the fingerprint and its algorithm; files that cannot be read are noted in *survey*."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    digests: dict[str, str] = {}
    for name, size in survey.files.items():
        try:
            digests[name] = _digest(survey.root / name if name else survey.root, size, sample_bytes, buffer)
        except OSError as error:
            survey.unreadable[name] = _reason(error)
    if sample_bytes is None and "" in digests:
        return digests[""], "sha256"
    return _tree_digest(survey, digests), "sha256-tree-v1"


def _tree_digest(survey: _Survey, digests: dict[str, str]) -> str:
    records = [("file", name, survey.files[name], digest) for name, digest in digests.items()]
    records += [("link", name, 0, target) for name, target in survey.links.items()]
    records += [("unreadable", name, survey.files.get(name, 0), "") for name in survey.unreadable]
    tree = hashlib.sha256()
    for kind, name, size, what in sorted(records, key=lambda record: os.fsencode(record[1])):
        tree.update(
            b"\0".join((kind.encode(), os.fsencode(name), str(size).encode(), os.fsencode(what))) + b"\n"
        )
    return tree.hexdigest()


def _digest(path: Path, size: int, sample_bytes: int | None, buffer: memoryview) -> str:
    """Return the SHA-256 of a file's content, or of its head and tail.

    Raises:
        OSError: it cannot be read, or its content is not *size* bytes long any more.
    """
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        if sample_bytes is None or size <= 2 * sample_bytes:
            complete = _read_into(digest, file, size, buffer) == size and not file.read(1)
        else:
            complete = _read_into(digest, file, sample_bytes, buffer) == sample_bytes
            file.seek(size - sample_bytes)
            complete = complete and _read_into(digest, file, sample_bytes, buffer) == sample_bytes
    if not complete:
        raise OSError("changed while it was read")
    return digest.hexdigest()


def _read_into(digest: Any, file: FileIO, count: int, buffer: memoryview) -> int:
    """Feed up to *count* bytes of *file* to *digest* and return how many there were."""
    left = count
    while left and (got := file.readinto(buffer[: min(left, len(buffer))])):
        digest.update(buffer[:got])
        left -= got
    return count - left
