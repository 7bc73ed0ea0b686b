"""Files that Prometheus and node_exporter read: whole at any moment, readable by others, gone with the process."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops._process import ProcessIdentity
from lezea_mlops.sinks.prometheus import (
    Exporter,
    LiveView,
    remove_dead_textfiles,
    remove_textfile,
    render,
    write_textfile,
)
from lezea_mlops.sinks.prometheus.targets import announce, as_target, remove_dead_targets
from tests.sinks.prometheus.pages import full_view

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
DIES = """
import os
from pathlib import Path
from lezea_mlops.sinks.prometheus import Exporter, LiveView, write_textfile
exporter = Exporter.of_this_process()
view = LiveView("dead")
exporter.add(view)
exporter.serve(0, targets=Path("targets"))
write_textfile(Path("text"), [view])
os._exit(1)
"""


def content(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1", "127.0.0.1:8001"),
        ("10.1.2.3", "10.1.2.3:8001"),
        ("0.0.0.0", "127.0.0.1:8001"),
        ("::1", "[::1]:8001"),
        ("::", "[::1]:8001"),
    ],
)
def test_a_target_is_an_address_that_can_be_reached(address: str, target: str) -> None:
    """Who listens everywhere is reached on loopback."""
    assert as_target(address, 8001) == target


def test_a_process_is_announced_while_it_serves(exporter: Exporter, tmp_path: Path) -> None:
    """In every folder that a run names, once; all are withdrawn with the last view."""
    view = full_view()
    exporter.add(view)
    folders = [tmp_path / "a" / "targets", tmp_path / "b"]
    for folder in [*folders, *folders]:
        place = exporter.serve(0, targets=folder)
    assert place is not None
    for folder in folders:
        (file,) = folder.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        (group,) = json.loads(file.read_text())
        assert group["targets"] == [f"127.0.0.1:{place[1]}"]
        assert (
            ProcessIdentity.read(json.loads(group["labels"]["__lezea_process"]))
            == ProcessIdentity.of_this_process()
        )
    exporter.remove(view)
    assert [content(folder) for folder in folders] == [[], []]
    exporter.add(view)
    exporter.serve(0, targets=folders[0])
    assert [len(content(folder)) for folder in folders] == [1, 0]


def test_no_label_of_a_target_becomes_a_part_of_a_series(tmp_path: Path) -> None:
    """Prometheus drops what begins with two underscores: a pid there would make new series with every start."""
    (group,) = json.loads(announce(tmp_path, "127.0.0.1", 8001).read_text())
    assert [name for name in group["labels"] if not name.startswith("__")] == []


def test_a_folder_that_cannot_be_written_is_one_warning(
    exporter: Exporter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page is served all the same."""
    (tmp_path / "file").write_text("no folder")
    assert exporter.serve(0, targets=tmp_path / "file") is not None
    assert len(caplog.messages) == 1
    assert str(tmp_path / "file") in caplog.text


def test_what_a_dead_process_left_is_removed_by_the_next(
    exporter: Exporter, run_python: RunPython, tmp_path: Path
) -> None:
    """By whoever starts on this host; what others wrote, or nobody can read, stays."""
    targets, text = tmp_path / "targets", tmp_path / "text"
    run_python(DIES, check=False)
    assert [len(content(folder)) for folder in (targets, text)] == [1, 1]
    elsewhere = ProcessIdentity(1, 1, "another-host", "another-boot").stored()
    for name, label in {"elsewhere": json.dumps(elsewhere), "unreadable": "{", "number": "7"}.items():
        (targets / f"{name}.json").write_text(json.dumps([{"labels": {"__lezea_process": label}}]))
        (text / f"lezea-{name}.prom").write_text(f"# lezea_process {label}\n")
    (targets / "by_hand.json").write_text('[{"targets": ["127.0.0.1:9100"]}]')
    (targets / "torn.json").write_text("[")
    (text / "lezea-by-hand.prom").write_text("up 1\n")
    (text / "lezea-folder.prom").mkdir()
    assert remove_dead_targets(targets) == 1
    assert remove_dead_textfiles(text) == 1
    assert content(targets) == [
        "by_hand.json",
        "elsewhere.json",
        "number.json",
        "torn.json",
        "unreadable.json",
    ]
    assert content(text) == [
        "lezea-by-hand.prom", "lezea-elsewhere.prom", "lezea-folder.prom", "lezea-number.prom", "lezea-unreadable.prom",
    ]  # fmt: skip
    run_python(DIES, check=False)
    exporter.serve(0, targets=targets)
    assert sum(name.startswith(ProcessIdentity.of_this_process().host) for name in content(targets)) == 1


def test_a_view_can_be_a_file_for_node_exporter(tmp_path: Path) -> None:
    """Readable by others; it says what a scrape would, and is removed with the run."""
    mask = os.umask(0o077)
    try:
        (path,) = write_textfile(tmp_path, [full_view("run-1")])
    finally:
        os.umask(mask)
    assert content(tmp_path) == ["lezea-run-1.prom"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_bytes().partition(b"\n")[2] == render([full_view("run-1")])
    remove_textfile(tmp_path, "run-1")
    remove_textfile(tmp_path, "run-1")
    assert content(tmp_path) == []


@pytest.mark.parametrize("run_id", ["../../up", "a/b", "x" * 300, "ä", "\ud800", "", "a b"])
def test_the_file_of_any_run_stays_in_its_folder(tmp_path: Path, run_id: str) -> None:
    """And belongs to that run alone."""
    folder = tmp_path / "deep" / "text"
    paths = {write_textfile(folder, [LiveView(name)])[0] for name in (run_id, run_id + "_", "run-1")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {folder}
    assert len(content(folder)) == 3
    assert all(name.startswith("lezea-") and name.endswith(".prom") for name in content(folder))


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    """However often it is written anew, what stands there ends where a page ends."""
    view = full_view("run-1")
    (path,) = write_textfile(tmp_path, [view])
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            write_textfile(tmp_path, [view])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        pages = [path.read_bytes() for _ in range(300)]
        others = [name for _ in range(300) for name in content(tmp_path) if not name.startswith(".")]
    finally:
        ended.set()
        writer.join()
    assert [page for page in pages if not page.endswith(b'lezea_series_dropped{run="run-1"} 0.0\n')] == []
    assert set(others) == {"lezea-run-1.prom"}


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """And the error says which it is."""
    (tmp_path / "lezea-run-1.prom").mkdir()
    with pytest.raises(OSError, match="lezea-run-1"):
        write_textfile(tmp_path, [full_view("run-1")])
    assert content(tmp_path) == ["lezea-run-1.prom"]
