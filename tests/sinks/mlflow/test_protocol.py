"""Payloads that other programs wrote: the protocol's own forms are understood, and nothing stops the delivery."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.events import CLASS_OF_TYPE
from lezea_mlops.sinks.mlflow.pieces import MAX_DEPTH, Point
from lezea_mlops.sinks.mlflow.translation import names_of_run
from tests.sinks.mlflow.records import SHA, Payload, brought, files, metrics, record


def test_the_protocol_s_forms_are_understood() -> None:
    """A metric by key, a batch, a param with its path, an artifact by path, a checkpoint with its metrics."""
    assert metrics(brought("metric", {"key": "loss", "value": 0.5, "step": 3, "ctx": {"phase": "val"}})) == {
        "val/loss": (0.5, 3)
    }
    assert metrics(brought("metric", {"metrics": {"loss": 0.5}, "epoch": 2, "ctx": {"batch_size": 4}})) == {
        "loss": (0.5, 2)
    }
    assert brought("param", {"key": "optimizer", "value": 0.1, "nested_key": ["adam", "lr"]}).params == {
        "optimizer.adam.lr": "0.1"
    }
    assert brought("param", {"key": "layers", "value": [64, 64]}).params == {"layers": "[64, 64]"}
    artifact = brought(
        "artifact", {"path": "/x/model.pt", "type": "model", "checksum": f"sha256:{SHA}", "meta": {"a": 1}}
    )
    [blob] = artifact.blobs
    assert (blob.path, blob.source, blob.checksum, blob.sha256) == ("model.pt", "/x/model.pt", SHA, None)
    assert files(artifact) == {"model.pt", "model.pt.metadata.json"}
    checkpoint = brought(
        "checkpoint",
        {
            "path": "/x/c.pt",
            "step": 5,
            "epoch": 1,
            "metrics": {"loss": 1},
            "is_best": True,
            "best_key": "loss",
        },
    )
    [told] = checkpoint.texts
    assert json.loads(told.content) == {
        "epoch": 1,
        "metrics": {"loss": 1},
        "is_best": True,
        "best_key": "loss",
    }
    assert told.path == "checkpoints/step_5/c.pt.metadata.json"
    end = brought("run_finished", {"status": "failed", "error": "died", "final_metrics": {"loss": 0.1}})
    assert (metrics(end), end.tags) == ({"final/loss": (0.1, 0)}, {"lezea.error": "died"})


def test_the_protocol_s_start_names_experiment_run_and_repository() -> None:
    """``run_id`` may be an object, the name that of the run."""
    payload = {
        "run_id": {"id": "r", "exp_id": "Vision", "parent_id": None}, "name": "night run",
        "source": {"git_commit": "abc", "git_branch": "dev", "git_repo": "url", "code_hash": "x"},
        "env": {"python_version": "3.12", "gpu_info": [{"name": "H200", "memory": 1}], "env_vars": {"SECRET": "x"}},
    }  # fmt: skip
    out = brought("run_started", payload)
    assert names_of_run(record("run_started", payload)) == ("Vision", "night run")
    assert out.tags == {
        "lezea.attempt": "1", "lezea.python_version": "3.12", "mlflow.source.git.commit": "abc",
        "lezea.git.branch": "dev", "lezea.git.remote": "url",
    }  # fmt: skip
    assert files(out) == {"environment/gpu.json"}


@pytest.mark.parametrize(
    ("payload", "names"),
    [
        ({"experiment_name": "Demo"}, ("Demo", "Demo")),
        ({"name": "n"}, ("n", "n")),
        ({}, ("unnamed", "unnamed")),
        ({"experiment_name": None, "run_id": {"exp_id": "E"}}, ("E", "E")),
        ({"experiment_name": ["x"]}, ('["x"]', '["x"]')),
    ],
)
def test_every_run_gets_names(payload: Payload, names: tuple[str, str]) -> None:
    """Whatever its first record says."""
    assert names_of_run(record("run_started", payload)) == names


def test_long_experiment_names_stay_apart() -> None:
    """MLflow takes 500 characters."""
    names = {names_of_run(record("run_started", {"experiment_name": "n" * 600 + end}))[0] for end in "ab"}
    assert len(names) == 2
    assert all(len(name) == 500 for name in names)


FIELDS = st.sampled_from(
    """
    scope params key value nested_key metrics step epoch ctx data_split delta_loss modification_statistics stats
    modifications statistics part repeat sizes count train_ids sample_ids delta component_id cpu_percent result_dict
    tasker_rewards tasker_id target_id reward generation tasker_count fitness_scores diversity_metric level metric
    split mean path name size blob reference checksum meta metadata role dataset_name version_tag fingerprint
    dataset_path version_metadata text facts git tags source env entrypoint gpu_info purpose status reason error
    summary resources final_metrics experiment_name run_id
    """.split()
)
INNER = st.sampled_from(["$blob", "$num", "", "a/b", "commit", "mtime_ns", "samples", "phase"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from([10**400, -(10**400), 2**63, 1e308, "NaN", "Infinity", "../..", SHA, "sha256:" + SHA]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(FIELDS | INNER, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(
    kind=st.sampled_from(sorted(CLASS_OF_TYPE)),
    payload=st.dictionaries(FIELDS, VALUES, max_size=8),
    wid=st.sampled_from(["main", "rank1", "a/b"]),
)
def test_no_payload_can_stop_the_delivery(kind: str, payload: Payload, wid: str) -> None:
    """Fields missing, of another type, absurd: what can be used is used, nothing raises, and all of it can be sent."""
    out = brought(kind, payload, wid=wid)
    for point in out.points:
        assert type(point.step) is int
        assert -(2**63) <= point.step < 2**63
        assert type(point.value) is float
        assert type(point.key) is str
    texts = [*out.params.items(), *out.tags.items(), *((text.path, text.content) for text in out.texts)]
    assert all(type(part) is str for pair in texts for part in pair)
    for path in files(out):
        assert path == path.strip("/")
        assert not {"", ".", ".."} & set(path.split("/"))


def test_depth_is_survived() -> None:
    """A payload nested as deep as JSON can be read: the numbers near the top are kept."""
    deep: Any = 1.0
    for _ in range(900):
        deep = {"d": deep}
    shallow = {"a": 1, "deep": deep}
    assert metrics(brought("result", {"result_dict": shallow}))["results/a"] == (1, 0)
    assert brought("param", {"params": shallow}).params["a"] == "1"
    assert brought("metric", {"metrics": shallow, "step": 1}).points[0] == Point("a", 1.0, 1)
    assert (
        max(point.key.count("/") for point in brought("result", {"result_dict": shallow}).points) <= MAX_DEPTH
    )
    listed: Any = []
    for _ in range(900):
        listed = [listed]
    assert files(brought("result", {"action_outputs": listed})) == {"results/00000007.json"}


def test_deep_scopes_and_many_facts_give_paths_that_file_systems_take() -> None:
    """No file name is longer than 255 bytes, no path longer than 4,096."""
    scope = [[f"level{number}" * 10, "é" * 300] for number in range(50)]
    facts = {f"fact number {number}": 1 for number in range(500)}
    for kind, payload in [
        ("modification_tree", {"step": 1, "modifications": [], "scope": scope}),
        ("checkpoint", {"path": "/x/" + "n" * 1_000, "blob": SHA, "scope": scope}),
        ("environment", {"facts": facts}),
        ("result", {"result_dict": {"k" * 5_000: {"$blob": SHA}}}),
        ("artifact", {"path": "/x", "name": "/".join(["é" * 200] * 60), "blob": SHA}),
    ]:  # fmt: skip
        for path in files(brought(kind, payload)):
            assert len(path.encode()) < 2_048
            assert all(len(part.encode()) <= 255 for part in path.split("/"))
