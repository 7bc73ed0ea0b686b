"""The networks of a run: who came from whom, when each was born, and in which generations it lived."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from lezea_mlops.events import as_id, as_number, encode_json
from lezea_mlops.evolution.genealogy import Genealogy
from lezea_mlops.evolution.graph import Moment


class Network(NamedTuple):
    """A network as it was registered.

    Attributes:
        id: unique in the experiment.
        network_type: tasker, builder or hybrid; None where it only appeared in a population.
        parent_ids: the networks it came from.
        generation: the generation of its birth: as registered, else the first in which it lived; None if unknown.
        registered: whether it was registered, or only appeared in a population.
        data: all else that was registered of it by name, such as ``architecture`` and ``metadata``.
    """

    id: str
    network_type: str | None
    parent_ids: tuple[str, ...]
    generation: int | None
    registered: bool
    data: Mapping[str, Any]


class _Snapshot(NamedTuple):
    order: tuple[Any, ...]
    generation: int | None
    networks: array[int]
    fitness: array[float]


class _Registered(NamedTuple):
    network_type: str | None
    parent_ids: tuple[str, ...]
    generation: int | None
    rest: bytes | None


_UNREGISTERED = _Registered(None, (), None, None)
_UNDERSTOOD = frozenset({"run_id", "scope", "network_id", "network_type", "parent_ids", "generation"})


class NetworkLineage(Genealogy):
    """All networks of a run by id: those that were registered, and those that only lived in a population.

    A network registered again counts as it was registered last. Where a later attempt logs a generation again, its
    population is the one that counts.
    """

    _NOUN: ClassVar[str] = "network"

    def __init__(self) -> None:
        super().__init__()
        self._registered: dict[int, _Registered] = {}
        self._snapshots: list[_Snapshot] = []
        self._lives: dict[int, dict[int, float | None]] | None = None

    # ------------------------------------------------------------------ building

    def register(self, fields: Mapping[str, Any], moment: Moment) -> None:
        """Take a network as it was registered; one without an id is none, and is passed over."""
        network_id = as_id(fields.get("network_id"))
        if network_id is None:
            return
        graph, logged = self._graph, fields.get("parent_ids")
        several = logged if isinstance(logged, list) else [logged]
        parents = tuple(dict.fromkeys(parent for parent in map(as_id, several) if parent is not None))
        kind, generation = as_id(fields.get("network_type")), _whole(fields.get("generation"))
        rest = {name: value for name, value in fields.items() if name not in _UNDERSTOOD}
        registered = _Registered(kind, parents, generation, encode_json(rest) if rest else None)
        number = graph.moment(moment)
        as_of: int | None = number
        known = graph.find(network_id)
        if known is not None and known in self._registered:
            placed = graph.moment_numbers[known]
            as_of = self._versions.newest(known, self._registered[known], placed, registered, number)
        if as_of is not None:
            self._registered[graph.put(network_id, parents, as_of)] = registered

    def observe_population(self, fields: Mapping[str, Any], moment: Moment) -> None:
        """Take a generation of the population: those with a fitness lived in it."""
        graph = self._graph
        number = graph.moment(moment)
        networks, fitness = array("i"), array("d")
        for individual, score in _individuals(fields.get("fitness_scores")):
            node = graph.find(individual)
            if node is None or (node not in self._registered and moment.order < graph.moment_of(node).order):
                node = graph.put(individual, (), number)
            networks.append(node)
            fitness.append(score)
        self._snapshots.append(_Snapshot(moment.order, _whole(fields.get("generation")), networks, fitness))
        self._lives = None

    # ------------------------------------------------------------------ networks

    def __getitem__(self, network_id: str) -> Network:
        """Return a network."""
        node = self._graph.needed(network_id)
        registered = self._registered.get(node, _UNREGISTERED)
        born = registered.generation
        if born is None:
            born = min(self._lived(node), default=None)
        data = {} if registered.rest is None else json.loads(registered.rest)
        return Network(
            network_id, registered.network_type, registered.parent_ids, born, node in self._registered, data
        )

    # ------------------------------------------------------------------ lives

    def fitness(self, network_id: str) -> dict[int, float | None]:
        """Return a network's fitness by generation, the last of each; None where it lived without a finite one."""
        return dict(self._lived(self._graph.needed(network_id)))

    def generations(self, network_id: str) -> list[int]:
        """Return the generations in which a network lived, ascending."""
        return sorted(self._lived(self._graph.needed(network_id)))

    def survivors(self) -> list[str]:
        """Return the networks of the newest population, in its order."""
        newest = max(self._snapshots, key=lambda snapshot: snapshot.order, default=None)
        return [] if newest is None else self._named(dict.fromkeys(newest.networks))

    def champion(self) -> str | None:
        """Return the fittest network of the newest population with any finite fitness; None if there is none."""
        for snapshot in sorted(self._snapshots, key=lambda snapshot: snapshot.order, reverse=True):
            finite = {
                n: f for n, f in zip(snapshot.networks, snapshot.fitness, strict=True) if math.isfinite(f)
            }
            if finite:
                return self._graph.ids[max(finite, key=finite.__getitem__)]
        return None

    def _lived(self, node: int) -> dict[int, float | None]:
        if self._lives is None:
            self._lives = self._gathered_lives()
        return self._lives.get(node, {})

    def _gathered_lives(self) -> dict[int, dict[int, float | None]]:
        newest: dict[int, Any] = {}
        for snapshot in self._snapshots:
            if (generation := snapshot.generation) is not None:
                attempt = snapshot.order[0]
                newest[generation] = max(newest.get(generation, attempt), attempt)
        lives: dict[int, dict[int, float | None]] = {}
        for snapshot in sorted(self._snapshots, key=lambda each: each.order):
            generation = snapshot.generation
            if generation is None or snapshot.order[0] != newest[generation]:
                continue
            for node, fitness in zip(snapshot.networks, snapshot.fitness, strict=True):
                lives.setdefault(node, {})[generation] = fitness if math.isfinite(fitness) else None
        return lives


def _individuals(fitness_scores: Any) -> Iterator[tuple[str, float]]:
    """Yield each individual with its fitness, NaN where that is no number; an array too large for a line has none."""
    if isinstance(fitness_scores, Mapping):
        if "$blob" in fitness_scores and "size" in fitness_scores:
            return
        pairs: Iterable[tuple[Any, Any]] = fitness_scores.items()
    elif isinstance(fitness_scores, list):
        pairs = enumerate(fitness_scores)
    else:
        return
    for individual, score in pairs:
        number = as_number(score)
        yield str(individual), math.nan if number is None else _float(number)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.nan


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
