"""Every call of the connector spec, as the spec writes it: which event it leaves, with which fields."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker, NetworkType

Logged = list[tuple[str, dict[str, Any]]]
Do = Callable[[Any], object]


def logged(do: Do, *, strict: bool = True) -> Logged:
    """Return type and fields of the events that *do* leaves in a new run."""
    tracker = ExperimentTracker("Demo", strict=strict, settings={"mode": "offline"})
    do(tracker)
    records = [(record.type, dict(record.payload)) for record in read_run(tracker.run_dir)]
    assert all(payload.pop("run_id") == tracker.experiment_id for _, payload in records)
    assert records.pop(0)[0] == "run_started"
    return records


TREE = [
    {"id": "a", "type": "widen", "accepted": True, "score": 0.4},
    {"id": "b", "parent_ids": ["a"], "type": "prune", "accepted": False},
]
TREE_EVENT = {
    "step": 3,
    "modifications": [{**TREE[0], "parent_ids": []}, TREE[1]],
    "statistics": {
        "computed": {
            "count": 2,
            "roots": 1,
            "depth": 2,
            "max_children": 1,
            "accepted": 1,
            "rejected": 1,
            "accept_rate": 0.5,
            "by_type": {"widen": {"proposed": 1, "accepted": 1}, "prune": {"proposed": 1, "accepted": 0}},
            "root_ids": ["a"],
        },
        "mutations": 5,
    },
}
HYPER = {"lr": 3e-4, "gamma": 0.99}
CONFIG = {
    "tasker_population_size": 128, "builder_population_size": 8, "algorithm_type": "SAC",
    "start_network_id": "seed_001", "hyperparameters": HYPER, "seeds": {"global": 123, "layer": 456},
    "initialization_scheme": "kaiming_uniform",
}  # fmt: skip
FLOW = {
    "source_id": "b0", "target_id": "t0", "source_type": "builder", "target_type": "tasker", "reward": 0.25,
    "task_id": "maze",
}  # fmt: skip
SNAPSHOT = {
    "tasker_count": 64, "builder_count": 4, "generation": 2, "fitness_scores": {"t0": 0.5},
    "diversity_metric": 0.3, "step": 9,
}  # fmt: skip
COMPONENT = {
    "component_id": "tasker#0", "component_type": "tasker", "cpu_percent": 12.3, "memory_mb": 512.0,
    "gpu_util_percent": 4.1, "io_operations": 1024,
}  # fmt: skip

# What the seed writes comes first in each group; then the other form of the same call.
CALLS: dict[str, tuple[Do, str, dict[str, Any]]] = {
    "config by name": (lambda t: t.log_lezea_config(**CONFIG), "lezea_config", CONFIG),
    "config by place": (
        lambda t: t.log_lezea_config(64, 4, "SAC", hyperparameters={"lr": 3e-4}), "lezea_config",
        {"tasker_population_size": 64, "builder_population_size": 4, "algorithm_type": "SAC",
         "hyperparameters": {"lr": 3e-4}},
    ),
    "config, one seed": (lambda t: t.log_lezea_config(seeds=7), "lezea_config", {"seeds": {"global": 7}}),
    "constraints by name": (
        lambda t: t.log_constraints(runtime_limit_seconds=60.5, step_episode_limits={"maze": 200}), "constraints",
        {"runtime_limit_seconds": 60.5, "step_episode_limits": {"maze": 200}},
    ),
    "constraints by place": (
        lambda t: t.log_constraints(60, 200), "constraints",
        {"runtime_limit_seconds": 60, "step_episode_limits": 200},
    ),
    "step with a split": (
        lambda t: t.log_training_step(7, {"loss": 0.731, "acc": 0.84}, data_split="train"), "training_step",
        {"step": 7, "metrics": {"loss": 0.731, "acc": 0.84}, "data_split": "train"},
    ),
    "step, split by place": (
        lambda t: t.log_training_step(0, {"loss": 0.7}, "val"), "training_step",
        {"step": 0, "metrics": {"loss": 0.7}, "data_split": "val"},
    ),
    "step by name": (
        lambda t: t.log_training_step(step=1, metrics={"loss": 0.7}), "training_step",
        {"step": 1, "metrics": {"loss": 0.7}},
    ),
    "step with its data and modifications": (
        lambda t: t.log_training_step(
            4, {"acc": 0.5}, sample_ids=["a", 2], modification_path=["m1", "m2"],
            modification_statistics={"widen": 3},
        ), "training_step",
        {"step": 4, "metrics": {"acc": 0.5}, "sample_ids": ["a", 2], "modification_path": ["m1", "m2"],
         "modification_statistics": {"widen": 3}},
    ),
    "step without metrics": (
        lambda t: t.log_training_step(4, {}, sample_ids=["a"]), "training_step",
        {"step": 4, "metrics": {}, "sample_ids": ["a"]},
    ),
    "tree": (
        lambda t: t.log_modification_tree(3, modifications=TREE, statistics={"mutations": 5}),
        "modification_tree", TREE_EVENT,
    ),
    "tree by place": (
        lambda t: t.log_modification_tree(3, TREE, {"mutations": 5}), "modification_tree", TREE_EVENT,
    ),
    "tree from a generator": (
        lambda t: t.log_modification_tree(3, (m for m in TREE), {"mutations": 5}),
        "modification_tree", TREE_EVENT,
    ),
    "tree statistics": (
        lambda t: t.log_modification_tree_stats({"accept_rate": 0.31, "depth": 4}), "modification_tree_stats",
        {"stats": {"accept_rate": 0.31, "depth": 4}, "step": 1},
    ),
    "modification statistics": (
        lambda t: t.log_modification_stats({"crossover": 12, "mutation": 33}), "modification_stats",
        {"stats": {"crossover": 12, "mutation": 33}, "step": 1},
    ),
    "statistics at a step": (
        lambda t: t.log_modification_stats(stats={"crossover": 1}, step=8), "modification_stats",
        {"stats": {"crossover": 1}, "step": 8},
    ),
    "splits by place": (
        lambda t: t.log_data_splits(["a", "b"], ["c"], ["d"]), "data_splits",
        {"train_ids": ["a", "b"], "val_ids": ["c"], "test_ids": ["d"], "sizes": {"train": 2, "val": 1, "test": 1}},
    ),
    "splits by name, one left out": (
        lambda t: t.log_data_splits(train_ids=range(3), test_ids={9}), "data_splits",
        {"train_ids": [0, 1, 2], "test_ids": [9], "sizes": {"train": 3, "test": 1}},
    ),
    "usage": (
        lambda t: t.log_data_usage(sample_ids=["a", "b", "c"], epoch=3), "data_usage",
        {"sample_ids": ["a", "b", "c"], "epoch": 3, "count": 3},
    ),
    "usage by place": (
        lambda t: t.log_data_usage(iter("ab"), 3), "data_usage",
        {"sample_ids": ["a", "b"], "epoch": 3, "count": 2},
    ),
    "usage of one sample": (lambda t: t.log_data_usage("a"), "data_usage", {"sample_ids": ["a"], "count": 1}),
    "score": (
        lambda t: t.log_data_score(sample_id="a", before_loss=1.25, after_loss=0.75), "data_score",
        {"sample_id": "a", "before_loss": 1.25, "after_loss": 0.75, "delta": 0.5},
    ),
    "score by place": (
        lambda t: t.log_data_score(7, 1, 3), "data_score",
        {"sample_id": "7", "before_loss": 1, "after_loss": 3, "delta": -2},
    ),
    "delta of an epoch": (
        lambda t: t.log_delta_loss(epoch=5, loss=0.25, prev_loss=0.75), "delta_loss",
        {"epoch": 5, "loss": 0.25, "prev_loss": 0.75, "delta_loss": 0.5},
    ),
    "delta by place": (
        lambda t: t.log_delta_loss(5, 3.0, 1.0), "delta_loss",
        {"epoch": 5, "loss": 3.0, "prev_loss": 1.0, "delta_loss": -2.0},
    ),
    "resource": (
        lambda t: t.log_resource("tasker#0", cpu=12.3, gpu=4.1, mem=512.0), "resource",
        {"component_id": "tasker#0", "cpu_percent": 12.3, "memory_mb": 512.0, "gpu_util_percent": 4.1},
    ),
    "resource by place": (
        lambda t: t.log_resource("tasker#0", 12.3, 4.1, 512.0), "resource",
        {"component_id": "tasker#0", "cpu_percent": 12.3, "memory_mb": 512.0, "gpu_util_percent": 4.1},
    ),
    "component": (lambda t: t.log_component_resources(**COMPONENT), "resource", COMPONENT),
    "component by place": (
        lambda t: t.log_component_resources(*COMPONENT.values()), "resource", COMPONENT,
    ),
    "dataset": (
        lambda t: t.log_dataset_version("imagenet", version_tag="v1.0", version_metadata={"rows": 9}),
        "dataset_version",
        {"dataset_name": "imagenet", "version_tag": "v1.0", "version_metadata": {"rows": 9}},
    ),
    "dataset by place": (
        lambda t: t.log_dataset_version("imagenet", "v1.0"), "dataset_version",
        {"dataset_name": "imagenet", "version_tag": "v1.0"},
    ),
    "results, unified": (
        lambda t: t.log_results(result_dict={"tasker_reward_avg": 0.71}), "result",
        {"result_dict": {"tasker_reward_avg": 0.71}},
    ),
    "results, granular": (
        lambda t: t.log_results(
            tasker_rewards={"t0": 0.8}, builder_rewards={"b0": 0.6}, action_outputs={"action": [0, 1, 0]}, step=10
        ), "result",
        {"tasker_rewards": {"t0": 0.8}, "builder_rewards": {"b0": 0.6}, "action_outputs": {"action": [0, 1, 0]},
         "step": 10},
    ),
    "results by place": (
        lambda t: t.log_results({"x": 1}, {"t0": 0.8}, {"b0": 0.6}, [0, 1], 10), "result",
        {"result_dict": {"x": 1}, "tasker_rewards": {"t0": 0.8}, "builder_rewards": {"b0": 0.6},
         "action_outputs": [0, 1], "step": 10},
    ),
    "reward": (
        lambda t: t.log_reward("t0", 0.91), "reward", {"tasker_id": "t0", "reward": 0.91, "step": 1},
    ),
    "reward by name": (
        lambda t: t.log_reward(tasker_id=0, reward=1, step=4), "reward",
        {"tasker_id": "0", "reward": 1, "step": 4},
    ),
    "reward flow": (lambda t: t.log_reward_flow(**FLOW), "reward", {**FLOW, "step": 1}),
    "reward flow by place": (
        lambda t: t.log_reward_flow("b0", "t0", NetworkType.BUILDER, NetworkType.TASKER, 0.25, "maze", 6), "reward",
        {**FLOW, "step": 6},
    ),
    "population": (lambda t: t.log_population_snapshot(**SNAPSHOT), "population", SNAPSHOT),
    "population by place": (
        lambda t: t.log_population_snapshot(64, 4, 2, [0.5, 0.25], 0.3), "population",
        {"tasker_count": 64, "builder_count": 4, "generation": 2, "fitness_scores": [0.5, 0.25],
         "diversity_metric": 0.3},
    ),
    "network": (
        lambda t: t.register_network(
            "n2", NetworkType.HYBRID, ["n0", "n1"], 3, architecture=[64, 10], metadata={"from": "crossover"}
        ), "network",
        {"network_id": "n2", "network_type": "hybrid", "parent_ids": ["n0", "n1"], "generation": 3,
         "architecture": [64, 10], "metadata": {"from": "crossover"}},
    ),
    "first network": (
        lambda t: t.register_network(network_id=0, network_type="builder", parent_ids=None), "network",
        {"network_id": "0", "network_type": "builder", "parent_ids": []},
    ),
    "cost": (
        lambda t: t.log_resource_cost(cpu_hours=3.2, mem_gb=11.7, io_bytes=5_000_000), "resource_cost",
        {"cpu_hours": 3.2, "mem_gb": 11.7, "io_bytes": 5_000_000},
    ),
    "cost by place": (
        lambda t: t.log_resource_cost(3.2, 11.7, 5), "resource_cost",
        {"cpu_hours": 3.2, "mem_gb": 11.7, "io_bytes": 5},
    ),
    "comment": (
        lambda t: t.log_comment("Builder population converged early; widen mutation space."), "comment",
        {"text": "Builder population converged early; widen mutation space."},
    ),
    "conclusion": (
        lambda t: t.log_conclusion("SAC + curriculum v2 beats baseline by 4.3% with lower variance."), "conclusion",
        {"text": "SAC + curriculum v2 beats baseline by 4.3% with lower variance."},
    ),
    "business": (
        lambda t: t.log_business_metrics(resource_cost_eur=8.73), "business",
        {"metrics": {"resource_cost_eur": 8.73}},
    ),
    "business, more": (
        lambda t: t.log_business_metrics(8.73, saved_eur=2), "business",
        {"metrics": {"resource_cost_eur": 8.73, "saved_eur": 2}},
    ),
    "params": (
        lambda t: t.log_params({"lr": 3e-4, "net": {"depth": 2}}), "param",
        {"params": {"lr": 3e-4, "net": {"depth": 2}}},
    ),
    "metrics": (
        lambda t: t.log_metrics({"acc": 0.5}, step=3), "metric", {"metrics": {"acc": 0.5}, "step": 3},
    ),
    "metrics, counted": (
        lambda t: t.log_metrics({"acc": 0.5}), "metric", {"metrics": {"acc": 0.5}, "step": 1},
    ),
    "environment": (
        lambda t: t.log_environment_info({"cluster": "a"}), "environment", {"facts": {"cluster": "a"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_one_event_with_its_arguments(call: str) -> None:
    """The event has the type of DESIGN section 8 and the spec's own argument names, and nothing was rejected."""
    do, kind, fields = CALLS[call]
    assert logged(do) == [(kind, fields)]


