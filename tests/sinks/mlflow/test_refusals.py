"""What can never be sent is set aside with its reason; what can be, is; and nothing in a journal stops the delivery."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.seen import artifacts

__all__ = ["place"]


# ---------------------------------------------------------------------- files that cannot be sent


def test_a_reference_that_changed_is_refused_with_the_reason(place: Place, tmp_path: Path) -> None:
    """Also one that is gone, or became a folder; one that is as it was is delivered, and so is all else."""

    def reference(name: str) -> Path:
        path = tmp_path / name
        path.write_text("as it was")
        status = path.stat()
        place.log(
            "artifact",
            path=str(path),
            name=name,
            size=status.st_size,
            reference={"mtime_ns": status.st_mtime_ns},
        )
        return path

    place.start()
    reference("kept.bin")
    reference("longer.bin").write_text("as it was not")
    same_size = reference("same size.bin")
    same_size.write_text("as it is!")
    reference("gone.bin").unlink()
    folder = reference("folder.bin")
    folder.unlink()
    folder.mkdir()
    place.log("metric", metrics={"loss": 1.0}, step=1)
    health = place.ship().health
    assert (health.state, health.rejected) == ("ok", 4)
    reasons = {line["record"]["p"]["name"]: line["reason"] for line in place.set_aside()}
    assert "changed between the call and the delivery" in reasons["longer.bin"]
    assert "changed between the call and the delivery" in reasons["same size.bin"]
    assert "cannot be read" in reasons["gone.bin"]
    assert "is a folder" in reasons["folder.bin"]
    assert set(artifacts(place.client, place.run)) == {"kept.bin"}
    assert place.run.data.metrics == {"loss": 1.0}


def test_a_checksum_of_another_program_is_looked_at(place: Place, tmp_path: Path) -> None:
    """It is the content that was meant, or it is refused."""
    (tmp_path / "a.bin").write_text("content")
    good = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    place.start()
    place.log("artifact", path=str(tmp_path / "a.bin"), checksum=good)
    place.log("artifact", path=str(tmp_path / "a.bin"), name="b.bin", checksum="0" * 64)
    place.ship()
    assert set(artifacts(place.client, place.run)) == {"a.bin"}
    assert [line["record"]["p"]["name"] for line in place.set_aside()] == ["b.bin"]


def test_content_that_is_gone_from_the_blobs_is_refused(place: Place) -> None:
    """Somebody emptied the folder; the rest is delivered."""
    place.start()
    place.log("artifact", path="x", name="x.bin", size=1, blob="ab" * 32)
    place.log("metric", metrics={"loss": 1.0}, step=1)
    place.ship()
    [line] = place.set_aside()
    assert "is gone" in line["reason"]
    assert place.run.data.metrics == {"loss": 1.0}


@pytest.mark.parametrize("again", ["same process", "another process"])
def test_a_file_and_a_folder_of_one_name_do_not_stop_the_delivery(
    again: str, place: Place, tmp_path: Path
) -> None:
    """No store can hold both: the second is refused with the reason, all else is delivered."""
    (tmp_path / "a").write_text("a")
    place.start()
    for name in ("plans", "deep/er/file.txt"):
        place.log("artifact", path=str(tmp_path / "a"), name=name)
    if again == "another process":
        place.ship()
        place.shipper = place.make_shipper()
    for name in ("plans/below.txt", "deep/er", "deep/other.txt"):
        place.log("artifact", path=str(tmp_path / "a"), name=name)
    place.log("metric", metrics={"loss": 1.0}, step=1)
    assert place.ship().health.state == "ok"
    assert {line["record"]["p"]["name"]: line["reason"] for line in place.set_aside()} == {
        "plans/below.txt": "plans/below.txt cannot stand below plans, which is a file in MLflow",
        "deep/er": "deep/er is a folder in MLflow, and no file can have its name",
    }
    assert set(artifacts(place.client, place.run)) == {"plans", "deep/er/file.txt", "deep/other.txt"}
    assert place.run.data.metrics == {"loss": 1.0}


def test_a_user_s_file_may_be_called_like_a_folder_of_ours(place: Place, tmp_path: Path) -> None:
    """``results`` at the top, before our own ``results/…``: both are there."""
    (tmp_path / "results").write_text("mine")
    place.start()
    place.log("artifact", path=str(tmp_path / "results"))
    place.log("result", result_dict={"a": 1})
    place.ship()
    assert place.set_aside() == []
    assert set(artifacts(place.client, place.run)) == {"_x72_esults", "results/00000003.json"}


# ---------------------------------------------------------------------- failures in the middle


def test_what_was_told_in_a_batch_that_failed_is_told_again(place: Place) -> None:
    """A tag that is set once must not be taken for set because a refused batch had it."""
    place.start()
    place.ship()
    place.log("metric", metrics={"loss": "Infinity"}, step=3)
    place.log("artifact", path="x", name="x.bin", blob="ab" * 32)
    place.ship()
    assert place.run.data.tags["lezea.nonfinite.loss"] == "Infinity, first at step 3; shown as NaN"


def test_a_revision_in_a_batch_that_failed_keeps_its_number(place: Place) -> None:
    """What a refused batch would have written does not count."""
    place.start()
    place.log("param", params={"lr": 1})
    place.ship()
    place.log("param", params={"lr": 2})
    place.log("artifact", path="x", name="x.bin", blob="ab" * 32)
    place.log("param", params={"lr": 3})
    place.ship()
    tags = place.run.data.tags
    assert {name: tags[name] for name in tags if name.endswith(".lr")} == {
        "lezea.rev1.lr": "2",
        "lezea.rev2.lr": "3",
    }


def test_absurd_numbers_of_other_programs_stop_nothing(place: Place) -> None:
    """Steps, times and values beyond what a database holds."""
    lines = [
        {"t": "run_started", "m": {"ts": -(10**30)}, "p": {"name": "n"}},
        {"t": "metric", "m": {"ts": 10**30}, "p": {"key": "a", "value": 10**300, "step": 10**30}},
        {"t": "metric", "m": {"ts": 1}, "p": {"key": "b", "value": 1, "step": -5}},
        {"t": "metric", "m": {"ts": 1}, "p": {"key": {"x": 1}, "value": [1], "step": "x"}},
        {"t": "run_finished", "m": {"ts": 10**25}, "p": {"status": 5}},
    ]  # fmt: skip
    with place.folder.journal("main").open("w") as file:
        for seq, line in enumerate(lines):
            line["m"] |= {"seq": seq + 1}
            file.write(json.dumps({"v": 1, **line}) + "\n")
    assert place.ship().health.as_dict(0)["failures"] == {}
    assert place.run.data.metrics == {"a": 1e300, "b": 1.0}
    assert place.run.info.status == "FAILED"


def test_a_hostile_journal_reads_nothing_outside(place: Place, tmp_path: Path) -> None:
    """A pointer that is a path is no pointer."""
    (tmp_path / "secret").write_text("s3cret")
    place.start()
    place.log("result", action_outputs={"$blob": "../../../secret", "format": "text"})
    place.log("modification_tree", step="../../../x", modifications=[])
    place.ship()
    assert all("secret" not in path for path in artifacts(place.client, place.run))
    assert not (tmp_path / "x.json").exists()


def test_no_line_of_the_libraries_is_logged_when_the_store_fails(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its tables vanish: one line, ours, and nothing printed."""
    place.start()
    place.ship()
    Path(place.uri.removeprefix("sqlite:///")).write_bytes(b"")
    caplog.set_level(logging.INFO)
    place.log("metric", metrics={"loss": 1.0}, step=1)
    for _ in range(3):
        place.ship()
    assert [record.name for record in caplog.records] == ["lezea_mlops"]
    assert capfd.readouterr() == ("", "")
