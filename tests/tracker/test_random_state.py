"""A seeded program draws the same numbers with a tracker as without one, and no two of its runs share an id."""

from __future__ import annotations

import importlib.util
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lezea_mlops.runtime.assembly import new_experiment_id
from lezea_mlops.tracker import ExperimentTracker, NetworkType
from tests.conftest import MlflowServer

Do = Callable[[ExperimentTracker], object]


class Figure:
    """Stands for a figure of matplotlib's, which can be saved."""

    def savefig(self, file: Any, **options: Any) -> None:
        """Write the picture."""
        file.write(b"\x89PNG")


# How each public name is used; one that is added later is missing here, and the test says so.
CALLS: dict[str, Do] = {
    "algorithm_scope": lambda t: t.algorithm_scope("sac").__enter__(),
    "bind": lambda t: t.bind(lambda: 1)(),
    "builder_scope": lambda t: t.builder_scope(1).__enter__(),
    "end": lambda t: t.end("failed", "no data"),
    "finalize_experiment": lambda t: t.finalize_experiment(),
    "flush": lambda t: t.flush(0.01),
    "get_experiment_data": lambda t: t.get_experiment_data(),
    "get_experiment_summary": lambda t: t.get_experiment_summary(),
    "get_recommendations": lambda t: t.get_recommendations(),
    "health": lambda t: t.health(),
    "layer_scope": lambda t: t.layer_scope(3).__enter__(),
    "log_artifact": lambda t: t.log_artifact("file.txt", "folder"),
    "log_business_metrics": lambda t: t.log_business_metrics(3.5, users=7),
    "log_checkpoint": lambda t: t.log_checkpoint("file.txt", 3, role="model"),
    "log_comment": lambda t: t.log_comment("text"),
    "log_component_resources": lambda t: t.log_component_resources("c", "tasker", 50.0, 100.0, 10.0, 5),
    "log_conclusion": lambda t: t.log_conclusion("text"),
    "log_constraints": lambda t: t.log_constraints(60, {"maze": 200}),
    "log_data_score": lambda t: t.log_data_score("a", 1.0, 0.5),
    "log_data_splits": lambda t: t.log_data_splits(range(10_000), {1, 2, 3}),
    "log_data_usage": lambda t: t.log_data_usage(np.arange(20_000), 1),
    "log_dataset_version": lambda t: t.log_dataset_version("d", "v1", "."),
    "log_delta_loss": lambda t: t.log_delta_loss(1, 0.5, 1.0),
    "log_dict": lambda t: t.log_dict({"a": 1}, "a.json"),
    "log_environment_info": lambda t: t.log_environment_info(),
    "log_figure": lambda t: t.log_figure(Figure(), "a.png"),
    "log_git_commit": lambda t: t.log_git_commit("."),
    "log_lezea_config": lambda t: t.log_lezea_config(64, 4, "SAC", seeds=1),
    "log_metrics": lambda t: t.log_metrics({"loss": np.float32(0.5)}),
    "log_modification_stats": lambda t: t.log_modification_stats({"widen": 3}),
    "log_modification_tree": lambda t: t.log_modification_tree(1, [{"type": "widen"}] * 100),
    "log_modification_tree_stats": lambda t: t.log_modification_tree_stats({"depth": 3}),
    "log_params": lambda t: t.log_params({"lr": 0.1, "password": "secret"}),
    "log_population_snapshot": lambda t: t.log_population_snapshot(2, 1, 0, np.random.default_rng(0).random(5_000)),
    "log_resource": lambda t: t.log_resource("c", 1.0, 2.0, 3.0),
    "log_resource_cost": lambda t: t.log_resource_cost(1.0, 2.0, 3),
    "log_results": lambda t: t.log_results({"weights": np.zeros(20_000)}),
    "log_reward": lambda t: t.log_reward("t0", "not a number"),
    "log_reward_flow": lambda t: t.log_reward_flow("b0", "t0", "builder", "tasker", 0.5),
    "log_text": lambda t: t.log_text("text", "a.txt"),
    "log_training_step": lambda t: t.log_training_step(1, {"loss": 0.5, "bad": []}, "val", sample_ids=[1, 2]),
    "measure": lambda t: t.measure("tasker#0", "tasker", detail=True).__enter__(),
    "mlflow_run_id": lambda t: t.mlflow_run_id,
    "mlflow_url": lambda t: t.mlflow_url,
    "network_scope": lambda t: t.network_scope("n").__enter__(),
    "register_network": lambda t: t.register_network("n", NetworkType.BUILDER, ["m"], 1),
    "scope": lambda t: t.scope("island", 1).__enter__(),
    "set_budget": lambda t: t.set_budget(1.0),
    "start": lambda t: t.start(prometheus_port=0),
    "status": lambda t: t.status,
    "tasker_scope": lambda t: t.tasker_scope("t0").__enter__(),
}  # fmt: skip


