"""What is too long, too much or no number for MLflow arrives as well as MLflow can hold it, and says so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lezea_mlops.events import MAX_NAMES_APART
from lezea_mlops.sinks.mlflow.marks import CAPPED_TAG
from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.seen import artifacts, history

__all__ = ["place"]


def test_a_param_and_a_tag_of_ten_thousand_characters(place: Place, tmp_path: Path) -> None:
    """Head, digest and pointer where they belong; the whole in the file that the pointer names."""
    param, tag = "p" * 9_999 + "é", "t" * 9_999 + "ü"
    place.start(tags={"story": tag})
    place.log("param", params={"config": param})
    place.ship()
    run = place.run
    for shown, whole, most in (
        (run.data.params["config"], param, 6_000),
        (run.data.tags["story"], tag, 8_000),
    ):
        digest = hashlib.sha256(whole.encode()).hexdigest()
        assert shown.startswith(whole[:5_000])
        assert len(shown) == most
        assert f"10000 characters, sha256:{digest}" in shown
        path = shown.partition("whole: ")[2].rstrip("]")
        found = place.client.download_artifacts(run.info.run_id, path, str(tmp_path))
        assert Path(found).read_text() == whole
    assert run.data.tags["lezea.truncated"] == "true"


def test_five_thousand_nested_params(place: Place) -> None:
    """All of them, by dotted names."""
    params = {
        f"group {number}": {f"p{inner}": number * inner for inner in range(50)} for number in range(100)
    }
    place.start()
    place.log("param", params=params)
    place.ship()
    stored = place.run.data.params
    assert len(stored) == 5_000
    assert stored["group 99.p49"] == str(99 * 49)


def test_a_change_among_many_params_is_one_revision(place: Place) -> None:
    """A changed param does not keep the new ones of its call away."""
    place.start()
    place.log("param", params={f"p{number}": number for number in range(150)})
    place.log("param", params={f"p{number}": number + (number == 7) for number in range(300)})
    place.ship()
    run = place.run
    assert len(run.data.params) == 300
    assert run.data.params["p7"] == "7"
    assert [name for name in run.data.tags if ".p" in name] == ["lezea.rev1.p7"]
    assert set(artifacts(place.client, run)) == {"config/revision-1.json"}


def test_numbers_that_are_not_finite(place: Place) -> None:
    """NaN stays NaN; the infinities would become ±1.8e308: they are NaN, and a tag says which and since when."""
    place.start()
    for step, value in enumerate(["NaN", "Infinity", "-Infinity", "Infinity", 1.5]):
        place.log("metric", metrics={"loss": value, "tasker#0": "NaN"}, step=step)
    place.ship()
    run = place.run
    assert {(step, value) for step, _, value in history(place.client, run, "loss")} == {
        (0, "nan"), (1, "nan"), (2, "nan"), (3, "nan"), (4, "1.5"),
    }  # fmt: skip
    told = {name: value for name, value in run.data.tags.items() if "nonfinite" in name}
    assert told == {"lezea.nonfinite.loss": "Infinity, first at step 1; shown as NaN"}


def test_a_name_of_one_kilobyte_has_a_tag_with_the_whole_of_it(place: Place) -> None:
    """Its values are there under head and digest."""
    name = "n" * 1_020 + "#ab"
    place.start()
    place.log("metric", metrics={name: 1.0}, step=1)
    place.ship()
    [key] = place.run.data.metrics
    assert len(key) == 250
    assert place.run.data.tags[f"lezea.name.{key[-16:]}"] == "n" * 1_020 + "_x23_ab"


def individuals(place: Place, numbers: range, **metrics: Any) -> None:
    """Log a step of each of so many taskers."""
    for number in numbers:
        place.log(
            "training_step", scope=[["tasker", str(number)]], step=1, metrics={"loss": number, **metrics}
        )


def test_individuals_do_not_explode_the_names(place: Place) -> None:
    """A thousand names, in order of appearance; then theirs are left out and a tag says so; all others are shown."""
    place.start()
    place.log("metric", metrics={"first": 1}, step=1)
    individuals(place, range(1_200))
    place.log("metric", metrics={"unscoped": 1}, step=1)
    place.log("metric", scope=[["network", "n"], ["layer", "3"]], metrics={"norm": 1}, step=1)
    individuals(place, range(3))
    place.ship()
    names = set(place.run.data.metrics)
    others = {"first", "unscoped", "network:n/layer:3/norm"}
    assert names == others | {f"tasker:{number}/loss" for number in range(MAX_NAMES_APART - 1)}
    assert "1000 metric names" in place.run.data.tags[CAPPED_TAG]
    assert len(history(place.client, place.run, "tasker:1/loss")) == 2


def test_which_names_are_shown_survives_a_lost_cursor(place: Place) -> None:
    """The same individuals are shown after all is delivered again, and new ones are not let in."""
    place.start()
    individuals(place, range(1_100))
    place.ship()
    before = place.run.data
    place.forget()
    place.ship()
    assert (place.run.data.metrics, place.run.data.tags) == (before.metrics, before.tags)
    individuals(place, range(1_100, 1_110))
    place.shipper = place.make_shipper()
    place.ship()
    assert place.run.data.metrics == before.metrics


def test_more_metrics_than_a_request_may_have(place: Place) -> None:
    """2,500 long names in one call, and 20 points of each of them at once."""
    place.start()
    names = [f"metric number {number} {'é' * 200}" for number in range(2_500)]
    place.log("metric", metrics=dict.fromkeys(names, 1.0), step=1)
    for step in range(20):
        place.log("metric", metrics={"a": step, "b": -step}, step=step)
    place.ship()
    assert set(place.run.data.metrics) == {*names, "a", "b"}
    assert len(history(place.client, place.run, "a")) == 20


def test_hundreds_of_long_tags(place: Place) -> None:
    """More than a request may have, in number and in bytes."""
    tags = {f"tag {number}": "é" * 7_000 for number in range(120)}
    place.start(tags=tags)
    place.ship()
    stored = place.run.data.tags
    assert {name: stored[name] for name in tags} == tags
