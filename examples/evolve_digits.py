"""A small neuro-evolution on handwritten digits, tracked from the first call to the last.

It shows what the tracker is for, on a run that takes about a minute and computes everything it logs:

* *taskers* are NumPy networks trained on scikit-learn's digits; the first ones are far too small for the task;
* *builders* propose modifications of them: wider, deeper, pruned, other activations or learning rates, crossovers;
* every proposal is trained exactly as long as the parent it changes. The difference of their validation accuracies
  is the builder's reward, so a builder earns what its modification did, not what more training did;
* a proposal that beats the tasker in its slot takes the slot. The best network so far is the champion; the test
  split only measures it and decides nothing.

Steps: the curves of a tasker count epochs since the start, everything about the population counts generations.
Taskers are logged by the slot they live in ("t0"), because curves need names that stay; the networks that pass
through a slot have unique ids. What is tried in generation 3 for slot t0 is the modification "mod-g3-t0", and the
network it makes is "net-g3-t0". While that is trained, it has curves of its own ("t0-trial").

    python examples/evolve_digits.py --generations 40 --taskers 8 --builders 4 --seed 7
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from digits_evolution import (
    MAX_DEPTH,
    MAX_WIDTH,
    Champion,
    Evolution,
    Outcome,
    Proposal,
    Tasker,
    conclusion_of,
    gain_in_points,
    modification_name,
)
from digits_networks import (
    BATCH_SIZE,
    CLASSES,
    WEIGHT_DECAY,
    Array,
    Network,
    Samples,
    Score,
    digits_task,
    evaluated,
    predictions,
    sample_losses,
    training,
)
from digits_report import print_result, print_ways_to_look
from lezea_mlops.tracker import ExperimentTracker, NetworkType

RUNTIME_LIMIT_S = 600.0
CLOSE_TIMEOUT_S = 60.0  # so that what is printed at the end can be looked at at once
SCORED_SAMPLES = 5  # how many samples get a relevance score per generation
SHOWN_ACTIONS = 10
RATES = Path(__file__).resolve().parent.parent / "configs" / "rates.yaml"


@dataclass(frozen=True)
class Settings:
    """How large the run is."""

    generations: int
    taskers: int
    builders: int
    seed: int
    first_epochs: int = 2  # few, so that the first generation has much to gain
    epochs: int = 3  # per generation, for a tasker as for each proposal
    drawn_share: float = 0.8  # of the training samples, drawn anew for each generation


class TrackedEvolution:
    """Runs the evolution and tells the tracker what happens."""

    def __init__(
        self, tracker: ExperimentTracker, settings: Settings, folder: Path, loading_cpu_s: float
    ) -> None:
        self.tracker = tracker
        self.settings = settings
        self.folder = folder  # for files until the tracker has taken its copy
        self.rng = np.random.default_rng(settings.seed)
        self.task = digits_task(settings.seed)
        self.evolution = Evolution(self.task, settings.taskers, settings.builders, self.rng)
        self.epochs_done = 0
        self.loading_cpu_s = loading_cpu_s

    def run(self) -> None:
        """Train the first taskers, evolve them, conclude."""
        stop_at_s = time.monotonic() + RUNTIME_LIMIT_S
        self._log_setup()
        self._first_generation()
        for generation in range(1, self.settings.generations + 1):
            if time.monotonic() > stop_at_s:
                self.tracker.log_comment(f"Stopped before generation {generation}: runtime limit reached.")
                break
            self._generation(generation)
        self._log_results()

    # -- one generation ------------------------------

    def _first_generation(self) -> None:
        drawn = self._draw(0)
        for tasker in self.evolution.population:
            tasker.val = self._train(tasker.network, tasker.slot, drawn, self.settings.first_epochs)
            self._register(tasker, parents=(), accepted=True)
        self.epochs_done += self.settings.first_epochs
        self._crown(0)
        self._log_population(0)

    def _generation(self, generation: int) -> None:
        drawn = self._draw(generation)
        # Proposals start from the weights that the parents have now, not from those after the training below.
        proposals = [self._propose(generation, slot) for slot in range(self.settings.taskers)]
        scored, losses_before = self.evolution.hardest(drawn, SCORED_SAMPLES)
        accuracies_before = {tasker.slot: tasker.val.accuracy for tasker in self.evolution.population}
        for tasker in self.evolution.population:
            tasker.val = self._train(tasker.network, tasker.slot, drawn, self.settings.epochs)
        children = [self._trained_child(generation, f"t{i}", p, drawn) for i, p in enumerate(proposals)]
        self.epochs_done += self.settings.epochs
        outcomes = self.evolution.select(proposals, children)
        self._log_outcomes(generation, outcomes)
        self._log_rewards(generation, accuracies_before)
        self._log_relevance(scored, losses_before)
        self._crown(generation)
        self._log_population(generation)

    def _draw(self, generation: int) -> Samples:
        drawn = self.evolution.draw(self.settings.drawn_share)
        self.tracker.log_data_usage(drawn.ids, epoch=generation)
        return drawn

    def _propose(self, generation: int, slot: int) -> Proposal:
        builders = list(self.evolution.builders.values())
        builder = builders[(slot + generation) % len(builders)]  # so that builders meet all slots
        # What a modification costs is what is used in its scope, or by a component of its name.
        with (
            self.tracker.scope("modification", modification_name(generation, slot)),
            self.tracker.measure(builder.builder_id, "builder"),
        ):
            return self.evolution.propose(builder, generation, slot)

    def _trained_child(self, generation: int, slot: str, proposal: Proposal, drawn: Samples) -> Tasker:
        child = Tasker(slot, f"net-g{generation}-{slot}", proposal.network, generation, proposal.lineage)
        child.val = self._train(child.network, slot, drawn, self.settings.epochs, proposal)
        return child

    def _train(
        self, network: Network, slot: str, drawn: Samples, epochs: int, proposal: Proposal | None = None
    ) -> Score:
        """Train in place, log each epoch, measure what it takes, return the validation score."""
        component, kind = (proposal.modification_id, "trial") if proposal else (slot, "tasker")
        with self.tracker.tasker_scope(f"{slot}-trial" if proposal else slot):
            with self.tracker.measure(component, kind):
                for epoch, score in enumerate(training(network, drawn, epochs, self.rng)):
                    self.tracker.log_training_step(self.epochs_done + epoch, score._asdict(), "train")
                val = evaluated(network, self.task.val)
            self.tracker.log_training_step(
                self.epochs_done + epochs - 1,
                val._asdict(),
                "val",
                modification_path=list(proposal.lineage) if proposal else None,
                modification_statistics={"path_length": len(proposal.lineage)} if proposal else None,
            )
        return val

    def _crown(self, generation: int) -> None:
        before = self.evolution.champions[-1] if self.evolution.champions else None
        champion = self.evolution.crown()
        if before is not None:
            self.tracker.log_delta_loss(generation, champion.val.loss, before.val.loss)
            if champion.tasker is not before.tasker:
                self.tracker.log_comment(
                    f"Generation {generation}: {champion.tasker.network_id} takes over from "
                    f"{before.tasker.network_id}, validation accuracy {before.val.accuracy:.3f} -> "
                    f"{champion.val.accuracy:.3f} ({champion.network})."
                )
        self._log_champion(generation, champion)

    # -- what the tracker is told ------------------------------

    def _log_setup(self) -> None:
        settings, task = self.settings, self.task
        # Loading the libraries and the data came before the tracker began; it is to be paid for all the same.
        self.tracker.log_resource_cost(cpu_hours=self.loading_cpu_s / 3600.0)
        fixed = {"batch_size": BATCH_SIZE, "weight_decay": WEIGHT_DECAY}
        fixed.update({"max_depth": MAX_DEPTH, "max_width": MAX_WIDTH})
        self.tracker.log_lezea_config(
            settings.taskers,
            settings.builders,
            "neuro-evolution with inherited weights",
            start_network_id=self.evolution.population[0].network_id,
            hyperparameters=fixed,
            seeds={"global": settings.seed},
            initialization_scheme="he_normal",
        )
        self.tracker.log_params(asdict(settings))
        limits = {"generations": settings.generations, "epochs_per_generation": settings.epochs}
        self.tracker.log_constraints(RUNTIME_LIMIT_S, step_episode_limits=limits)
        sizes = {"train": len(task.train.ids), "val": len(task.val.ids), "test": len(task.test.ids)}
        self.tracker.log_dataset_version("sklearn-digits", task.version, version_metadata=sizes)
        self.tracker.log_data_splits(task.train.ids, task.val.ids, task.test.ids)
        for builder in self.evolution.builders.values():
            facts = {"style": builder.style, "preferences": dict(builder.preferences)}
            self.tracker.register_network(builder.builder_id, NetworkType.BUILDER, (), 0, metadata=facts)

    def _register(self, tasker: Tasker, parents: tuple[str, ...], accepted: bool) -> None:
        self.tracker.register_network(
            tasker.network_id,
            NetworkType.TASKER,
            parents,
            tasker.generation,
            architecture=tasker.network.architecture(),
            metadata={"slot": tasker.slot, "accepted": accepted, "val_accuracy": tasker.val.accuracy},
        )

    def _log_outcomes(self, generation: int, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            proposal, child = outcome.proposal, outcome.child
            parents = tuple(parent.network_id for parent in proposal.parents)
            self._register(child, parents, outcome.accepted)
            self.tracker.log_reward_flow(
                child.slot,
                proposal.builder_id,
                source_type="tasker",
                target_type="builder",
                reward=outcome.reward,
                task_id=proposal.modification_id,
                step=generation,
            )
        self.tracker.log_modification_tree(
            generation,
            [outcome.as_modification() for outcome in outcomes],
            statistics={"tried": len(outcomes), "accepted": sum(outcome.accepted for outcome in outcomes)},
        )
        tallies = self.evolution.tallies
        longest = max(len(tasker.lineage) for tasker in self.evolution.population)
        stats = {"accept_rate": self.evolution.accepted / self.evolution.tried, "longest_path": longest}
        self.tracker.log_modification_tree_stats(stats, step=generation)
        counts = {f"{kind}_tried": tally.tried for kind, tally in tallies.items()}
        counts.update({f"{kind}_accepted": tally.accepted for kind, tally in tallies.items()})
        self.tracker.log_modification_stats(counts, step=generation)

    def _log_rewards(self, generation: int, accuracies_before: dict[str, float]) -> None:
        gains = {t.slot: t.val.accuracy - accuracies_before[t.slot] for t in self.evolution.population}
        for slot, gain in gains.items():
            self.tracker.log_reward(slot, gain, step=generation)
        earned = {builder.builder_id: builder.mean_reward for builder in self.evolution.builders.values()}
        self.tracker.log_results(tasker_rewards=gains, builder_rewards=earned, step=generation)

    def _log_relevance(self, scored: Samples, losses_before: Array) -> None:
        """Log what the leaders lost on the hardest samples before and after this generation's learning."""
        losses_after = sample_losses(self.evolution.leader.network, scored)
        for sample_id, before, after in zip(scored.ids, losses_before, losses_after, strict=True):
            self.tracker.log_data_score(sample_id, float(before), float(after))

    def _log_champion(self, generation: int, champion: Champion) -> None:
        network = champion.network
        measured = {
            "champion/test_accuracy": champion.test.accuracy,
            "champion/val_accuracy": champion.val.accuracy,
            "champion/parameters": network.parameter_count,
        }
        self.tracker.log_metrics(measured, step=generation)
        with self.tracker.network_scope("champion"):
            for layer, weight in enumerate(network.weights):
                with self.tracker.layer_scope(str(layer)):
                    norm = float(np.linalg.norm(weight))
                    self.tracker.log_metrics({"weight_norm": norm, "units": weight.shape[1]}, step=generation)
        path = self.folder / f"champion-g{generation:03d}.npz"
        arrays: dict[str, Any] = {f"weight{layer}": weight for layer, weight in enumerate(network.weights)}
        arrays.update({f"bias{layer}": bias for layer, bias in enumerate(network.biases)})
        np.savez(path, **arrays)
        facts = {"network_id": champion.tasker.network_id, **network.architecture()}
        self.tracker.log_checkpoint(path, generation, role="champion", metadata=facts)

    def _log_population(self, generation: int) -> None:
        population, champion = self.evolution.population, self.evolution.champions[-1]
        accuracies = {tasker.network_id: tasker.val.accuracy for tasker in population}
        mean = float(np.mean(list(accuracies.values())))
        self.tracker.log_population_snapshot(
            len(population),
            len(self.evolution.builders),
            generation,
            fitness_scores=accuracies,
            diversity_metric=self.evolution.diversity,
            step=generation,
        )
        with self.tracker.algorithm_scope("evolution"):
            self.tracker.log_metrics({"mean_val_accuracy": mean}, step=generation)
        print(
            f"generation {generation:3d}: validation accuracy {mean:.3f} on average, champion "
            f"{champion.val.accuracy:.3f} (test {champion.test.accuracy:.3f}), {champion.network}",
            flush=True,
        )

    def _log_results(self) -> None:
        first, last = self.evolution.champions[0], self.evolution.champions[-1]
        shown = self.task.test.at(range(SHOWN_ACTIONS))
        answers = predictions(last.network, shown.x).tolist()
        self.tracker.log_results(
            {
                "test_accuracy_first": first.test.accuracy,
                "test_accuracy_last": last.test.accuracy,
                "modifications_tried": self.evolution.tried,
                "modifications_accepted": self.evolution.accepted,
            },
            action_outputs={"sample_ids": shown.ids, "answers": answers, "labels": shown.y.tolist()},
        )
        confusion = np.zeros((CLASSES, CLASSES), dtype=int)
        np.add.at(confusion, (self.task.test.y, predictions(last.network, self.task.test.x)), 1)
        table = {"rows": "label", "columns": "answer", "counts": confusion.tolist()}
        self.tracker.log_dict(table, "confusion.json")
        summary = self.tracker.get_experiment_summary()
        cpu_seconds = 3600.0 * summary["resources"]["core_hours"]
        self.tracker.log_business_metrics(
            resource_cost_eur=summary["costs"]["eur"],
            cpu_seconds_per_point=cpu_seconds / gain_in_points(self.evolution),
        )
        self.tracker.log_conclusion(conclusion_of(self.evolution))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(description="A tracked neuro-evolution on handwritten digits.")
    parser.add_argument("--generations", type=_positive, help="default 40; 4 with --quick")
    parser.add_argument(
        "--taskers", type=_positive, help="networks in the population; default 8; 4 with --quick"
    )
    parser.add_argument("--builders", type=_positive, default=4, help="default 4")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same evolution (default 7)")
    parser.add_argument("--quick", action="store_true", help="a run of a few seconds")
    given = parser.parse_args(arguments)
    generations, taskers, epochs = (4, 4, 16) if given.quick else (40, 8, 3)
    return Settings(
        given.generations or generations, given.taskers or taskers, given.builders, given.seed, epochs=epochs
    )


def rates() -> dict[str, Any]:
    """Return the setting of the example's prices, where the environment names none."""
    return {} if os.environ.get("LEZEA_RATES") else {"rates": RATES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evolution inside a tracked experiment and print what came out."""
    settings = _settings(arguments)
    purpose = "Can builders that learn from rewards grow good digit classifiers from tiny networks?"
    tags = {"dataset": "sklearn-digits", "seed": str(settings.seed)}
    # Arrays this small gain nothing from more BLAS threads, and CPU time would count their waiting as work.
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        with ExperimentTracker(
            "evolve-digits",
            purpose=purpose,
            tags=tags,
            async_mode=True,
            settings={"close_timeout_s": CLOSE_TIMEOUT_S, **rates()},
        ) as tracker:
            run = TrackedEvolution(tracker, settings, Path(folder), time.process_time())
            run.run()
            recommendations = tracker.get_recommendations()
        print_result(run.evolution, tracker.get_experiment_summary(), recommendations)
        print_ways_to_look(tracker, run.evolution.champions[-1].tasker.network_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
