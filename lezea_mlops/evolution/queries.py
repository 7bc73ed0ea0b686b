"""The questions that are asked of an evolution most, with the same answers from MongoDB and from a journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from lezea_mlops.evolution.documents import check_text
from lezea_mlops.evolution.history import Evolution
from lezea_mlops.evolution.tree import Node

_Group = tuple["int | None", "str | None"]


class AcceptanceRow(NamedTuple):
    """The modifications of one type that were logged within some steps.

    Attributes:
        step: the first of the steps; None for what was logged without one.
        type: the type; None for what has none.
        proposed: how many there are.
        accepted: how many of them were accepted.
    """

    step: int | None
    type: str | None
    proposed: int
    accepted: int


class Queries(Protocol):
    """Questions to the evolution of one run.

    Where an id was logged with several contents, the one that was logged last answers. An id that was not logged
    raises KeyError, but for ``path_to``, and one that is no text TypeError.
    """

    def lineage(self, modification_id: str) -> list[str]:
        """Return the line to a modification: the first ancestor, …, itself, along the first parent of each.

        A parent that is not known, or was on the line already, ends it.
        """

    def ancestors(self, modification_id: str) -> list[str]:
        """Return all that a modification came from, along all parents, in logged order; never itself."""

    def descendants(self, modification_id: str) -> list[str]:
        """Return all that came from a modification, in logged order; never itself."""

    def acceptance_by_type(self, steps: int = 1) -> list[AcceptanceRow]:
        """Return how many modifications of each type were proposed and accepted, in the order of steps.

        Args:
            steps: how many steps are counted together; the first ones are 0 to ``steps - 1``.

        Raises:
            ValueError: *steps* is no whole number above zero.
        """

    def best_path(self) -> list[str]:
        """Return the line to the accepted modification with the highest finite score; empty if there is none.

        Of equal scores the one that was logged first counts.
        """

    def network_lineage(self, network_id: str) -> list[str]:
        """Return the line to a network: the first ancestor, …, itself, along the first parent of each."""

    def path_to(self, network_id: str) -> list[Node]:
        """Return what made a network: the modifications of each network on its line that were not rejected.

        The first ancestor's come first, those of one network in logged order. Empty if nothing is known of it.
        """


class JournalQueries:
    """Answers from an evolution in memory.

    Args:
        evolution: as ``read_evolution`` returns it.
    """

    def __init__(self, evolution: Evolution) -> None:
        self._evolution = evolution

    def lineage(self, modification_id: str) -> list[str]:
        """Return the line to a modification."""
        check_text("modification_id", modification_id)
        return self._evolution.modifications.lineage(modification_id)

    def ancestors(self, modification_id: str) -> list[str]:
        """Return all that a modification came from."""
        check_text("modification_id", modification_id)
        return self._evolution.modifications.ancestors(modification_id)

    def descendants(self, modification_id: str) -> list[str]:
        """Return all that came from a modification."""
        check_text("modification_id", modification_id)
        return self._evolution.modifications.descendants(modification_id)

    def acceptance_by_type(self, steps: int = 1) -> list[AcceptanceRow]:
        """Return how many modifications of each type were proposed and accepted."""
        check_steps(steps)
        proposed, accepted = Counter[_Group](), Counter[_Group]()
        for step, kind, verdict in self._evolution.modifications.verdicts():
            first = None if step is None else step - step % steps
            proposed[first, kind] += 1
            accepted[first, kind] += verdict is True
        return list(acceptances(proposed, accepted))

    def best_path(self) -> list[str]:
        """Return the line to the accepted modification with the highest finite score."""
        best = self._evolution.modifications.best()
        return [] if best is None else self._evolution.modifications.lineage(best)

    def network_lineage(self, network_id: str) -> list[str]:
        """Return the line to a network."""
        check_text("network_id", network_id)
        return self._evolution.networks.lineage(network_id)

    def path_to(self, network_id: str) -> list[Node]:
        """Return what made a network."""
        check_text("network_id", network_id)
        return self._evolution.path_to(network_id)


def check_steps(steps: object) -> None:
    """Refuse what cannot be a number of steps.

    Raises:
        ValueError: it is no whole number above zero.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(
            f"steps is {steps!r}; pass how many steps are counted together, a whole number from 1 on"
        )


def acceptances(proposed: Mapping[_Group, int], accepted: Mapping[_Group, int]) -> Iterator[AcceptanceRow]:
    """Yield the groups of which there is any, in the order of their steps and types, those without one first."""
    for first, kind in sorted(proposed, key=lambda group: [(value is not None, value) for value in group]):
        if proposed[first, kind]:
            yield AcceptanceRow(first, kind, proposed[first, kind], accepted[first, kind])