def states() -> tuple[Any, ...]:
    """Return the state of every generator that a program may have seeded."""
    name, keys, *rest = np.random.get_state()
    found: list[Any] = [random.getstate(), name, bytes(np.asarray(keys).tobytes()), *rest]
    if importlib.util.find_spec("torch") is not None:
        import torch

        found.append(bytes(torch.get_rng_state().numpy().tobytes()))
    return tuple(found)


def seed() -> None:
    """Seed them."""
    random.seed(1)
    np.random.seed(1)


def test_every_public_name_is_tried() -> None:
    """What is added to the tracker has to be added here."""
    public = {name for name, _ in inspect.getmembers(ExperimentTracker) if not name.startswith("_")}
    assert CALLS.keys() == public


@pytest.mark.parametrize("name", CALLS)
def test_no_call_draws_a_random_number(name: str, tmp_path: Path) -> None:
    """Neither the constructor, nor the call, nor the same call once more, nor the end."""
    (tmp_path / "file.txt").write_text("content")
    seed()
    before = states()
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    for _ in range(2):
        CALLS[name](tracker)
        assert states() == before
    tracker.end()
    assert states() == before


def test_delivering_from_this_process_draws_none_either(
    shared_mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """With threads MLflow works in the program itself: its client names runs, sends files and tries again."""
    (tmp_path / "file.txt").write_text("content")
    settings = {"courier": "thread", "mlflow_tracking_uri": shared_mlflow_server.uri}
    seed()
    before = states()
    with ExperimentTracker("Random numbers", settings=settings) as tracker:
        for name in ("log_metrics", "log_params", "log_artifact", "log_text", "log_modification_tree"):
            CALLS[name](tracker)
        assert tracker.flush(60)
    assert states() == before


@pytest.mark.parametrize("listens", [True, False])
def test_a_server_that_fails_draws_none_either(listens: bool, shared_mlflow_server: MlflowServer) -> None:
    """Pauses are spread at random, by a generator of their own."""
    uri = f"{shared_mlflow_server.uri}/elsewhere" if listens else "http://127.0.0.1:9"
    settings = {"courier": "thread", "mlflow_tracking_uri": uri, "close_timeout_s": 2}
    seed()
    before = states()
    with ExperimentTracker("Random numbers", settings=settings) as tracker:
        tracker.log_training_step(1, {"loss": 0.5})
        assert not tracker.flush(1)
        assert sum(tracker.health()["sinks"]["mlflow"]["failures"].values()) > 0
    assert states() == before


def test_seeding_repeats_no_id() -> None:
    """A thousand runs that all begin with the same seed have a thousand ids."""
    ids = set()
    for _ in range(1_000):
        random.seed(0)
        np.random.seed(0)
        ids.add(ExperimentTracker("Demo", settings={"mode": "off"}).experiment_id)
    assert len(ids) == 1_000
    assert new_experiment_id() not in ids