def test_the_table_above_forgets_no_call() -> None:
    """Each public ``log_*`` method and ``register_network`` is called in this file."""
    public = {
        name for name in vars(ExperimentTracker) if name.startswith("log_") or name == "register_network"
    }
    called = set(re.findall(r"\bt\.(\w+)\(", Path(__file__).read_text()))
    assert public <= called


def test_two_kinds_of_statistics_are_two_types() -> None:
    """Statistics of the tree and counts of modifications stay apart, and are counted apart."""

    def both(t: ExperimentTracker) -> None:
        t.log_modification_tree_stats({"depth": 4})
        t.log_modification_stats({"crossover": 12})
        t.log_modification_stats({"crossover": 13})

    events = logged(both)
    assert [kind for kind, _ in events] == [
        "modification_tree_stats",
        "modification_stats",
        "modification_stats",
    ]
    assert [fields["step"] for _, fields in events] == [1, 1, 2]


def test_files_texts_dictionaries_and_figures_are_artifacts(tmp_path: Path) -> None:
    """The five calls that keep files leave checkpoint and artifact events that name the captured content."""

    class Figure:
        def savefig(self, file: Any, format: str) -> None:
            file.write(b"drawn as " + format.encode())

    path = tmp_path / "step_100.pt"
    path.write_bytes(b"weights")

    def all_five(t: ExperimentTracker) -> None:
        t.log_checkpoint(str(path), step=100)
        t.log_artifact(path, "models")
        t.log_text("plan", "notes/plan.md")
        t.log_dict({"a": 1}, "a.json")
        t.log_figure(Figure(), "curve.png")

    events = logged(all_five)
    assert [kind for kind, _ in events] == ["checkpoint", "artifact", "artifact", "artifact", "artifact"]
    names = ["step_100.pt", "models/step_100.pt", "notes/plan.md", "a.json", "curve.png"]
    assert [fields["name"] for _, fields in events] == names
    assert [fields.get("role") for _, fields in events] == [None, None, "text", "dict", "figure"]
    assert events[0][1]["step"] == 100
    assert all(fields["blob"] == fields["sha256"] and fields["size"] > 0 for _, fields in events)


