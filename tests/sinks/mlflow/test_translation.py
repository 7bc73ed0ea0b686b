"""What each call's event is in MLflow, and that no payload, whoever wrote it, can stop the delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from lezea_mlops.events import CLASS_OF_TYPE
from lezea_mlops.sinks.mlflow.pieces import Translation
from tests.sinks.mlflow.records import SHA, Payload, brought, files, metrics


@dataclass(frozen=True)
class Case:
    """An event, and what a person sees of it."""

    kind: str
    payload: Payload
    metrics: dict[str, tuple[float, int]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


CASES = [
    Case(
        "param",
        {"params": {"lr": 0.0003, "net": {"width": 64, "acts": ["relu"]}, "on": True, "none": None}},
        params={"lr": "0.0003", "net.width": "64", "net.acts": '["relu"]', "on": "true", "none": ""},
    ),
    Case(
        "lezea_config",
        {
            "tasker_population_size": 64,
            "algorithm_type": "SAC",
            "hyperparameters": {"lr": 0.1},
            "seeds": {"global": 1},
        },
        params={
            "tasker_population_size": "64",
            "algorithm_type": "SAC",
            "hyperparameters.lr": "0.1",
            "seeds.global": "1",
        },
    ),
    Case(
        "constraints",
        {"runtime_limit_seconds": 60, "step_episode_limits": {"tasker": 5}},
        params={"runtime_limit_seconds": "60", "step_episode_limits.tasker": "5"},
    ),
    Case(
        "training_step",
        {"step": 3, "metrics": {"loss": 0.5, "val/AR@100": 1}, "delta_loss": 0.25, "data_split": "train"},
        metrics={"train/loss": (0.5, 3), "train/val/AR_x40_100": (1, 3), "train/delta_loss": (0.25, 3)},
    ),
    Case(
        "training_step",
        {
            "scope": [["builder", "42"], ["layer", "3"]],
            "step": 3,
            "metrics": {"loss": 0.5},
            "modification_statistics": {"depth": 2},
        },
        metrics={"builder:42/layer:3/loss": (0.5, 3), "builder:42/layer:3/modification/depth": (2, 3)},
    ),
    Case("metric", {"metrics": {"a/b": 1, "a_b": 2}, "step": 4}, metrics={"a/b": (1, 4), "a_b": (2, 4)}),
    Case(
        "delta_loss",
        {"epoch": 5, "loss": 0.44, "prev_loss": 0.53, "delta_loss": 0.09},
        metrics={"delta_loss": (0.09, 5)},
    ),
    Case(
        "modification_tree",
        {
            "step": 9,
            "modifications": [{"id": "m1"}],
            "statistics": {
                "mutations": 5,
                "computed": {
                    "depth": 1,
                    "mutations": 1,
                    "by_type": {"widen": {"proposed": 1, "accepted": 1}},
                    "root_ids": ["7", "m1"],
                },
            },
        },
        metrics={"tree/mutations": (5, 9), "tree/depth": (1, 9)},
        files={"modifications/step_9.json"},
    ),
    Case(
        "modification_tree",
        {
            "scope": [["builder", "a/b"]],
            "step": 9,
            "modifications": [],
            "part": 2,
            "parts": 2,
            "repeat": 3,
            "statistics": {"x": 1},
        },
        files={"modifications/builder_a_x2F_b/step_9-3.part2.json"},
    ),
    Case(
        "modification_tree_stats",
        {"stats": {"accept_rate": 0.31, "by": {"kind": 2}}, "step": 1},
        metrics={"modtree/accept_rate": (0.31, 1), "modtree/by/kind": (2, 1)},
    ),
    Case(
        "modification_stats",
        {"stats": {"crossover": 12}, "step": 1},
        metrics={"modification/crossover": (12, 1)},
    ),
    Case(
        "data_splits",
        {"train_ids": ["a"], "sizes": {"train": 1, "val": 0}},
        metrics={"data/train_size": (1, 0), "data/val_size": (0, 0)},
        files={"data/splits_00000007.json"},
    ),
    Case(
        "data_usage",
        {"sample_ids": ["a"], "epoch": 3, "count": 1},
        metrics={"data/samples_used": (1, 3)},
        files={"data/usage/00000007.json"},
    ),
    Case(
        "data_score",
        {"sample_id": "a", "before_loss": 1.2, "after_loss": 0.9, "delta": 0.3},
        metrics={"data/relevance": (0.3, 7)},
    ),
    Case(
        "resource",
        {
            "component_id": "tasker#0",
            "component_type": "tasker",
            "cpu_percent": 12.3,
            "memory_mb": 512.0,
            "gpu_util_percent": 4.1,
            "io_operations": 1024,
        },
        metrics={
            "resources/tasker_x23_0/cpu_percent": (12.3, 7),
            "resources/tasker_x23_0/memory_mb": (512, 7),
            "resources/tasker_x23_0/gpu_util_percent": (4.1, 7),
            "resources/tasker_x23_0/io_operations": (1024, 7),
        },
    ),
    Case(
        "resource",
        {
            "component_id": "process",
            "component_type": "process",
            "cpu_percent": 98.5,
            "sample": {
                "gpus": [
                    {"index": 0, "util_percent": 37, "memory_used_bytes": 2**30, "power_w": 312.5},
                    {"index": 1, "temperature_c": 54},
                ],
                "host": {"cpu_percent": 50.5, "memory_used_bytes": 2**31},
            },
        },
        metrics={
            "resources/process/cpu_percent": (98.5, 7),
            "resources/gpu0/util_percent": (37, 7),
            "resources/gpu0/memory_mb": (1024, 7),
            "resources/gpu0/power_w": (312.5, 7),
            "resources/gpu1/temperature_c": (54, 7),
            "resources/host/cpu_percent": (50.5, 7),
            "resources/host/memory_mb": (2048, 7),
        },
    ),
    Case("resource_use", {"from_us": 1, "to_us": 2, "uses": [{"component_id": "a", "wall_s": 1.0}]}),
    Case(
        "resource_totals",
        {
            "resources": {
                "total": {"core_hours": 2.5, "gb_hours": 1},
                "unattributed": {"core_hours": 0.5},
                "components": {"tasker#0": {"core_hours": 2.0}},
            },
            "costs": {
                "eur": 1.5,
                "parts": {"cpu": 1.0, "gpu": 0.5},
                "co2_g": None,
                "modifications": {
                    "accepted": {"eur": 0.25},
                    "rejected": {"eur": 1},
                    "per_accepted_eur": 0.125,
                },
            },
        },
        metrics={
            "resources/total/core_hours": (2.5, 1),
            "resources/total/gb_hours": (1, 1),
            "resources/unattributed/core_hours": (0.5, 1),
            "cost/total/eur": (1.5, 1),
            "cost/total/cpu_eur": (1, 1),
            "cost/total/gpu_eur": (0.5, 1),
            "cost/total/accepted_modifications_eur": (0.25, 1),
            "cost/total/rejected_modifications_eur": (1, 1),
            "cost/total/per_accepted_modification_eur": (0.125, 1),
        },
        files={"resources/summary.json"},
    ),
    Case("rates", {"rates": {"core_hour_eur": 0.04}}, files={"business/rates.json"}),
    Case("budget", {"branch": "run", "budget_eur": 5}),
    Case(
        "budget_reached",
        {"branch": "run", "budget_eur": 5, "spent_eur": 4.1, "share": 0.8},
        tags={"lezea.budget_reached": "80% of 5 EUR"},
    ),
    Case("budget_reached", {"branch": "builder:1", "budget_eur": 5, "spent_eur": 4.1, "share": 0.8}),
    Case(
        "checkpoint",
        {
            "path": "/x/step_100.pt",
            "name": "step_100.pt",
            "size": 3,
            "blob": SHA,
            "step": 100,
            "role": "best",
            "metadata": {"a": 1},
        },
        files={"checkpoints/step_100/step_100.pt", "checkpoints/step_100/step_100.pt.metadata.json"},
    ),
    Case(
        "checkpoint",
        {"path": "/x/last.pt", "name": "last.pt", "size": 3, "blob": SHA, "scope": [["builder", "1"]]},
        files={"checkpoints/builder_1/00000007/last.pt"},
    ),
    Case(
        "artifact",
        {"path": "/x/curve.png", "name": "plots/curve.png", "size": 3, "blob": SHA},
        files={"plots/curve.png"},
    ),
    Case(
        "result",
        {
            "result_dict": {"reward_avg": 0.71, "note": "good", "by": {"t": 1}},
            "tasker_rewards": {"t0": 0.8},
            "builder_rewards": {"b0": 0.6},
            "action_outputs": {"a": [0]},
            "step": 10,
        },
        metrics={
            "results/reward_avg": (0.71, 10),
            "results/by/t": (1, 10),
            "results/tasker_rewards/t0": (0.8, 10),
            "results/builder_rewards/b0": (0.6, 10),
        },
        files={"results/00000007.json"},
    ),
    Case("reward", {"tasker_id": "t0", "reward": 0.91, "step": 1}, metrics={"reward/t0": (0.91, 1)}),
    Case(
        "reward",
        {"source_id": "b0", "target_id": "t/1", "reward": -1, "step": 2},
        metrics={"reward/t/1": (-1, 2)},
    ),
    Case(
        "population",
        {
            "tasker_count": 4,
            "builder_count": 2,
            "generation": 5,
            "fitness_scores": {"a": 1, "b": 3, "c": "NaN"},
            "diversity_metric": 0.5,
        },
        metrics={
            "population/tasker_count": (4, 5),
            "population/builder_count": (2, 5),
            "population/generation": (5, 5),
            "population/diversity": (0.5, 5),
            "population/fitness_max": (3, 5),
            "population/fitness_min": (1, 5),
            "population/fitness_mean": (2, 5),
        },
        files={"population/generation_5.json"},
    ),
    Case(
        "fold",
        {
            "level": "tasker",
            "metric": "layer:1/loss",
            "split": "val",
            "step": 6,
            "count": 3,
            "mean": 2.0,
            "min": 1.0,
            "max": 3.0,
            "best_id": "t1",
        },
        metrics={
            "population/tasker/val/layer:1/loss/mean": (2, 6),
            "population/tasker/val/layer:1/loss/min": (1, 6),
            "population/tasker/val/layer:1/loss/max": (3, 6),
            "population/tasker/val/layer:1/loss/count": (3, 6),
        },
    ),
    Case(
        "resource_cost",
        {"cpu_hours": 3.2, "mem_gb": 11.7, "io_bytes": 5000000},
        metrics={"cost/cpu_hours": (3.2, 7), "cost/mem_gb": (11.7, 7), "cost/io_bytes": (5000000.0, 7)},
        files={"business/cost_00000007.json"},
    ),
    Case(
        "business",
        {"metrics": {"resource_cost_eur": 8.73}},
        metrics={"cost/resource_cost_eur": (8.73, 7)},
        files={"business/metrics_00000007.json"},
    ),
    Case("comment", {"text": "slow"}, files={"notes/comment_00000007.md"}),
    Case("conclusion", {"text": "done"}, files={"notes/conclusion_00000007.md"}),
    Case(
        "environment",
        {"facts": {"host": {"cpus": 2}, "packages": {}}},
        files={"environment/host_packages.json"},
    ),
    Case(
        "environment",
        {"facts": {"git": {"commit": "abc", "branch": "main", "dirty": True, "remote": "https://x"}}},
        tags={
            "mlflow.source.git.commit": "abc",
            "lezea.git.branch": "main",
            "lezea.git.dirty": "true",
            "lezea.git.remote": "https://x",
        },
        files={"environment/git.json"},
    ),
    Case(
        "run_started",
        {
            "experiment_name": "Demo",
            "tags": {"team": "a", "n": 3, "lezea.status_order": "x", "a#b": "c"},
            "source": {"entrypoint": "train.py"},
            "env": {"hostname": "h", "pid": 5, "user": "me"},
        },
        tags={
            "team": "a",
            "n": "3",
            "lezea_x2E_status_order": "x",
            "a_x23_b": "c",
            "lezea.attempt": "1",
            "mlflow.source.name": "train.py",
            "mlflow.source.type": "LOCAL",
            "lezea.hostname": "h",
            "mlflow.user": "me",
        },
    ),
    Case(
        "run_finished",
        {
            "status": "failed",
            "reason": "boom",
            "error": {"type": "ValueError", "message": "x", "traceback": "tb"},
            "summary": {"resources": {"samples": 2, "cpu_core_hours": 1.5}},
        },
        metrics={"resources/total/samples": (2, 0), "resources/total/cpu_core_hours": (1.5, 0)},
        tags={"lezea.reason": "boom", "lezea.error": "ValueError: x"},
        files={"error/traceback.txt", "summary.json"},
    ),
    Case("network", {"network_id": "n1", "network_type": "tasker", "parent_ids": []}),
    Case("rejected_input", {"call": "log_metrics", "argument": "x", "value": "y", "reason": "z"}),
    Case("gap", {"count": 1, "first_seq": 1, "last_seq": 1, "reason": "full"}),
    Case("status", {"status": "training"}),
    Case("log", {"level": "info", "msg": "hello"}),
    Case("reward", {"tasker_id": "t", "reward": 1}, metrics={"reward/t": (1, 0)}),
]
IDS = [f"{number}-{case.kind}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_each_event_shows_where_the_design_says(case: Case) -> None:
    """Metrics, params, tags and files of every kind of event, and nothing besides."""
    out = brought(case.kind, case.payload)
    assert metrics(out) == {name: pytest.approx(point) for name, point in case.metrics.items()}
    assert (out.params, out.tags, files(out)) == (case.params, case.tags, case.files)


def test_the_table_has_every_type_of_event() -> None:
    """A type that is added has to say where it shows."""
    assert {case.kind for case in CASES} | {"dataset_version"} == set(CLASS_OF_TYPE)


def test_an_unknown_type_brings_nothing() -> None:
    """A type of next year passes."""
    assert brought("telepathy", {"step": 1, "metrics": {"a": 1}}) == Translation()


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("completed", "FINISHED"), ("failed", "FAILED"), ("killed", "KILLED"),
        ("odd", "FAILED"), (None, "FAILED"), ([], "FAILED"),
    ],
)  # fmt: skip
def test_the_end_sets_the_status(status: Any, shown: str) -> None:
    """The three words of the journal; another program's word, or none, is no success."""
    assert brought("run_finished", {"status": status}).status == shown


