"""The evolution of the digits example: taskers, the builders that modify them, selection.

A *tasker* is a network that is trained on the task. A *builder* never sees the task: it proposes a modification
of a tasker's network, is told how much the modification helped, and shifts its preferences towards what helped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from digits_networks import (
    ACTIVATIONS,
    CLASSES,
    Array,
    Network,
    Samples,
    Score,
    Task,
    deepened,
    evaluated,
    flattened,
    fresh_network,
    joined,
    pruned,
    sample_losses,
    widened,
)

MAX_DEPTH = 3
MIN_WIDTH = 3
MAX_WIDTH = 96
LEARNING_RATES = (1e-4, 1e-2)  # builders stay within these bounds
FIRST_WIDTHS = (3, 7)  # the first taskers are weak on purpose: one hidden layer of 3 to 6 units
FIRST_LEARNING_RATE = 2e-4

UNTRAINED = Score(float("inf"), 0.0)

LEANING = 1.5  # head start of the kinds that a builder favours at first
PREFERENCE_STEP = 0.4  # how far one reward moves a preference, at most
NOTABLE_REWARD = 0.02  # a change of accuracy of this size counts fully, a smaller one in proportion

# What the first builders favour; with more builders the list starts again.
LEANINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("grower", ("add_layer", "widen_layer")),
    ("tuner", ("change_activation", "change_learning_rate")),
    ("pruner", ("prune_layer", "prune_units")),
    ("breeder", ("crossover",)),
)


@dataclass
class Tasker:
    """A network in training, and where it comes from."""

    slot: str  # its place in the population, the same over generations: "t0"
    network_id: str  # unique in the run: "net-g3-t0"
    network: Network
    generation: int
    lineage: tuple[str, ...] = ()  # ids of the modifications that led to it, oldest first
    val: Score = UNTRAINED


@dataclass(frozen=True)
class Proposal:
    """A modification a builder proposes, and the network it gives."""

    modification_id: str
    kind: str
    builder_id: str
    parents: tuple[Tasker, ...]
    network: Network
    place: str  # what was changed: "layer 0"
    params: dict[str, Any]

    @property
    def parent_ids(self) -> list[str]:
        """The modifications that made the parents; a first tasker was made by none."""
        return [parent.lineage[-1] for parent in self.parents if parent.lineage]

    @property
    def lineage(self) -> tuple[str, ...]:
        """The path from a change of a first tasker to this modification, along the first parent that has one."""
        lines = (parent.lineage for parent in self.parents if parent.lineage)
        return (*next(lines, ()), self.modification_id)


# --------------------------------------------------------------------------------------------------
# Kinds of modification. Each entry: may it be done to this network, and how.

Changed = tuple[Network, str, dict[str, Any]]  # the new network, what was changed, how


def _layer_where(condition: list[bool], rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(condition)))


def _add_layer(network: Network, rng: np.random.Generator) -> Changed:
    layer = int(rng.integers(network.depth))
    return deepened(network, layer), f"layer {layer}", {"width": network.widths[layer]}


def _widen_layer(network: Network, rng: np.random.Generator) -> Changed:
    layer = _layer_where([width < MAX_WIDTH for width in network.widths], rng)
    width = network.widths[layer]
    extra = min(MAX_WIDTH - width, max(2, int(width * rng.uniform(0.25, 1.0))))
    return widened(network, layer, extra, rng), f"layer {layer}", {"units_added": extra}


def _change_activation(network: Network, rng: np.random.Generator) -> Changed:
    layer = int(rng.integers(network.depth))
    before = network.activations[layer]
    after = str(rng.choice([name for name in ACTIVATIONS if name != before]))
    names = (*network.activations[:layer], after, *network.activations[layer + 1 :])
    return network.copy(activations=names), f"layer {layer}", {"from": before, "to": after}


def _change_learning_rate(network: Network, rng: np.random.Generator) -> Changed:
    factor = float(rng.choice([0.33, 0.5, 2.0, 3.0]))
    after = float(np.clip(network.learning_rate * factor, *LEARNING_RATES))
    shown = {"from": float(f"{network.learning_rate:.3g}"), "to": float(f"{after:.3g}")}
    return network.copy(learning_rate=after), "optimizer", shown


def _prune_layer(network: Network, rng: np.random.Generator) -> Changed:
    layer = int(rng.integers(network.depth))
    return flattened(network, layer), f"layer {layer}", {"units_removed": network.widths[layer]}


def _prune_units(network: Network, rng: np.random.Generator) -> Changed:
    layer = _layer_where([width > MIN_WIDTH for width in network.widths], rng)
    width = network.widths[layer]
    count = min(width - MIN_WIDTH, max(1, int(width * rng.uniform(0.1, 0.3))))
    return pruned(network, layer, count), f"layer {layer}", {"units_removed": count}


def _always(network: Network) -> bool:
    return True


Possible = Callable[[Network], bool]
Change = Callable[[Network, np.random.Generator], Changed]
KINDS_OF_ONE: dict[str, tuple[Possible, Change]] = {
    "add_layer": (lambda network: network.depth < MAX_DEPTH, _add_layer),
    "widen_layer": (lambda network: min(network.widths) < MAX_WIDTH, _widen_layer),
    "change_activation": (_always, _change_activation),
    "change_learning_rate": (_always, _change_learning_rate),
    "prune_layer": (lambda network: network.depth > 1, _prune_layer),
    "prune_units": (lambda network: max(network.widths) > MIN_WIDTH, _prune_units),
}
CROSSOVER = "crossover"  # the only kind with two parents
KINDS = (*KINDS_OF_ONE, CROSSOVER)


# --------------------------------------------------------------------------------------------------


@dataclass
class Builder:
    """Proposes modifications; learns from rewards which kinds to prefer."""

    builder_id: str
    style: str
    preferences: dict[str, float]
    rewards: list[float] = field(default_factory=list)

    def propose(
        self, modification_id: str, parent: Tasker, mate: Tasker | None, rng: np.random.Generator
    ) -> Proposal:
        """Choose a kind that this parent allows, the preferred ones more often, and apply it."""
        possible = [kind for kind, (allowed, _) in KINDS_OF_ONE.items() if allowed(parent.network)]
        if mate is not None:
            possible.append(CROSSOVER)
        kind = self._choice(possible, rng)
        parents: tuple[Tasker, ...] = (parent,)
        if kind == CROSSOVER and mate is not None:
            parents = (parent, mate)
            network = joined(parent.network, mate.network, MAX_WIDTH)
            place, params = "network", {"widths": network.widths}
        else:
            network, place, params = KINDS_OF_ONE[kind][1](parent.network, rng)
        return Proposal(modification_id, kind, self.builder_id, parents, network, place, params)

    def _choice(self, kinds: list[str], rng: np.random.Generator) -> str:
        strengths = np.exp([self.preferences[kind] for kind in kinds])
        return str(rng.choice(kinds, p=strengths / strengths.sum()))

    def learn(self, kind: str, reward: float) -> None:
        """Take the reward for a proposal of this kind: the accuracy it gained or lost."""
        self.rewards.append(reward)
        self.preferences[kind] += PREFERENCE_STEP * float(np.clip(reward / NOTABLE_REWARD, -1.0, 1.0))

    @property
    def mean_reward(self) -> float:
        """What a proposal of this builder brought on average; 0 before the first."""
        return float(np.mean(self.rewards)) if self.rewards else 0.0


def first_builders(count: int) -> list[Builder]:
    """Builders with different leanings."""
    builders = []
    for index in range(count):
        style, favoured = LEANINGS[index % len(LEANINGS)]
        preferences = {kind: LEANING if kind in favoured else 0.0 for kind in KINDS}
        builders.append(Builder(f"b{index}", style, preferences))
    return builders


def first_taskers(count: int, inputs: int, outputs: int, rng: np.random.Generator) -> list[Tasker]:
    """Small, untrained taskers with random activations."""
    taskers = []
    for index in range(count):
        width = int(rng.integers(*FIRST_WIDTHS))
        activation = str(rng.choice(list(ACTIVATIONS)))
        network = fresh_network(inputs, [width], outputs, activation, FIRST_LEARNING_RATE, rng)
        taskers.append(Tasker(f"t{index}", f"net-g0-t{index}", network, generation=0))
    return taskers


@dataclass(frozen=True)
class Outcome:
    """What became of a proposal."""

    proposal: Proposal
    child: Tasker
    accepted: bool
    reward: float  # the accuracy that the modification itself gained or lost
    reason: str  # why it was accepted, or was not

    def as_modification(self) -> dict[str, Any]:
        """The entry of the modification tree."""
        proposal, child = self.proposal, self.child
        return {
            "id": proposal.modification_id,
            "parent_ids": proposal.parent_ids,
            "type": proposal.kind,
            "accepted": self.accepted,
            "score": child.val.accuracy,
            "target": child.network_id,
            "params": {"place": proposal.place, **proposal.params},
            "component_id": proposal.builder_id,
            "reason": self.reason,
        }


@dataclass
class Tally:
    """What became of all proposals of one kind."""

    tried: int = 0
    accepted: int = 0
    reward_sum: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one proposal."""
        self.tried += 1
        self.accepted += outcome.accepted
        self.reward_sum += outcome.reward

    @property
    def mean_reward(self) -> float:
        """Accuracy gained by an average proposal; 0 before the first."""
        return self.reward_sum / self.tried if self.tried else 0.0


