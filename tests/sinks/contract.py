"""The contract of every sink, as one test class: a sink is proved by subclassing it.

Records come at least once. Whatever came again, in whatever pieces, by a sink that remembers or by one that forgot: at
the end a person finds what one clean delivery would have left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lezea_mlops.events import CLASS_OF_TYPE, Envelope
from lezea_mlops.journal import COURIER_WRITER, JournalWriter, RunFolder, read_run
from lezea_mlops.sinks.base import Run, Sink, destination_id
from lezea_mlops.tracker import ExperimentTracker


@dataclass(frozen=True)
class Piece:
    """Some of the records in a row, delivered by the present sink or by a new one.

    Attributes:
        start, end: tenths of all records.
        sink: ``same``; ``new`` with the state that was stored; ``forgetful``: new, and the state was lost.
    """

    start: int
    end: int
    sink: str = "same"


# Every plan begins at the beginning, skips nothing and comes to the end; the records are A (0 to 5) and B (5 to 10).
PLANS: dict[str, list[Piece]] = {
    "in many pieces": [Piece(tenth, tenth + 1) for tenth in range(10)],
    "a new sink for each piece": [Piece(tenth, tenth + 1, "new") for tenth in range(10)],
    "AABB": [Piece(0, 5), Piece(0, 5), Piece(5, 10), Piece(5, 10)],
    "ABAB": [Piece(0, 5), Piece(5, 10), Piece(0, 5), Piece(5, 10)],
    "ABAB, state kept": [Piece(0, 5), Piece(5, 10), Piece(0, 5, "new"), Piece(5, 10)],
    "ABAB, state lost": [Piece(0, 5), Piece(5, 10), Piece(0, 5, "forgetful"), Piece(5, 10)],
    "all again": [Piece(0, 10), Piece(0, 10)],
    "all again, state kept": [Piece(0, 10), Piece(0, 10, "new")],
    "all again, state lost": [Piece(0, 10), Piece(0, 10, "forgetful")],
    "prefixes": [Piece(0, end, "new") for end in (1, 3, 4, 7, 10)],
    "prefixes, state lost": [Piece(0, end, "forgetful") for end in (2, 5, 6, 9, 10)],
    "state lost in the middle": [Piece(0, 3), Piece(3, 7, "new"), Piece(0, 10, "forgetful")],
}  # fmt: skip


class SinkContract(ABC):
    """What every sink promises; a subclass says how to make one and what a person sees of a run."""

    @classmethod
    @abstractmethod
    def place(cls, request: pytest.FixtureRequest) -> Any:
        """Return a place for all tests of the class, whatever ``make`` and ``seen`` need; each has its own runs."""

    @abstractmethod
    def make(self, destination: Any) -> Sink:
        """Return a new sink that delivers to this place."""

    @abstractmethod
    def seen(self, destination: Any, sink: Sink, run: Run) -> Any:
        """Return all that a person finds there of the run, for comparison."""

    def deliver(self, destination: Any, run: Run, records: Sequence[Envelope], plan: Sequence[Piece]) -> Any:
        """Deliver as the plan says and return what a person finds."""
        sink, state, reached = self.make(destination), {}, 0
        sink.open(run, state)
        for piece in plan:
            assert piece.start <= reached
            reached = max(reached, piece.end)
            if piece.sink != "same":
                sink.close()
                sink, state = self.make(destination), state if piece.sink == "new" else {}
                sink.open(run, state)
            sink.deliver(records[len(records) * piece.start // 10 : len(records) * piece.end // 10])
            # A cursor stores it as JSON.
            state = json.loads(json.dumps(sink.state()))
        assert reached == 10
        seen = self.seen(destination, sink, run)
        sink.close()
        return seen

    @pytest.mark.parametrize("plan", PLANS)
    def test_repetition_changes_nothing(
        self, plan: str, clean: Any, destination: Any, rich_run: RunFolder
    ) -> None:
        """Replaying any prefix and going on to the end equals one clean delivery."""
        run = a_run_like(rich_run, f"plan{list(PLANS).index(plan)}")
        assert self.deliver(destination, run, records_of(rich_run), PLANS[plan]) == clean

    def test_the_order_of_writers_changes_nothing(
        self, clean: Any, destination: Any, rich_run: RunFolder
    ) -> None:
        """Live, the writers' records come in turns; after a lost cursor, one writer after the other."""
        records = records_of(rich_run)
        main = [record for record in records if record.wid == "main"]
        others = [record for record in records if record.wid != "main"]
        assert len(others) > 5
        mixed = [main[0], *others[:2], *main[1:40], *others[2:], *main[40:]]
        again = self.deliver(destination, a_run_like(rich_run, "mixed"), mixed, [Piece(0, 5), Piece(5, 10)])
        assert again == clean

    def test_two_runs_do_not_touch_each_other(
        self, clean: Any, destination: Any, rich_run: RunFolder
    ) -> None:
        """What one run holds is the same after another one was delivered to the same place."""
        other = a_run_like(rich_run, "other")
        assert self.deliver(destination, other, records_of(rich_run)[:5], [Piece(0, 10)]) != clean
        sink, run = self.make(destination), a_run_like(rich_run, "clean")
        sink.open(run, {})
        assert self.seen(destination, sink, run) == clean

    def test_an_empty_delivery_is_taken(self, destination: Any, rich_run: RunFolder) -> None:
        """A file of damage alone brings no record, and its cursor has to move."""
        sink, run = self.make(destination), a_run_like(rich_run, "empty")
        sink.open(run, {})
        sink.deliver(records_of(rich_run)[:1])
        before = self.seen(destination, sink, run)
        sink.deliver([])
        assert self.seen(destination, sink, run) == before

    def test_its_cursor_has_one_name(self, destination: Any) -> None:
        """``<name>-<8 hex>``, the same for every sink with this destination."""
        one, other = (destination_id(self.make(destination)) for _ in range(2))
        name, _, digest = one.rpartition("-")
        assert (one, name, len(digest)) == (other, self.make(destination).name, 8)