def test_a_start_sets_status_and_purpose() -> None:
    """The purpose is the beginning of the description."""
    out = brought("run_started", {"experiment_name": "Demo", "purpose": "find out"})
    assert (out.status, out.note) == ("RUNNING", ("purpose", "find out"))


# ---------------------------------------------------------------------- other writers


def test_another_writer_has_names_and_files_of_its_own() -> None:
    """Metrics and files stand behind its name, so that nothing of ``main`` is replaced."""
    assert metrics(brought("metric", {"metrics": {"loss": 1}, "step": 2}, wid="rank1")) == {
        "rank1/loss": (1, 2)
    }
    for case in CASES:
        assert files(brought(case.kind, case.payload, wid="rank1")) == {
            f"rank1/{path}" for path in case.files
        }


def test_another_writer_neither_begins_nor_ends_the_run() -> None:
    """Status, tags and purpose are those of ``main``; a comment is anybody's."""
    for kind in ("run_started", "run_finished", "environment"):
        payload = next(case.payload for case in CASES if case.kind == kind)
        out = brought(kind, {**payload, "purpose": "p"}, wid="rank1")
        assert (out.status, out.tags, out.note) == (None, {}, None)
    assert brought("comment", {"text": "hi"}, wid="rank1").note == ("comment", "hi")


def test_the_courier_may_end_the_run() -> None:
    """It says that a process was killed, for that process cannot."""
    assert brought("run_finished", {"status": "killed", "inferred": True}, wid="courier").status == "KILLED"


@pytest.mark.parametrize("kind", ["resource", "resource_totals", "rates", "budget_reached"])
def test_the_courier_speaks_for_the_run(kind: str) -> None:
    """Its samples, totals, prices and budgets stand where those of ``main`` do; those of a rank stand apart."""
    for case in CASES:
        if case.kind == kind:
            assert brought(kind, case.payload, wid="courier") == brought(kind, case.payload)
            of_rank = brought(kind, case.payload, wid="rank1")
            names = [*metrics(of_rank), *files(of_rank)]
            assert len(names) == len(case.metrics) + len(case.files)
            assert [name for name in names if not name.startswith("rank1/")] == []
