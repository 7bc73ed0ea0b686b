"""Finishers for tests, which name them as ``tests.finishers:<function>``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.finishers import Made, holds_events

PAGE, TWO, FILE, NOTHING, BROKEN, WAITING, OF_TREES = (
    f"tests.finishers:{name}" for name in ("page", "two", "file", "nothing", "broken", "waiting", "of_trees")
)


def calls(folder: RunFolder) -> list[str]:
    """Return which finishers were called for a run, in their order."""
    path = folder.path / "calls.txt"
    return path.read_text().split() if path.exists() else []


def _called(folder: RunFolder, name: str) -> None:
    with (folder.path / "calls.txt").open("a") as file:
        file.write(f"{name}\n")


def page(folder: RunFolder) -> list[Made]:
    """Make one page."""
    _called(folder, "page")
    return [Made("evolution/tree.html", b"<p>tree</p>", "tree")]


def two(folder: RunFolder) -> Iterator[Made]:
    """Make two files, one by one."""
    _called(folder, "two")
    for name in ("report/a.txt", "report/b.txt"):
        yield Made(name, name.encode(), "report")


def file(folder: RunFolder) -> list[Made]:
    """Make a file in the run folder."""
    (folder.path / "report.html").write_text("<p>report</p>")
    return [Made("report.html", Path("report.html"), "report")]


def nothing(folder: RunFolder) -> list[Made]:
    """Find nothing to do."""
    _called(folder, "nothing")
    return []


def broken(folder: RunFolder) -> list[Made]:
    """Fail, with a secret in the error."""
    _called(folder, "broken")
    raise ValueError("no page from postgres://ada:canary@db.example/runs")


def missing_file(folder: RunFolder) -> list[Made]:
    """Name a file that is not there."""
    return [Made("page.html", b"", "page"), Made("report.html", Path("missing.html"), "report")]


def waiting(folder: RunFolder) -> list[Made]:
    """Make a page when somebody opens the gate, a pipe in the run folder."""
    _called(folder, "waiting")
    return [Made("evolution/late.html", (folder.path / "gate").read_bytes(), "tree")]


def of_trees(folder: RunFolder) -> list[Made]:
    """Make a page of a run that holds modification trees."""
    return page(folder) if holds_events(folder, ["modification_tree"]) else []