@dataclass(frozen=True)
class Champion:
    """The network with the best validation so far, as it was then."""

    tasker: Tasker
    network: Network
    val: Score
    test: Score


class Evolution:
    """A population, its builders and the rules of selection. Training is up to the caller."""

    def __init__(self, task: Task, taskers: int, builders: int, rng: np.random.Generator) -> None:
        self.task = task
        self.rng = rng
        self.builders = {builder.builder_id: builder for builder in first_builders(builders)}
        self.population = first_taskers(taskers, task.train.x.shape[1], CLASSES, rng)
        self.tallies = {kind: Tally() for kind in KINDS}
        self.champions: list[Champion] = []  # one per generation

    @property
    def leader(self) -> Tasker:
        """The best tasker of the population."""
        return max(self.population, key=lambda tasker: tasker.val.rank)

    @property
    def tried(self) -> int:
        """Number of proposals so far."""
        return sum(tally.tried for tally in self.tallies.values())

    @property
    def accepted(self) -> int:
        """Number of proposals that took a slot."""
        return sum(tally.accepted for tally in self.tallies.values())

    @property
    def diversity(self) -> float:
        """Share of different architectures: 1 when no two taskers look alike."""
        networks = [tasker.network for tasker in self.population]
        return len({(*n.widths, *n.activations, n.learning_rate) for n in networks}) / len(networks)

    def draw(self, share: float) -> Samples:
        """Training samples for one generation; what the champion finds hard comes more often."""
        count = self.task.train.y.size
        chances = np.full(count, 1.0 / count)
        if self.champions:
            losses = sample_losses(self.champions[-1].network, self.task.train)
            chances = 0.5 * chances + 0.5 * losses / losses.sum()
        rows = self.rng.choice(count, int(count * share), replace=False, p=chances)
        return self.task.train.at(np.sort(rows))

    def hardest(self, samples: Samples, count: int) -> tuple[Samples, Array]:
        """The samples on which the leader loses most, and these losses."""
        losses = sample_losses(self.leader.network, samples)
        rows = np.argsort(losses, kind="stable")[-count:]
        return samples.at(rows), losses[rows]

    def propose(self, builder: Builder, generation: int, slot: int) -> Proposal:
        """A builder's proposal for a slot.

        The parent is the better of the slot's own tasker and a random one, so good networks spread, but
        slowly enough for the population to stay diverse.
        """
        rival = self.population[int(self.rng.integers(len(self.population)))]
        parent = max(self.population[slot], rival, key=lambda tasker: tasker.val.rank)
        others = [tasker for tasker in self.population if tasker is not parent]
        mate = others[int(self.rng.integers(len(others)))] if others else None
        return builder.propose(modification_name(generation, slot), parent, mate, self.rng)

    def select(self, proposals: list[Proposal], children: list[Tasker]) -> list[Outcome]:
        """Give each slot to the better network, reward the builders; all were trained equally long."""
        outcomes = []
        for tasker, proposal, child in zip(self.population, proposals, children, strict=True):
            reward = child.val.accuracy - proposal.parents[0].val.accuracy
            accepted = child.val.rank > tasker.val.rank
            outcomes.append(Outcome(proposal, child, accepted, reward, reason_of(child, tasker)))
        for slot, outcome in enumerate(outcomes):
            if outcome.accepted:
                self.population[slot] = outcome.child
            self.builders[outcome.proposal.builder_id].learn(outcome.proposal.kind, outcome.reward)
            self.tallies[outcome.proposal.kind].add(outcome)
        return outcomes

    def crown(self) -> Champion:
        """Keep the best network seen so far and measure it on the test split, which decides nothing."""
        leader = self.leader
        if self.champions and self.champions[-1].val.rank >= leader.val.rank:
            champion = self.champions[-1]
        else:
            network = leader.network.copy()  # the tasker goes on training
            champion = Champion(leader, network, leader.val, evaluated(network, self.task.test))
        self.champions.append(champion)
        return champion


