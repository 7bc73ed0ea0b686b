"""The MLflow sink and a real SQLite store: runs and experiments, and what people do to them meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lezea_mlops.journal import RunFolder
from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.seen import history, runs_of, seen, the_run

__all__ = ["place"]

STARTED_US = 1_763_690_000_123_456


# ---------------------------------------------------------------------- experiments and runs


def test_the_experiment_is_made_by_name_and_found_by_name(place: Place) -> None:
    """One that a person made is used, and so is the one of an earlier run."""
    made = place.client.create_experiment("Made by hand")
    place.start("Made by hand")
    place.ship()
    assert place.run.info.experiment_id == made
    second = Place(place.uri, place.folder.path.parent / "second")
    second.folder = RunFolder(second.folder.path.with_name("run-2"))
    second.folder.create()
    second.shipper = second.make_shipper()
    second.start("Made by hand")
    second.ship()
    assert {run.info.run_id for run in place.client.search_runs([made])} == {
        the_run(place.client, name).info.run_id for name in ("run-1", "run-2")
    }


def test_a_run_says_which_it_is_and_when_it_began_and_ended(place: Place) -> None:
    """Tag, name, and the times of the records, not those of the delivery."""
    with place.folder.journal("main").open("w") as file:
        for seq, (kind, fields) in enumerate(
            [("run_started", {"experiment_name": "Demo"}), ("run_finished", {"status": "killed"})]
        ):
            meta = {"seq": seq + 1, "ts": STARTED_US + seq * 5_000_000, "wid": "main", "att": 1}
            file.write(json.dumps({"v": 1, "t": kind, "m": meta, "p": {"run_id": "run-1", **fields}}) + "\n")
    place.ship()
    run = place.run
    assert run.data.tags["lezea.experiment_id"] == "run-1"
    assert run.info.run_name == "Demo-run-1"
    assert (run.info.start_time, run.info.end_time) == (STARTED_US // 1000, STARTED_US // 1000 + 5_000)
    assert run.info.status == "KILLED"


def test_a_run_is_found_again_without_a_cursor(place: Place) -> None:
    """However often the cursor is lost, and in whatever experiment a person moved on: one run."""
    place.start()
    place.ship()
    before = seen(place.client, "run-1")
    for _ in range(3):
        place.forget()
        assert place.ship().health.state == "ok"
    assert seen(place.client, "run-1") == before


def test_a_deleted_experiment_is_told_with_the_remedy_and_nothing_is_made(place: Place) -> None:
    """When a person restores it, the run goes there."""
    experiment = place.client.create_experiment("Demo")
    place.client.delete_experiment(experiment)
    place.start()
    health = place.ship().health
    assert health.state == "removed"
    assert "restore it" in str(health.last_error)
    assert runs_of(place.client, "run-1") == []
    place.client.restore_experiment(experiment)
    assert place.ship().health.state == "ok"
    assert place.run.info.experiment_id == experiment


@pytest.mark.parametrize("how", ["run", "experiment", "for good"])
@pytest.mark.parametrize("cursor", ["kept", "lost", "another process"])
def test_a_deleted_run_is_not_made_again(how: str, cursor: str, place: Place) -> None:
    """A person deleted it: the state says so and how to go on, and the journal keeps what comes."""
    place.start()
    place.ship()
    run = place.run
    if how == "experiment":
        place.client.delete_experiment(run.info.experiment_id)
    else:
        place.client.delete_run(run.info.run_id)
    if how == "for good":
        place.client._tracking_client.store._hard_delete_run(run.info.run_id)
    place.log("metric", metrics={"loss": 1.0}, step=1)
    if cursor == "another process":
        place.shipper = place.make_shipper()
    if cursor == "lost":
        place.forget()
        if how == "for good":
            # Nothing anywhere remembers it.
            assert place.ship().health.state == "ok"
            return
    health = place.ship().health
    assert health.state == "removed"
    assert "lezea sync --recreate run-1" in str(health.last_error)
    assert [found.info.run_id for found in runs_of(place.client, "run-1")] == [run.info.run_id] * (
        how != "for good"
    )


def test_a_restored_run_goes_on(place: Place) -> None:
    """What came meanwhile is delivered to it."""
    place.start()
    place.ship()
    run_id = place.run.info.run_id
    place.client.delete_run(run_id)
    place.log("metric", metrics={"loss": 1.0}, step=1)
    assert place.ship().health.state == "removed"
    place.client.restore_run(run_id)
    assert place.ship().health.state == "ok"
    assert place.run.data.metrics == {"loss": 1.0}


def test_another_writer_waits_for_main(place: Place) -> None:
    """Only ``main`` makes the run; what others logged before comes when it is there."""
    place.log("metric", wid="rank1", metrics={"loss": 1.0}, step=1)
    health = place.ship().health
    assert health.failures == {"waiting": 1}
    place.start()
    assert place.ship().health.state == "ok"
    assert place.run.data.metrics == {"rank1/loss": 1.0}


# ---------------------------------------------------------------------- status


Told = tuple[str, dict[str, Any]]
END = ("main", {"status": "completed", "reason": "done"})
KILL = ("courier", {"status": "killed", "inferred": True, "reason": "the process is gone"})


@pytest.mark.parametrize("order", [[END, KILL], [KILL, END]])
def test_a_real_end_beats_an_inferred_one(order: list[Told], place: Place) -> None:
    """Whichever is delivered first: status, reason and time are those of the real one."""
    place.start()
    for wid, fields in order:
        place.log("run_finished", wid=wid, **fields)
        place.ship()
    assert place.run.info.status == "FINISHED"
    assert place.run.data.tags["lezea.reason"] == "done"


def test_a_resumed_run_runs_again_and_forgets_how_the_last_attempt_ended(place: Place) -> None:
    """A run that came to a good end does not show the error of an earlier attempt."""
    place.start()
    place.log("run_finished", status="failed", error={"type": "ValueError", "message": "x"}, reason="boom")
    place.ship()
    assert (place.run.info.status, place.run.data.tags["lezea.error"]) == ("FAILED", "ValueError: x")
    place.log("run_started", att=2, experiment_name="Demo")
    place.ship()
    assert place.run.info.status == "RUNNING"
    place.log("run_finished", att=2, status="completed")
    place.ship()
    tags = place.run.data.tags
    assert (place.run.info.status, tags["lezea.attempt"]) == ("FINISHED", "2")
    assert (tags["lezea.error"], tags["lezea.reason"]) == ("", "")


def test_the_end_of_another_writer_is_not_the_end_of_the_run(place: Place) -> None:
    """Rank 1 may fail and be replaced."""
    place.start()
    place.log("run_finished", wid="rank1", status="failed")
    place.ship()
    assert place.run.info.status == "RUNNING"


# ---------------------------------------------------------------------- what people do meanwhile


def test_what_a_person_writes_into_our_tags_stops_nothing(place: Place) -> None:
    """Tags can be edited in the UI."""
    place.start()
    place.ship()
    for name in ("lezea.status_order", "lezea.rev1", "lezea.metric_names_capped"):
        place.client.set_tag(place.run.info.run_id, name, "what is this?")
    place.shipper = place.make_shipper()
    place.log("param", params={"lr": 1})
    place.log("param", params={"lr": 2})
    place.log("run_finished", status="completed")
    assert place.ship().health.as_dict(0)["failures"] == {}
    assert (place.run.info.status, place.run.data.tags["lezea.rev1.lr"]) == ("FINISHED", "2")


def test_a_param_that_a_person_logged_becomes_the_first_value(place: Place) -> None:
    """Ours is then a revision, though the sink had read the run before."""
    place.start()
    place.ship()
    place.client.log_param(place.run.info.run_id, "lr", "by hand")
    place.log("param", params={"lr": 2, "gamma": 1})
    place.log("metric", metrics={"loss": 1.0}, step=1)
    place.ship()
    assert place.set_aside() == []
    assert place.run.data.params == {"lr": "by hand", "gamma": "1"}
    assert place.run.data.tags["lezea.rev1.lr"] == "2"
    assert place.run.data.metrics == {"loss": 1.0}


def test_a_resumed_run_says_from_which_step_its_older_points_are_superseded(place: Place) -> None:
    """MLflow cannot delete them; with the least step of a later attempt a person knows where to look."""
    place.start()
    for att, steps in ((1, range(10)), (2, range(6, 9)), (3, range(7, 12))):
        for step in steps:
            place.log("training_step", att=att, step=step, metrics={"loss": att})
            place.ship()
        place.forget()
        assert place.ship().health.state == "ok"
        assert place.run.data.tags.get("lezea.superseded_from_step") == (None if att == 1 else "6")
    assert len(history(place.client, place.run, "loss")) == 10 + 3 + 5
