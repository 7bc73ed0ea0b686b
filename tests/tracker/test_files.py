"""Files, texts and figures: captured at the call, delivered as they were then."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.journal import BlobStore, RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker(
        "Demo", settings={"mode": "offline"} | arguments.pop("settings", {}), **arguments
    )


def files_of(tracker: ExperimentTracker) -> list[Envelope]:
    """Return the records of files."""
    return [record for record in read_run(tracker.run_dir) if record.type in ("checkpoint", "artifact")]


def content_of(tracker: ExperimentTracker, record: Envelope) -> bytes:
    """Return the content that was captured, after checking its hash and size."""
    content = BlobStore(RunFolder(tracker.run_dir).blobs).path(record.event.blob).read_bytes()
    assert record.event.sha256 == record.event.blob == hashlib.sha256(content).hexdigest()
    assert record.event.size == len(content)
    return content


def rejected(tracker: ExperimentTracker) -> list[tuple[str, str]]:
    """Return argument and reason of what was set aside."""
    records = [record.event for record in read_run(tracker.run_dir) if record.type == "rejected_input"]
    return [(event.argument, event.reason) for event in records]


@pytest.mark.parametrize("after", ["overwritten", "truncated", "removed", "replaced by a folder"])
def test_a_checkpoint_is_kept_as_it_was_at_the_call(tmp_path: Path, after: str) -> None:
    """What happens to the file after the call does not change what was captured."""
    path = tmp_path / "last.pt"
    path.write_bytes(b"epoch 1" * 10_000)
    tracker = offline()
    tracker.log_checkpoint(path, step=1, role="best", metadata={"acc": 0.9})
    if after == "overwritten":
        path.write_bytes(b"epoch 2" * 10_000)
    elif after == "truncated":
        os.truncate(path, 3)
    else:
        path.unlink()
        if after == "replaced by a folder":
            path.mkdir()
    (record,) = files_of(tracker)
    assert content_of(tracker, record) == b"epoch 1" * 10_000
    event = record.event
    assert (event.path, event.name, event.step) == (str(path), "last.pt", 1)
    assert (event.role, event.metadata) == ("best", {"acc": 0.9})


def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    """Two files and a text with the same bytes are one blob; an overwritten file is a second."""
    tracker = offline()
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"same")
        tracker.log_checkpoint(name)
    tracker.log_text("same", "c.txt")
    (tmp_path / "a.pt").write_bytes(b"other")
    tracker.log_checkpoint("a.pt")
    assert [content_of(tracker, record) for record in files_of(tracker)] == [b"same"] * 3 + [b"other"]
    assert len([path for path in RunFolder(tracker.run_dir).blobs.rglob("*") if path.is_file()]) == 2


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    """Nothing is captured of it, and that is known."""
    (tmp_path / "empty").write_bytes(b"")
    tracker = offline()
    tracker.log_artifact("empty")
    assert content_of(tracker, files_of(tracker)[0]) == b""


def test_a_reference_names_the_file_and_copies_nothing(tmp_path: Path) -> None:
    """With ``capture="reference"`` path, size, time and inode are kept, from which a later change is seen."""
    path = tmp_path / "huge.pt"
    path.write_bytes(b"weights")
    tracker = offline(capture="reference")
    tracker.log_checkpoint(path)
    (record,) = files_of(tracker)
    status = path.stat()
    assert record.event.reference == {"mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
    assert (record.event.path, record.event.size, record.event.blob) == (str(path), 7, None)
    assert not RunFolder(tracker.run_dir).blobs.exists()


def test_what_is_larger_than_the_limit_is_referenced(tmp_path: Path) -> None:
    """Up to ``capture_max_mb`` a file is copied; above it, where blocks cannot be shared, it is referenced."""
    (tmp_path / "small").write_bytes(b"x" * 1024)
    (tmp_path / "large").write_bytes(b"x" * 1025)
    tracker = offline(settings={"capture_max_mb": 1 / 1024})
    tracker.log_artifact("small")
    tracker.log_artifact("large")
    small, large = files_of(tracker)
    assert content_of(tracker, small) == b"x" * 1024
    if large.event.blob is None:
        assert large.event.reference["inode"] == (tmp_path / "large").stat().st_ino
        assert [path.name for path in RunFolder(tracker.run_dir).blobs.iterdir()] == [small.event.blob[:2]]
    else:
        assert content_of(tracker, large) == b"x" * 1025


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file"
)
def test_a_file_that_may_not_be_read_is_set_aside(tmp_path: Path) -> None:
    """The reason is the system's, whether it would be copied or referenced."""
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    for capture in ("copy", "reference"):
        tracker = offline(capture=capture)
        tracker.log_artifact("secret")
        ((argument, reason),) = rejected(tracker)
        assert argument == "path"
        assert "ermission denied" in reason


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe that nobody writes to is refused at once instead of being opened."""
    os.mkfifo(tmp_path / "pipe")
    tracker = offline()
    logged = threading.Thread(target=tracker.log_checkpoint, args=("pipe",), daemon=True)
    logged.start()
    logged.join(60)
    assert not logged.is_alive()
    assert rejected(tracker) == [("path", "is no plain file")]


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The content is that of the file behind the link, the name that of the link; a broken one does not exist."""
    (tmp_path / "step_7.pt").write_bytes(b"weights")
    (tmp_path / "latest.pt").symlink_to("step_7.pt")
    (tmp_path / "broken.pt").symlink_to("nowhere")
    tracker = offline()
    tracker.log_checkpoint("latest.pt")
    tracker.log_checkpoint("broken.pt")
    (record,) = files_of(tracker)
    assert (content_of(tracker, record), record.event.name) == (b"weights", "latest.pt")
    assert rejected(tracker) == [("path", "does not exist")]


