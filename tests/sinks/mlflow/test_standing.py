"""Of totals, prices and a budget's mark a run has one: that of the newest record, in whatever order they come."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.runtime.rewind import rewind
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.mlflow.marks import Standing
from lezea_mlops.sinks.mlflow.translation import translate
from tests.sinks.mlflow.auditing import Store, audit, found
from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.records import SHA

__all__ = ["place"]

FILES = ("resources/summary.json", "business/rates.json")
TAG = "lezea.budget_reached"


def resources(att: int) -> dict[str, Any]:
    """Return totals by which their attempt is known again."""
    return {"total": {"core_hours": att}, "unattributed": {"core_hours": 0}}


def told(place: Place, wid: str, att: int) -> None:
    """Append what a driver journals of an attempt; the texts of all attempts have one size."""
    place.log("rates", wid=wid, att=att, rates={"core_hour_eur": att})
    reached = {"branch": "run", "budget_eur": att, "spent_eur": 1, "share": 1.0}
    place.log("budget_reached", wid=wid, att=att, **reached)
    place.log("resource_totals", wid=wid, att=att, resources=resources(att), costs={})


def standing(place: Place) -> dict[str, int]:
    """Return of which attempt each of the three is in MLflow."""
    store = Store(place.uri, place.folder)
    summary, rates = (json.loads(store.artifact(path).read_text()) for path in FILES)
    return {
        "totals": summary["resources"]["total"]["core_hours"],
        "rates": rates["rates"]["core_hour_eur"],
        "budget": int(place.run.data.tags[TAG].removeprefix("100% of ").removesuffix(" EUR")),
    }


def of_attempt(att: int) -> dict[str, int]:
    """Return what stands where all is of one attempt."""
    return {"totals": att, "rates": att, "budget": att}


@pytest.mark.parametrize("writers", [("courier", "main"), ("main", "courier"), ("main", "main")])
def test_the_newest_attempt_s_stand_whoever_told_them(place: Place, writers: tuple[str, str]) -> None:
    """The file of ``main`` is delivered before that of ``courier``; and all may come a second time."""
    place.start()
    for att, wid in enumerate(writers, 1):
        told(place, wid, att)
    place.ship()
    assert standing(place) == of_attempt(2)
    place.forget()
    place.ship()
    assert standing(place) == of_attempt(2)
    report = audit(place.folder)
    assert report.findings == []
    assert report.is_right


def test_which_is_the_newest_is_remembered(place: Place) -> None:
    """What comes later and is older, by another process with the same cursor, changes nothing."""
    place.start()
    told(place, "main", 2)
    place.ship()
    place.shipper.close()
    place.shipper = place.make_shipper()
    told(place, "courier", 1)
    place.ship()
    assert standing(place) == of_attempt(2)
    assert audit(place.folder).is_right


def test_a_further_writer_has_its_own(place: Place) -> None:
    """It does not speak for the run: its totals stand in its folder, and its budget is no tag of the run."""
    place.start()
    told(place, "rank1", 2)
    place.ship()
    told(place, "main", 1)
    place.ship()
    assert standing(place) == of_attempt(1)
    own = Store(place.uri, place.folder).artifact("rank1/resources/summary.json")
    assert json.loads(own.read_text())["resources"]["total"]["core_hours"] == 2
    assert audit(place.folder).is_right


def test_one_that_was_refused_does_not_stand_in_the_way(place: Place) -> None:
    """It came in one batch with an older one, which was taken when it came again alone."""
    place.start()
    told(place, "main", 1)
    large = {"$blob": SHA, "size": 9, "format": "json"}
    place.log("resource_totals", att=2, resources=resources(2) | {"components": large}, costs={})
    place.ship()
    assert len(place.set_aside()) == 1
    assert standing(place) == of_attempt(1)
    assert audit(place.folder).is_right


@pytest.fixture
def twice_told(place: Place) -> Place:
    """Return a delivered run whose second attempt was told by another writer than the first."""
    place.start()
    told(place, "courier", 1)
    told(place, "main", 2)
    place.ship()
    return place


@pytest.mark.parametrize("path", FILES)
def test_an_audit_misses_the_newest_file(twice_told: Place, path: str) -> None:
    """Also where the older one that stands there has its size; a repair brings it back."""
    artifact = Store(twice_told.uri, twice_told.folder).artifact(path)
    newest = artifact.read_text()
    artifact.write_text(newest.replace("2", "1"))
    assert len(artifact.read_text()) == len(newest)
    [finding] = audit(twice_told.folder).findings
    assert (finding.kind, finding.what, finding.wid) == ("altered", f"file {path}", "main")
    artifact.unlink()
    assert found(twice_told.folder) == [("missing", f"file {path}")]
    assert audit(twice_told.folder, repair=True).is_right
    assert standing(twice_told) == of_attempt(2)


def test_an_audit_misses_the_newest_tag(twice_told: Place) -> None:
    """The value of an older attempt is an alteration, though a record brought it."""
    twice_told.client.set_tag(twice_told.run.info.run_id, TAG, "100% of 1 EUR")
    assert found(twice_told.folder) == [("altered", f"tag {TAG}")]
    assert audit(twice_told.folder, repair=True).is_right
    assert standing(twice_told) == of_attempt(2)


def test_the_newest_that_waits_may_be_there_already(twice_told: Place) -> None:
    """Its delivery was cut off before the cursor moved: neither its file nor its tag is an alteration."""
    rewind(twice_told.folder, destination_id(twice_told.shipper.sink), {"main": 2})
    report = audit(twice_told.folder)
    assert (report.findings, report.waiting) == ([], 3)
    assert audit(twice_told.folder, repair=True).is_right
    assert standing(twice_told) == of_attempt(2)


def test_while_a_newer_one_waits_the_older_is_owed(place: Place) -> None:
    """It is the newest of those that were delivered."""
    place.start()
    told(place, "courier", 1)
    place.ship()
    told(place, "main", 2)
    assert audit(place.folder).findings == []
    Store(place.uri, place.folder).delete(*FILES)
    assert set(found(place.folder)) == {("missing", f"file {path}") for path in FILES}


def totals(att: int, ts: int, wid: str, seq: int) -> Envelope:
    """Return totals by which their record is known again."""
    meta = {"seq": seq, "ts": ts, "wid": wid, "att": att}
    return Envelope("resource_totals", meta, {"run_id": "run-1", "resources": {"order": [att, ts, wid, seq]}})


def delivered(there: dict[str, str], standing: Standing, *records: Envelope) -> None:
    """Write the files of *records* as the sink does."""
    for record in records:
        there |= {text.path: text.content for text in standing.take(record, translate(record)).texts}


@given(
    records=st.lists(
        st.builds(
            totals, st.integers(1, 3), st.integers(1, 3), st.sampled_from(["main", "courier"]), st.integers(1, 9)
        ),
        min_size=1, max_size=12, unique_by=lambda record: record.order_key,
    ),
    seed=st.integers(0, 1_000),
)  # fmt: skip
def test_order_and_repetition_change_nothing(records: list[Envelope], seed: int) -> None:
    """In any order, some of them again, stored as JSON in between: the file of the greatest order key stands."""
    there: dict[str, Any] = {}
    shuffled = random.Random(seed).sample(records, len(records))
    half = len(shuffled) // 2
    before = Standing()
    delivered(there, before, *shuffled[:half])
    after = Standing(json.loads(json.dumps(before.stored())))
    delivered(there, after, *shuffled[: half // 2], *shuffled[half:], *shuffled[::3])
    newest = max(records, key=lambda record: record.order_key)
    assert json.loads(there["resources/summary.json"])["resources"]["order"] == list(newest.order_key)
