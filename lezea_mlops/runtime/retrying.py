"""What a destination once refused is offered to it again, and nothing of it is forgotten if that is cut short.

The file ``rejected/<destination>.jsonl`` gets another name first, so that what is refused again comes into a new one.
While a file of that other name exists, its records are not known to have come again: every delivery of the run begins
with them. It is removed when one delivery came to the journal's end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.rewind import rewind


def set_aside_again(folder: RunFolder, destination: str) -> None:
    """Give the file of refused records a name that makes the next delivery offer them again.

    Raises:
        OSError: the file system refuses; the file keeps its name.
    """
    path = folder.rejected(destination)
    if path.exists():
        os.replace(path, path.with_name(f"{path.stem}.{os.urandom(4).hex()}.retried"))


def files_to_retry(folder: RunFolder, destination: str) -> list[Path]:
    """Return the files whose records are to be offered again."""
    path = folder.rejected(destination)
    return sorted(path.parent.glob(f"{path.stem}.*.retried"))


def rewind_to_set_aside(folder: RunFolder, destination: str) -> None:
    """Set the cursor back, so that every record that waits for its second try is delivered once more.

    Raises:
        JournalError: a journal cannot be read, or does not hold such a record any more.
        OSError: the file system refuses.
    """
    numbers: dict[str, set[int]] = {}
    for path in files_to_retry(folder, destination):
        for wid, seq in refused_in(path):
            numbers.setdefault(wid, set()).add(seq)
    missing = []
    for wid, refused in numbers.items():
        # The last one tells whether the journal, cut since then, still holds them all.
        for seq in dict.fromkeys((max(refused), min(refused))):
            try:
                rewind(folder, destination, {wid: seq})
            except JournalError as error:
                missing.append(str(error))
    if missing:
        where = ", ".join(map(str, files_to_retry(folder, destination)))
        raise JournalError(f"{'; '.join(missing)}. The records themselves stand in {where}")


def forget_set_aside(folder: RunFolder, destination: str) -> None:
    """Remove the files whose records have all been offered again.

    Raises:
        OSError: the file system refuses; they are offered once more, which changes nothing.
    """
    for path in files_to_retry(folder, destination):
        path.unlink()


def refused_in(path: Path) -> Iterator[tuple[str, int]]:
    """Yield writer and number of each record in a file of refused ones; none if there is no such file.

    Half a line, which a killed delivery left, is stepped over: its record comes again by itself.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    note = json.loads(line)
                    yield str(note["wid"]), int(note["seq"])
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    continue
    except FileNotFoundError:
        return