@pytest.mark.parametrize(
    "name",
    ["a b.pt", "#1.pt", "ünï.pt", "🙂", "a\nb", "-rf", "'\"", "100%.pt", "~nobody-has-this-name", "x" * 255],
)
def test_names_with_odd_characters_are_kept(tmp_path: Path, name: str) -> None:
    """Path and name of the event are those of the file."""
    (tmp_path / name).write_bytes(b"weights")
    tracker = offline()
    tracker.log_artifact(name, "models")
    (record,) = files_of(tracker)
    assert (record.event.path, record.event.name) == (str(tmp_path / name), f"models/{name}")
    assert content_of(tracker, record) == b"weights"


def test_a_name_that_is_no_text_is_kept_readable(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 is captured; its name has U+FFFD where a byte cannot be said."""
    path = os.fsencode(tmp_path) + b"/bad\xff.pt"
    Path(os.fsdecode(path)).write_bytes(b"weights")
    tracker = offline()
    tracker.log_checkpoint(path)  # type: ignore[arg-type]
    tracker.log_checkpoint(os.fsdecode(path))
    for record in files_of(tracker):
        assert record.event.name == "bad\ufffd.pt"
        assert content_of(tracker, record) == b"weights"
    assert rejected(tracker) == []


def test_a_path_may_be_relative_to_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.pt").write_bytes(b"weights")
    tracker = offline()
    tracker.log_checkpoint("~/a.pt")
    assert files_of(tracker)[0].event.path == str(tmp_path / "a.pt")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text())
def test_a_text_comes_back(text: str) -> None:
    """Any text that UTF-8 can hold is captured whole."""
    tracker = offline(redact=False)
    tracker.log_text(text, "notes/plan.md")
    (record,) = files_of(tracker)
    assert content_of(tracker, record).decode() == text
    assert (record.event.name, record.event.role) == ("notes/plan.md", "text")


def test_a_dictionary_is_a_json_file() -> None:
    """It can be read by anyone, and holds the cleaned values."""
    tracker = offline()
    tracker.log_dict({"ünï": [1, 2.5, None], "path": Path("a"), "nan": float("nan")}, "a.json")
    content = content_of(tracker, files_of(tracker)[0])
    assert json.loads(content) == {"ünï": [1, 2.5, None], "path": "a", "nan": {"$num": "NaN"}}
    assert "ünï".encode() in content


class Matplotlib:
    """A figure that can what matplotlib's can."""

    def savefig(self, file: Any, *, format: str) -> None:
        file.write(f"drawn as {format}".encode())


class Plotly:
    """A figure that can what plotly's can."""

    def to_html(self) -> str:
        return "<html>"

    def to_image(self, format: str) -> bytes:
        return f"image {format}".encode()


@pytest.mark.parametrize(
    ("figure", "name", "content"),
    [
        (Matplotlib(), "curve.png", b"drawn as png"), (Matplotlib(), "plots/curve.SVG", b"drawn as svg"),
        (Matplotlib(), "curve", b"drawn as png"), (Plotly(), "curve.html", b"<html>"),
        (Plotly(), "curve.png", b"image png"),
    ],
)  # fmt: skip
def test_a_figure_is_drawn_in_the_format_of_its_name(figure: Any, name: str, content: bytes) -> None:
    """The suffix chooses the format; without one it is PNG."""
    tracker = offline()
    tracker.log_figure(figure, name)
    (record,) = files_of(tracker)
    assert (content_of(tracker, record), record.event.name, record.event.role) == (content, name, "figure")


def test_a_lost_blob_folder_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    """Where nothing can be stored the call is set aside with the system's reason, not blamed on the file."""
    (tmp_path / "a.pt").write_bytes(b"weights")
    tracker = offline()
    (tracker.run_dir / "blobs").write_text("in the way")
    tracker.log_checkpoint("a.pt", step=3)
    tracker.log_text("plan", "plan.md")
    tracker.log_training_step(1, {"loss": 0.5})
    reasons = rejected(tracker)
    assert [argument for argument, _ in reasons] == ["path", "content"]
    assert all("does not exist" not in reason for _, reason in reasons)
    assert [record.type for record in read_run(tracker.run_dir)][-1] == "training_step"
