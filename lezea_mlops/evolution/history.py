"""The evolution of a run: its modifications and its networks, from the records of a journal or as they pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lezea_mlops.events import (
    Envelope,
    ModificationTreeLogged,
    NetworkRegistered,
    PopulationLogged,
    as_id,
)
from lezea_mlops.evolution.genealogy import Problem
from lezea_mlops.evolution.networks import NetworkLineage
from lezea_mlops.evolution.records import modifications_of, moment_of
from lezea_mlops.evolution.tree import ModificationTree, Node


class Evolution:
    """What a run's records say of modifications, networks and populations; in whichever order they come.

    Attributes:
        modifications: the modifications of all logged trees.
        networks: the networks and their populations.
    """

    def __init__(self) -> None:
        self.modifications = ModificationTree()
        self.networks = NetworkLineage()
        self._not_understood: list[Problem] = []

    def read(self, records: Iterable[Envelope]) -> Evolution:
        """Observe all *records*, and return itself."""
        for record in records:
            self.observe(record)
        return self

    def observe(self, record: Envelope) -> None:
        """Take a record; those that say nothing of evolution change nothing."""
        if record.type == ModificationTreeLogged.type:
            self._observe_tree(record)
        elif record.type == NetworkRegistered.type:
            self.networks.register(record.payload, moment_of(record))
            if as_id(record.payload.get("network_id")) is None:
                self._misses(record, "", "registers a network without an id")
        elif record.type == PopulationLogged.type:
            self.networks.observe_population(record.payload, moment_of(record))

    def _observe_tree(self, record: Envelope) -> None:
        logged: Any = record.payload.get("modifications")
        if not isinstance(logged, list):
            self._misses(record, "", "has no list of modifications")
            return
        self.modifications.add_all(modifications_of(record), moment_of(record))
        for place, each in enumerate(logged, start=1):
            if type(each) is not dict:
                name = f"{record.wid}.{record.seq}.{place}"
                self._misses(
                    record, name, f"holds {each!r:.40} where a modification was expected; kept as {name}"
                )

    def _misses(self, record: Envelope, node_id: str, text: str) -> None:
        where = f"the {record.type} record {record.seq} of the writer {record.wid}"
        self._not_understood.append(Problem("not_understood", node_id, f"{where} {text}"))

    def problems(self) -> list[Problem]:
        """Return what cannot be as it was logged, of modifications, networks, and whole records."""
        return [*self.modifications.problems(), *self.networks.problems(), *self._not_understood]

    def path_to(self, network_id: str) -> list[Node]:
        """Return what made a network: the modifications of each network on its lineage that were not rejected.

        The first ancestor's come first, those of one network in logged order. Empty if nothing is known of it.
        """
        line = self.networks.lineage(network_id) if network_id in self.networks else [network_id]
        tree = self.modifications
        targeting = tree.targeting(dict.fromkeys(line))
        nodes = (tree[each] for network in line for each in targeting[network])
        return [node for node in nodes if node.modification.accepted is not False]
