"""Numbers, params, large values, files and datasets: how they are read out of a payload."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.sinks.mlflow.pieces import flatten
from tests.sinks.mlflow.records import SHA, brought, files, metrics


def test_numbers_that_json_has_no_word_for() -> None:
    """In metrics, in nested results, in params."""
    out = brought(
        "metric", {"metrics": {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "text"}, "step": 1}
    )
    found = metrics(out)
    assert math.isnan(found["a"][0])
    assert (found["b"][0], found["c"][0]) == (math.inf, -math.inf)
    assert "d" not in found
    nested = brought("result", {"result_dict": {"x": {"$num": "Infinity"}}})
    assert metrics(nested)["results/x"][0] == math.inf
    assert brought("param", {"params": {"x": {"$num": "NaN"}}}).params == {"x": "NaN"}


def test_only_names_scoped_by_individuals_count_as_theirs() -> None:
    """Builders and taskers may be thousands; networks, layers and algorithms are few and always shown."""

    def individual(*levels: str) -> bool:
        scope = [[level, "1"] for level in levels]
        [point] = brought("metric", {"metrics": {"a": 1}, "step": 1, "scope": scope}).points
        return point.individual

    assert [individual("builder"), individual("tasker"), individual("network", "tasker")] == [True] * 3
    assert [individual(), individual("network"), individual("layer", "algorithm")] == [False] * 3
    for kind, payload in [
        ("reward", {"tasker_id": "t", "reward": 1}),
        ("resource", {"component_id": "t", "cpu_percent": 1}),
    ]:
        assert all(point.individual for point in brought(kind, payload).points)


# ---------------------------------------------------------------------- params


def test_params_whose_names_meet_stay_apart() -> None:
    """``a.b`` and ``a`` with ``b`` inside are two params, as are two nestings of the same dotted name."""
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {"a.b": "2", "a_x2E_b": "1"}
    assert sorted(flatten({"a": {"b.c": 1}, "a.b": {"c": 2}}).values()) == ["1", "2"]


def test_empty_and_marked_values_are_one_param_each() -> None:
    """An empty mapping, a list and a pointer are values."""
    flat = flatten({"a": {}, "b": [], "c": {"$blob": SHA, "size": 5}})
    assert flat == {"a": "{}", "b": "[]", "c": json.dumps({"$blob": SHA, "size": 5})}


NESTED = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(st.sampled_from("ab./$_x"), max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(st.sampled_from("ab./$_x"), max_size=3), NESTED, max_size=4))
def test_no_param_replaces_another(params: dict[str, Any]) -> None:
    """However the names are nested and dotted: as many params as there are values."""

    def leaves(value: Any) -> int:
        nested = isinstance(value, dict) and value and not any(name.startswith("$") for name in value)
        return sum(map(leaves, value.values())) if nested else 1

    assert len(flatten(params)) == sum(map(leaves, params.values()))


# ---------------------------------------------------------------------- large values, files


def test_values_that_were_too_large_for_a_line_become_files() -> None:
    """At the top or deep inside; and their pointers are not taken for metrics."""
    pointer = {"$blob": SHA, "size": 99}
    nested = {"essay": {**pointer, "format": "text"}, "deep": {"x": [{**pointer, "format": "raw"}]}}
    out = brought("result", {"result_dict": nested, "action_outputs": {**pointer, "format": "json"}})
    assert {blob.path for blob in out.blobs} == {
        "values/result/00000007-result_dict.essay.txt",
        "values/result/00000007-result_dict.deep.x.0.bin",
        "values/result/00000007-action_outputs.json",
    }
    assert {blob.sha256 for blob in out.blobs} == {SHA}
    assert out.points == []
    whole = brought("training_step", {"step": 1, "metrics": {**pointer, "format": "json"}})
    assert whole.points == []
    assert files(whole) == {"values/training_step/00000007-metrics.json"}


@pytest.mark.parametrize("blob", ["../../etc/passwd", "", "xyz", None, 5, "ab" * 31, "/" + "ab" * 31 + "a"])
def test_a_pointer_that_is_no_hash_leads_nowhere(blob: Any) -> None:
    """A hash is the only way into the blobs."""
    assert brought("result", {"action_outputs": {"$blob": blob}}).blobs == []
    assert [file.sha256 for file in brought("artifact", {"path": "/x/a", "blob": blob}).blobs] == [None]


def test_a_reference_carries_what_tells_a_change() -> None:
    """Size and time at the call."""
    [blob] = brought(
        "artifact", {"path": "/x/a.bin", "name": "a.bin", "size": 5, "reference": {"mtime_ns": 7, "inode": 9}}
    ).blobs
    assert (blob.sha256, blob.source, blob.size, blob.mtime_ns) == (None, "/x/a.bin", 5, 7)


def test_a_dataset_is_named_by_its_fingerprint() -> None:
    """Name, 36 characters of the fingerprint, version as context, metadata as profile."""
    [dataset] = brought("dataset_version", {
        "dataset_name": "imagenet", "version_tag": "v1.0", "dataset_path": "/data", "fingerprint": {"fingerprint": SHA},
    }).datasets  # fmt: skip
    assert (dataset.name, dataset.digest, dataset.source, dataset.context) == (
        "imagenet",
        SHA[:36],
        "/data",
        "v1.0",
    )
    assert json.loads(dataset.metadata) == {"version_tag": "v1.0", "fingerprint": {"fingerprint": SHA}}


def test_versions_without_fingerprint_stay_apart() -> None:
    """Also where their tags are longer than MLflow's digests and begin alike."""
    digests = {
        brought("dataset_version", {"dataset_name": "d", "version_tag": "v" * 60 + end}).datasets[0].digest
        for end in "ab"
    }
    assert len(digests) == 2
    assert all(len(digest) <= 36 for digest in digests)


def test_what_is_told_of_a_dataset_may_be_long() -> None:
    """Then it is a file, and the dataset points to it."""
    out = brought(
        "dataset_version", {"dataset_name": "d", "version_metadata": {"files": ["x" * 100] * 10_000}}
    )
    [dataset], [text] = out.datasets, out.texts
    assert text.path in dataset.metadata
    assert len(dataset.metadata) < 60_000 < len(text.content)