def reason_of(child: Tasker, rival: Tasker) -> str:
    """What decided between a child and the tasker in its slot."""
    if child.val.accuracy != rival.val.accuracy:
        figures = f"validation accuracy {child.val.accuracy:.4f} against {rival.val.accuracy:.4f}"
    else:
        figures = f"validation loss {child.val.loss:.4f} against {rival.val.loss:.4f}"
    return f"{figures} of {rival.network_id}, whose slot it would take"


def modification_name(generation: int, slot: int) -> str:
    """The id of what is tried in a generation for a slot."""
    return f"mod-g{generation}-t{slot}"


def gain_in_points(evolution: Evolution) -> float:
    """By how many percentage points the champions' test accuracy grew, and not less than a tenth of one."""
    first, last = evolution.champions[0], evolution.champions[-1]
    return max(0.1, 100.0 * (last.test.accuracy - first.test.accuracy))


def conclusion_of(evolution: Evolution) -> str:
    """What the numbers of the run say, in sentences."""
    first, last = evolution.champions[0], evolution.champions[-1]
    text = (
        f"Test accuracy of the champion: {first.test.accuracy:.3f} in generation 0, "
        f"{last.test.accuracy:.3f} after {len(evolution.champions) - 1} generations, "
        f"with {first.network.parameter_count} and {last.network.parameter_count} parameters. "
    )
    if not evolution.tried:
        return text + "No modification was tried."
    text += f"{evolution.accepted} of {evolution.tried} modifications were accepted. "
    used = {kind: tally for kind, tally in evolution.tallies.items() if tally.tried}
    ranked = sorted(used, key=lambda kind: used[kind].mean_reward)
    best, worst = (
        f"{kind} ({used[kind].mean_reward:+.4f} on average of {used[kind].tried})"
        for kind in (ranked[-1], ranked[0])
    )
    text += f"Compared with equal training of the unmodified parent, {best} did best and {worst} worst. "
    judged = [builder for builder in evolution.builders.values() if builder.rewards]
    top = max(judged, key=lambda builder: builder.mean_reward)
    return text + f"Best builder: {top.builder_id}, a {top.style} ({top.mean_reward:+.4f} per proposal)."