@pytest.fixture(scope="class")
def destination(request: pytest.FixtureRequest) -> Any:
    """Return the place of the class's sinks."""
    return request.cls.place(request)


@pytest.fixture(scope="class")
def clean(request: pytest.FixtureRequest, destination: Any, rich_run: RunFolder) -> Any:
    """Return what one delivery of everything at once leaves."""
    run = a_run_like(rich_run, "clean")
    return request.cls().deliver(destination, run, records_of(rich_run), [Piece(0, 10)])


# ---------------------------------------------------------------------- the records


def records_of(folder: RunFolder) -> list[Envelope]:
    """Return all records, ``main`` first."""
    return list(read_run(folder.path))


def a_run_like(folder: RunFolder, name: str) -> Run:
    """Return a run with the same records and files, and an experiment id of its own."""
    path = folder.path.parent / f"{folder.run_id}-{name}"
    if not path.exists():
        shutil.copytree(folder.path, path)
    return Run(path.name, path)


@pytest.fixture(scope="session")
def rich_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with every type of event, two attempts, three writers, odd names, files and large values."""
    place = tmp_path_factory.mktemp("rich")
    (place / "model.bin").write_bytes(b"weights, first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in [name for name in os.environ if name.startswith(("LEZEA_", "RANK"))]:
            patch.delenv(name)
        first = tracker(place, "completed run", tags={"team": "a", "odd#name": "x", "long": "t" * 10_000})
        first_attempt(first, place)
        patch.setenv("RANK", "1")
        second_writer(tracker(place, "completed run", experiment_id=first.experiment_id))
        patch.delenv("RANK")
        folder = RunFolder(first.run_dir)
        other_programs(folder)
        a_courier(folder)
        second_attempt(tracker(place, "completed run", resume=first.experiment_id, purpose="another try"))
    assert {record.type for record in records_of(folder)} >= set(CLASS_OF_TYPE)
    return folder


# What a driver samples, of a machine with a GPU.
SAMPLE: Mapping[str, Any] = {
    "component_id": "process", "component_type": "process", "cpu_percent": 98.5, "memory_mb": 1024.0,
    "sample": {
        "writer": "main", "pid": 4711, "period_s": 5.0, "process": {"cpu_s": 12.5, "memory_bytes": 2**30},
        "gpus": [{"index": 0, "name": "NVIDIA H200", "util_percent": 37, "memory_used_bytes": 2**33, "power_w": 312.5}],
        "host": {"cpu_percent": 50.5, "memory_used_bytes": 2**34},
    },
}  # fmt: skip


def tracker(place: Path, name: str, **arguments: Any) -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    settings = {
        "mode": "offline", "capture_max_mb": 1, "sample_period_s": 0, "prometheus_port": "off",
        "rates": {"core_hour_eur": 0.04, "gpu_hour_eur": {"NVIDIA H200": 3.2}},
    }  # fmt: skip
    return ExperimentTracker(name, runs_dir=place / "runs", settings=settings, **arguments)


def first_attempt(tracker: ExperimentTracker, place: Path) -> None:
    """Log through every call of the facade."""
    tracker.log_params({"lr": 0.1, "net": {"width": 64}, "long": "p" * 10_000, "odd name/with#": [1, None]})
    tracker.log_lezea_config(64, 4, "SAC", hyperparameters={"gamma": 0.99}, seeds={"global": 1})
    tracker.log_constraints(60, {"tasker": 5})
    tracker.log_environment_info({"cluster": {"nodes": 4}})
    tracker.log_git_commit(place)
    for step in range(1, 6):
        with tracker.builder_scope("42"), tracker.layer_scope("a/b"):
            tracker.log_training_step(step, {"loss": 1.0 / step, "val/AR@100": step}, "val", sample_ids=["a"])
        tracker.log_metrics({"a/b": step, "a_b": -step, "n" * 300: 1, "": 0.5, "a//b": 1}, step=step)
    tracker.log_metrics(
        {"wild": float("nan"), "high": float("inf"), "low": float("-inf"), "text": "bad"}, step=1
    )
    tracker.log_metrics({"wild": float("inf"), "high": 1.0}, step=2)
    tracker.log_params({"lr": 0.2, "added": "later"})
    tracker.log_params({"lr": 0.1})
    tracker.log_modification_tree(3, [{"type": "widen", "score": 0.5}], {"mutations": 1})
    tracker.log_modification_tree_stats({"accept_rate": 0.3, "by": {"kind": 2}})
    tracker.log_modification_stats({"crossover": 12})
    tracker.log_data_splits(["a", "b"], ["c"], ["d"])
    tracker.log_data_usage(["a"], epoch=1)
    tracker.log_data_score("a", 1.2, 0.9)
    tracker.log_delta_loss(5, 0.44, 0.53)
    tracker.log_component_resources("tasker#0", "tasker", 12.5, 512.0, 4.0, 1024)
    tracker.set_budget(12.5, "builder:42")
    with tracker.builder_scope("42"), tracker.measure("tasker#0", "tasker"), tracker.measure("odd.$na/me"):
        sum(range(1_000))
    tracker.log_checkpoint("model.bin", step=1, role="best", metadata={"acc": 0.5})
    Path("model.bin").write_bytes(b"weights, second")
    tracker.log_checkpoint("model.bin", step=2)
    tracker.log_artifact("model.bin", "models/v1")
    tracker.log_text("Überschrift\n", "notes/plan é.md")
    tracker.log_dict({"a": [1, 2]}, "results")
    Path("large.bin").write_bytes(b"L" * 3_000_000)
    tracker.log_artifact("large.bin")
    tracker.log_dataset_version("digits", "v1", "model.bin", {"license": "CC"})
    tracker.log_dataset_version("digits", "v2")
    tracker.log_results(
        {"avg": 0.7, "large": np.zeros(20_000)}, {"t0": 0.8}, {"b0": 0.6}, {"action": [0, 1]}, step=10
    )
    tracker.log_reward("t0", 0.9)
    tracker.log_reward_flow("b0", "t0", "builder", "tasker", 0.5)
    tracker.log_population_snapshot(4, 2, 1, {"t0": 0.5, "t1": 0.75}, 0.3)
    tracker.register_network("n1", "tasker", ["n0"], 1)
    tracker.log_resource_cost(3.2, 11.7, 5_000_000)
    tracker.log_business_metrics(8.73)
    tracker.log_comment("Slow at first.")
    tracker.log_conclusion("It works.")
    tracker.end()


def second_writer(tracker: ExperimentTracker) -> None:
    """Log as the rank 1 of the same run: the same names, steps and paths as ``main``."""
    with tracker.builder_scope("42"):
        tracker.log_training_step(1, {"loss": 0.25}, "val")
    tracker.log_params({"lr": 0.1, "rank1": True})
    tracker.log_text("of rank 1", "notes/plan é.md")
    tracker.log_modification_tree(3, [{"type": "prune"}])
    tracker.log_comment("Rank 1 says hello.")
    tracker.end("failed", "rank 1 died")


def a_courier(folder: RunFolder) -> None:
    """Speak for the run as the process that drove its first attempt; the second tells totals and prices anew."""
    writer = JournalWriter(folder, COURIER_WRITER, attempt=1, durability="process")
    said: list[tuple[str, Mapping[str, Any]]] = [
        ("rates", {"rates": {"core_hour_eur": 9.5}}),
        ("resource", SAMPLE),
        ("budget_reached", {"branch": "run", "budget_eur": 12.5, "spent_eur": 12.6, "share": 1.0}),
        ("resource_totals", {
            "resources": {"total": {"core_hours": 0.25}, "unattributed": {"core_hours": 0.25}},
            "costs": {"eur": 2.375},
        }),
    ]  # fmt: skip
    for kind, fields in said:
        writer.append(kind, fields)
    writer.close()


def second_attempt(tracker: ExperimentTracker) -> None:
    """Resume, change a param again, end by an exception, and remark something after the end."""
    with contextlib.suppress(ValueError), tracker:
        tracker.log_params({"lr": 0.3})
        tracker.log_metrics({"a/b": 100}, step=5)
        tracker.log_comment("A second try.")
        raise ValueError("it diverged")
    tracker.log_comment("An afterthought.")


def other_programs(folder: RunFolder) -> None:
    """Append what the facade does not write: forms of the protocol, rare types, one of next year."""
    writer = JournalWriter(folder, "main", attempt=1, durability="process")
    foreign: list[tuple[str, Mapping[str, Any]]] = [
        ("metric", {"key": "foreign", "value": 0.5, "step": 3, "ctx": {"phase": "test"}}),
        ("param", {"key": "optimizer", "value": "adam", "nested_key": ["name"]}),
        ("status", {"status": "training", "msg": "…"}),
        ("log", {"level": "info", "msg": "hello"}),
        ("gap", {"count": 1, "first_seq": 3, "last_seq": 3, "reason": "full"}),
        ("fold", {"level": "tasker", "metric": "loss", "step": 6, "count": 3, "mean": 2, "min": 1, "max": 3}),
        ("budget_reached", {"branch": "run", "budget_eur": 12.5, "spent_eur": 10.1, "share": 0.8}),
        ("resource", SAMPLE),
        ("telepathy", {"thought": "?"}),
    ]  # fmt: skip
    for kind, fields in foreign:
        writer.append(kind, fields)
    writer.close()
