"""Answers from MongoDB, without reading a run as a whole."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lezea_mlops.events import escape_name, from_document
from lezea_mlops.evolution.documents import (
    MODIFICATIONS,
    NETWORKS,
    ORDER_FIELDS,
    POPULATIONS,
    Document,
    check_text,
    in_batches,
    newest_by_id,
    node_of,
    not_logged,
    order_of,
    population_of,
)
from lezea_mlops.evolution.networks import NetworkLineage
from lezea_mlops.evolution.queries import AcceptanceRow, acceptances, check_steps
from lezea_mlops.evolution.searches import Searches
from lezea_mlops.evolution.tree import Node

_PLACE = dict.fromkeys(("id", *ORDER_FIELDS), 1)
_FINITE = {"$gt": float("-inf"), "$lt": float("inf")}
# Of so many documents it is faster to ask for all that do not count.
_MANY = 50_000
# The best one that counts is almost always among so many.
_FEW = 100
# The name of a document that is not the first one of its id.
_NOT_FIRST = {"$expr": {"$ne": ["$_id", {"$concat": ["$run_id", "/", "$id"]}]}}


class MongoQueries:
    """Answers from the documents of one run, as far as it is delivered.

    Ids go into queries as values and never as query text. Lines are followed by ``$graphLookup``, some generations at a
    time, and no answer has to fit into one document.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id.

    Attributes:
        run_id: the experiment id.
    """

    def __init__(self, database: Any, run_id: str) -> None:
        check_text("run_id", run_id)
        self._database = database
        self.run_id = run_id
        self._modifications = database[MODIFICATIONS]
        self._searches = Searches(database, run_id, MODIFICATIONS, "", "id")

    # ------------------------------------------------------------------ modifications

    def lineage(self, modification_id: str) -> list[str]:
        """Return the line to a modification."""
        check_text("modification_id", modification_id)
        line, _ = self._searches.lineage(modification_id)
        if not line:
            raise not_logged(modification_id)
        return line

    def ancestors(self, modification_id: str) -> list[str]:
        """Return all that a modification came from."""
        check_text("modification_id", modification_id)
        # What is found by its id is found with all its contents.
        counting = newest_by_id(self._searches.upward(modification_id), _id_of)
        if modification_id not in counting:
            raise not_logged(modification_id)
        parents = self._searches.parents
        reached = _reached(
            modification_id, lambda name: (p for p in parents(counting[name]) if p in counting)
        )
        return sorted(reached, key=lambda name: order_of(counting[name]))

    def descendants(self, modification_id: str) -> list[str]:
        """Return all that came from a modification."""
        check_text("modification_id", modification_id)
        if self._modifications.find_one({"run_id": self.run_id, "id": modification_id}, {"_id": 1}) is None:
            raise not_logged(modification_id)
        documents = list(self._searches.downward(modification_id))
        if len(documents) > _MANY:
            passed = {each["_id"] for each in self._superseded()}
            found = {each["id"]: each for each in documents if each["_id"] not in passed}
        else:
            found = {each["id"]: each for each in self._counting(documents)}
        children: dict[str, list[str]] = {}
        for name, document in found.items():
            for parent in self._searches.parents(document):
                children.setdefault(parent, []).append(name)
        reached = _reached(modification_id, lambda name: children.get(name, ()))
        return sorted(reached, key=lambda name: order_of(found[name]))

    def best_path(self) -> list[str]:
        """Return the line to the accepted modification with the highest finite score."""
        best = self._best({"$limit": _FEW}) or self._best()
        return [] if best is None else self.lineage(best)

    def _best(self, *bound: Mapping[str, Any]) -> str | None:
        """Return the best of the accepted ones, the highest scores first; None if none of them counts."""
        found = self._modifications.aggregate(
            [
                {"$match": {"run_id": self.run_id, "accepted": True, "score": _FINITE}},
                # Compared as floats, in which integers may be equal that are not.
                {"$project": {**_PLACE, "value": {"$toDouble": "$score"}}},
                {"$sort": {"value": -1} | dict.fromkeys(ORDER_FIELDS, 1)},
                *bound,
            ],
            allowDiskUse=True,
        )
        best = next(self._counting(found), None)
        return None if best is None else str(best["id"])

    def acceptance_by_type(self, steps: int = 1) -> list[AcceptanceRow]:
        """Return how many modifications of each type were proposed and accepted."""
        check_steps(steps)
        is_whole = {"$in": [{"$type": "$step"}, ["int", "long", "decimal"]]}
        # A remainder has the sign of the step here.
        within = {"$mod": [{"$add": [{"$mod": ["$step", steps]}, steps]}, steps]}
        group = {
            "_id": {"first": {"$cond": [is_whole, {"$subtract": ["$step", within]}, None]}, "type": "$type"},
            "proposed": {"$sum": 1}, "accepted": {"$sum": {"$cond": [{"$eq": ["$accepted", True]}, 1, 0]}},
        }  # fmt: skip
        proposed, accepted = Counter[Any](), Counter[Any]()
        pipeline = [{"$match": {"run_id": self.run_id}}, {"$group": group}]
        for row in self._modifications.aggregate(pipeline, allowDiskUse=True):
            key = from_document(row["_id"]["first"]), row["_id"]["type"]
            proposed[key] += row["proposed"]
            accepted[key] += row["accepted"]
        for document in self._superseded():
            step = from_document(document.get("step"))
            key = (step - step % steps if type(step) is int else None), document["type"]
            proposed[key] -= 1
            accepted[key] -= document["accepted"] is True
        return list(acceptances(proposed, accepted))

    # ------------------------------------------------------------------ ids with several contents

    def _counting(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield those of the documents that count, and none whose id has newer content."""
        for batch in in_batches(documents):
            pipeline = [
                {"$match": {"run_id": self.run_id, "id": {"$in": [each["id"] for each in batch]}}},
                {"$group": {"_id": "$id", "contents": {"$sum": 1}}},
                {"$match": {"contents": {"$gt": 1}}},
            ]
            several = [each["_id"] for each in self._modifications.aggregate(pipeline)]
            newest = newest_by_id(self._contents(several, _PLACE), _id_of) if several else {}
            for document in batch:
                if newest.get(document["id"], document)["_id"] == document["_id"]:
                    yield document

    def _superseded(self) -> Iterator[Document]:
        """Yield the documents that do not count, sorted by id."""
        query = {"run_id": self.run_id, **_NOT_FIRST}
        found = self._modifications.find(query, {"id": 1}, sort=[("run_id", 1), ("id", 1)])
        ids = (name for name, _ in itertools.groupby(each["id"] for each in found))
        shown = {**_PLACE, "step": 1, "type": 1, "accepted": 1}
        for batch in in_batches(ids):
            contents = list(self._contents(batch, shown))
            newest = newest_by_id(contents, _id_of)
            yield from (each for each in contents if newest[each["id"]]["_id"] != each["_id"])

    def _contents(self, ids: Sequence[str], shown: Mapping[str, int]) -> Iterable[Document]:
        """Return all documents of these ids."""
        found: Iterable[Document] = self._modifications.find(
            {"run_id": self.run_id, "id": {"$in": list(ids)}}, shown
        )
        return found

    # ------------------------------------------------------------------ networks

    def network_lineage(self, network_id: str) -> list[str]:
        """Return the line to a network."""
        check_text("network_id", network_id)
        registered = Searches(self._database, self.run_id, NETWORKS, "data", "network_id")
        line, ended_by = registered.lineage(network_id)
        if ended_by is not None and self._lived(ended_by):
            line = [ended_by, *line]
        if not line:
            raise not_logged(network_id)
        return line

    def path_to(self, network_id: str) -> list[Node]:
        """Return what made a network."""
        try:
            line = self.network_lineage(network_id)
        except KeyError:
            line = [network_id]
        of_network: dict[str, list[Document]] = {network: [] for network in line}
        for batch in in_batches(line):
            query = {"run_id": self.run_id, "target": {"$in": batch}, "accepted": {"$ne": False}}
            for document in self._counting(self._modifications.find(query)):
                of_network[document["target"]].append(document)
        found = (
            document for documents in of_network.values() for document in sorted(documents, key=order_of)
        )
        return [node_of(self._database, document) for document in found]

    def _lived(self, network_id: str) -> bool:
        """Tell whether a network that was not registered was in a population."""
        places = [f"fitness_scores.{escape_name(network_id)}", "fitness_scores.%large", "%large"]
        candidates = [{f"data.{place}": {"$exists": True}} for place in places]
        for document in self._database[POPULATIONS].find({"run_id": self.run_id, "$or": candidates}):
            networks = NetworkLineage()
            networks.observe_population(*population_of(self._database, document))
            if network_id in networks:
                return True
        return False


def _id_of(document: Document) -> str:
    name: str = document["id"]
    return name


def _reached(start: str, next_to: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the ids that lines lead to, but for the start itself."""
    seen, waiting = {start: None}, [start]
    while waiting:
        for name in next_to(waiting.pop()):
            if name not in seen:
                seen[name] = None
                waiting.append(name)
    del seen[start]
    return list(seen)
