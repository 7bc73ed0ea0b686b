"""The document of a run holds what was said last, whatever order the records come in."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mongodb.experiment import Experiment


def record(seq: int, kind: str, *, att: int = 1, wid: str = "main", **fields: Any) -> Envelope:
    """Return a record; its time is its number."""
    return Envelope(kind, {"seq": seq, "ts": seq, "wid": wid, "att": att}, {"run_id": "run-1"} | fields)


RECORDS = [
    record(1, "run_started", experiment_name="Demo", purpose="sanity", tags={"team": "a", "odd.key": "$x"}),
    record(2, "environment", facts={"python": "3.11"}),
    record(3, "param", params={"lr": 0.1, "net": {"width": 64}}),
    record(4, "lezea_config", tasker_population_size=64, algorithm_type="SAC"),
    record(5, "constraints", runtime_limit_seconds="Infinity"),
    record(1, "param", wid="rank1", params={"rank1": True, "lr": 0.15}),
    record(6, "param", key="optimizer", value="adam", nested_key=["name"]),
    record(7, "run_finished", status="killed", reason="SIGTERM", inferred=True, ended_at=6),
    record(8, "run_started", att=2, experiment_name="Demo", purpose="again"),
    record(9, "param", att=2, params={"lr": 0.2}),
    record(10, "resource_cost", att=2, cpu_hours=2.5),
    record(11, "business", att=2, metrics={"resource_cost_eur": 8.73}),
    record(12, "conclusion", att=2, text="It works."),
    record(13, "run_finished", att=2, status="completed", summary={"events": {"param": 3}}, duration_ms=5),
    record(14, "run_finished", att=2, status="killed", inferred=True),
    record(15, "training_step", att=2, step=1, metrics={"loss": 1.0}),
]


def document(records: list[Envelope], *, stored_after: int = 0) -> dict[str, Any]:
    """Return the document that these records make, as pymongo reads it; it may be stored and read back on the way."""
    experiment = Experiment("run-1")
    for number, each in enumerate(records, start=1):
        experiment.observe(each)
        if number == stored_after:
            experiment = Experiment("run-1", bson.decode(bson.encode(experiment.document())))
    found = bson.decode(bson.encode(experiment.document()))
    found["lezea"]["revision"] = None
    return found


def test_it_says_what_is_asked_of_a_run() -> None:
    """Configuration, environment, constraints, status, summary, costs and conclusion, with the last word of each."""
    found = document(RECORDS)
    assert (found["_id"], found["name"], found["purpose"]) == ("run-1", "Demo", "again")
    assert found["tags"] == {"team": "a", "odd%2Ekey": "$x"}
    assert found["params"] == {
        "lr": 0.2, "net": {"width": 64}, "rank1": True, "optimizer%2Ename": "adam",
    }  # fmt: skip
    assert found["config"] == {"tasker_population_size": 64, "algorithm_type": "SAC"}
    assert found["constraints"] == {"runtime_limit_seconds": float("inf")}
    assert found["environment"] == {"python": "3.11"}
    assert (found["status"], found["duration_ms"]) == ("completed", 5)
    assert found["costs"] == {"cpu_hours": 2.5, "resource_cost_eur": 8.73}
    assert found["conclusion"] == "It works."
    assert found["summary"] == {"events": {"param": 3}}
    assert {name: attempt["end"]["status"] for name, attempt in found["attempts"].items()} == {
        "1": "killed", "2": "completed",
    }  # fmt: skip


def test_of_a_resumed_run_nothing_of_the_former_end_stays() -> None:
    """It runs again, and no reason stands there."""
    found = document(RECORDS[:9])
    assert found["status"] == "running"
    assert not {"reason", "finished_at", "inferred"} & found.keys()


@given(st.permutations(RECORDS), st.integers(0, len(RECORDS)))
def test_the_order_of_arrival_changes_nothing(records: list[Envelope], stored_after: int) -> None:
    """Nor does it that the document was stored and read back by another process on the way."""
    assert document(records, stored_after=stored_after) == document(RECORDS)


@pytest.mark.parametrize("again", RECORDS, ids=lambda each: f"{each.type}-{each.seq}")
def test_a_record_that_comes_again_says_nothing_new(again: Envelope) -> None:
    """So nothing need be written."""
    experiment = Experiment("run-1")
    for each in RECORDS:
        experiment.observe(each)
    assert experiment.observe(again) is False
