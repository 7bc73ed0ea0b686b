"""Advice with its evidence: each rule looks at the figures of a run and says what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Advice = dict[str, Any]
Rule = Callable[[Mapping[str, Any]], Iterator[Advice]]

ENOUGH_VALUES = 5
PLATEAU_SHARE = 0.9
RISE_SHARE = 0.1
FEW_ACCEPTED = 0.05
MANY_ACCEPTED = 0.8
ENOUGH_MODIFICATIONS = 20
DIVERSITY_LEFT = 0.2
ENOUGH_STEPS = 100


def recommend(data: Mapping[str, Any]) -> list[Advice]:
    """Return what the figures of ``get_experiment_data()`` suggest, the most severe first.

    Returns:
        Dictionaries with ``rule``, ``severity`` (warning or info), ``message`` and ``evidence``.
    """
    found = [advice for rule in RULES for advice in rule(data)]
    return sorted(found, key=lambda advice: advice["severity"] != "warning")


def _advice(rule: str, severity: str, message: str, **evidence: Any) -> Advice:
    return {"rule": rule, "severity": severity, "message": message, "evidence": evidence}


def _nonfinite(data: Mapping[str, Any]) -> Iterator[Advice]:
    for name, figures in data["metrics"].items():
        if figures["nonfinite"]:
            yield _advice(
                "nonfinite_metric", "warning",
                f"{name} was not finite {figures['nonfinite']} times of {figures['count']}: "
                "lower the learning rate, clip gradients, or check the data of those steps",
                metric=name, nonfinite=figures["nonfinite"], count=figures["count"],
            )  # fmt: skip


def _is_loss(name: str) -> bool:
    return name.rpartition("/")[2] == "loss"


def _loss_not_improving(data: Mapping[str, Any]) -> Iterator[Advice]:
    for name, figures in data["metrics"].items():
        if not _is_loss(name) or figures.get("first") is None or figures["count"] < ENOUGH_VALUES:
            continue
        if figures["last"] >= figures["first"]:
            yield _advice(
                "loss_not_improving", "warning",
                f"{name} ended at {figures['last']:.6g} and began at {figures['first']:.6g}: it did not improve",
                metric=name, first=figures["first"], last=figures["last"],
            )  # fmt: skip
        elif figures["min_step"] < figures["last_step"] * (1 - PLATEAU_SHARE):
            yield _advice(
                "loss_plateau", "info",
                f"{name} was least ({figures['min']:.6g}) at step {figures['min_step']} of "
                f"{figures['last_step']} and has not been lower since: stop earlier, or change the schedule",
                metric=name, min=figures["min"], min_step=figures["min_step"], last_step=figures["last_step"],
            )  # fmt: skip


def _generalisation_gap(data: Mapping[str, Any]) -> Iterator[Advice]:
    metrics = data["metrics"]
    for name, train in metrics.items():
        if not name.endswith("train/loss"):
            continue
        other = name[: -len("train/loss")] + "val/loss"
        val = metrics.get(other)
        if val is None or train.get("last") is None or val.get("last") is None:
            continue
        # Measured against its fall or its size, for a loss may be negative or close to zero.
        scale = max(val["first"] - val["min"], abs(val["min"]))
        rise = val["last"] - val["min"]
        if (
            rise > RISE_SHARE * scale
            and train["last"] < train["first"]
            and val["min_step"] < val["last_step"]
        ):
            yield _advice(
                "overfitting", "warning",
                f"{other} rose from {val['min']:.6g} (step {val['min_step']}) to {val['last']:.6g} "
                f"while {name} fell to {train['last']:.6g}: keep the checkpoint of step {val['min_step']}",
                metric=other, min=val["min"], min_step=val["min_step"], last=val["last"],
            )  # fmt: skip


def _acceptance(data: Mapping[str, Any]) -> Iterator[Advice]:
    for kind, counts in data["modifications"]["by_type"].items():
        proposed, accepted = counts["proposed"], counts["accepted"]
        if proposed < ENOUGH_MODIFICATIONS:
            continue
        rate = accepted / proposed
        if rate < FEW_ACCEPTED:
            yield _advice(
                "modification_rarely_accepted", "info",
                f"{accepted} of {proposed} modifications of type {kind} were accepted ({rate:.0%}): "
                "propose it less often or in smaller steps",
                type=kind, proposed=proposed, accepted=accepted,
            )  # fmt: skip
        elif rate > MANY_ACCEPTED:
            yield _advice(
                "modification_nearly_always_accepted", "info",
                f"{accepted} of {proposed} modifications of type {kind} were accepted ({rate:.0%}): "
                "the test for acceptance may be too weak, or bolder steps may pay",
                type=kind, proposed=proposed, accepted=accepted,
            )  # fmt: skip


def _diversity(data: Mapping[str, Any]) -> Iterator[Advice]:
    population = data["population"]
    first, last = population.get("first_diversity"), population.get("last_diversity")
    if first is not None and last is not None and first > 0 and last < first * DIVERSITY_LEFT:
        yield _advice(
            "diversity_collapsed", "warning",
            f"the population's diversity fell from {first:.6g} to {last:.6g}: "
            "raise the rate of mutation, or bring new individuals in",
            first=first, last=last, generation=population.get("generation"),
        )  # fmt: skip


def _no_checkpoint(data: Mapping[str, Any]) -> Iterator[Advice]:
    if data["events"].get("training_step", 0) >= ENOUGH_STEPS and not data["events"].get("checkpoint"):
        yield _advice(
            "no_checkpoint", "info",
            f"{data['events']['training_step']} training steps and no checkpoint: log_checkpoint(path, step) "
            "keeps a copy of each as it was",
            training_steps=data["events"]["training_step"],
        )  # fmt: skip


def _no_validation(data: Mapping[str, Any]) -> Iterator[Advice]:
    splits = data["data"]["splits"]
    if splits.get("train") and not splits.get("val"):
        yield _advice(
            "no_validation_split", "warning",
            "there are training samples and no validation samples: selection by training results overfits",
            **splits,
        )  # fmt: skip


RULES: tuple[Rule, ...] = (
    _nonfinite, _loss_not_improving, _generalisation_gap, _acceptance, _diversity, _no_checkpoint, _no_validation,
)  # fmt: skip