def test_a_dataset_that_exists_is_fingerprinted(tmp_path: Path) -> None:
    """The version of the spec's example carries the fingerprint of the files at its path."""
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    (tmp_path / "data" / "imagenet" / "a.bin").write_bytes(b"pixels")
    ((kind, fields),) = logged(
        lambda t: t.log_dataset_version("imagenet", version_tag="v1.0", dataset_path="data/imagenet")
    )
    assert kind == "dataset_version"
    assert fields["dataset_path"] == "data/imagenet"
    assert (fields["fingerprint"]["file_count"], fields["fingerprint"]["total_bytes"]) == (1, 6)


def test_the_repository_and_the_machine_are_captured(tmp_path: Path) -> None:
    """Without arguments both environment calls look for themselves."""
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(tmp_path)], check=True)
    (git,) = logged(lambda t: t.log_git_commit())
    (machine,) = logged(lambda t: t.log_environment_info())
    assert git[0] == machine[0] == "environment"
    assert git[1]["facts"]["git"]["branch"] == "trunk"
    assert machine[1]["facts"].keys() == {"host", "gpu", "packages"}


def test_the_named_scopes_are_those_of_the_spec() -> None:
    """Each of the five writes its own level before the id."""

    def scoped(t: ExperimentTracker) -> None:
        for name in ("builder", "tasker", "algorithm", "network", "layer"):
            with getattr(t, f"{name}_scope")("42"):
                t.log_training_step(1, {"loss": 0.42})

    levels = ["builder", "tasker", "algorithm", "network", "layer"]
    assert [fields["scope"] for _, fields in logged(scoped)] == [[[level, "42"]] for level in levels]


def test_the_signatures_are_those_of_the_spec() -> None:
    """Constructor and ``start`` take the spec's arguments in the spec's order, with its defaults."""
    constructor = list(inspect.signature(ExperimentTracker).parameters.values())[:5]
    assert [(p.name, p.default) for p in constructor[1:]] == [
        ("purpose", ""), ("tags", None), ("auto_start", False), ("async_mode", False),
    ]  # fmt: skip
    start = inspect.signature(ExperimentTracker.start).parameters
    assert [(p.name, p.default) for p in start.values()][1:] == [("strict", None), ("prometheus_port", 8000)]


def test_the_constructor_says_what_the_run_is() -> None:
    """The first record holds name, purpose and tags, and who runs it."""
    tracker = ExperimentTracker("Demo", "sanity", {"team": "evolution"}, settings={"mode": "offline"})
    (start,) = read_run(tracker.run_dir)
    assert (start.type, start.seq, start.att, start.wid) == ("run_started", 1, 1, "main")
    event = start.event
    assert (event.experiment_name, event.purpose, event.tags) == ("Demo", "sanity", {"team": "evolution"})
    assert event.env["pid"] > 0
    assert event.source["entrypoint"]
