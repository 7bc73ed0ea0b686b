"""Lines through the documents of a run, followed by the server with ``$graphLookup``.

A search brings every content that an id was logged with, and so may lead further than the contents that count; whoever
asked walks over what was found, along those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lezea_mlops.events import as_id
from lezea_mlops.evolution.documents import (
    BATCH,
    ORDER_FIELDS,
    Document,
    as_stored,
    in_batches,
    newest_by_id,
    parents_of,
)

# What a server answers that would have to hold more than 100 MiB for a search.
_TOO_MUCH = 40099
# Several generations are searched at once, to save requests: more, the fewer documents come of them. To find many
# documents takes a search longer than many requests take, so that wide generations are asked for one by one.
_FIRST_DEPTH = 16
_MAX_DEPTH = 1_024
_MAX_DEPTH_OF_ALL = 64


class Searches:
    """Searches among the documents of one run in one collection.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id.
        collection: its name.
        within: the field of a document that holds id and parents; empty: they stand at its top.
        node: the name of the id's field.
    """

    def __init__(self, database: Any, run_id: str, collection: str, within: str, node: str) -> None:
        self._database = database
        self._run_id = run_id
        self._collection = collection
        self._within = within
        self._node = node
        prefix = f"{within}." if within else ""
        self._node_field, self._parents_field = f"{prefix}{node}", f"{prefix}parent_ids"
        self._projection = dict.fromkeys((*ORDER_FIELDS, self._node_field, self._parents_field, "level"), 1)

    def name_of(self, document: Document) -> str:
        """Return the id of a document's node."""
        return as_id((document[self._within] if self._within else document)[self._node]) or ""

    def parents(self, document: Document) -> list[str]:
        """Return the parents that a document names."""
        fields = document[self._within] if self._within else document
        return parents_of(self._database, fields.get("parent_ids"))

    # ------------------------------------------------------------------ one line

    def lineage(self, node_id: str) -> tuple[list[str], str | None]:
        """Return the line of first parents down to a node, and the parent that ended it because it is not here.

        The line is empty, and the node itself ended it, if that is not here.
        """
        newest: dict[str, Document] = {}
        line: dict[str, None] = {}
        depth, most = _FIRST_DEPTH, _MAX_DEPTH
        parents = [node_id]
        while parents and (name := parents[0]) not in line:
            if name not in newest:
                found, possible = self._bounded(as_stored(name), True, depth)
                most = most if possible == depth else max(1, possible)
                newest = newest_by_id(found, self.name_of)
                # One node of each generation is on the line; the others come with crossovers.
                wide = len(found) > 2 * (depth + 1)
                depth = min(max(1, depth // 2) if wide else 2 * depth, most)
            if name not in newest:
                return list(line)[::-1], name
            line[name] = None
            parents = self.parents(newest[name])
        return list(line)[::-1], None

    # ------------------------------------------------------------------ all lines

    def upward(self, node_id: str) -> Iterator[Document]:
        """Yield the documents of a node, and of all that it came from."""
        return self._all(node_id, up=True)

    def downward(self, node_id: str) -> Iterator[Document]:
        """Yield the documents of all that came from a node."""
        return self._all(node_id, up=False)

    def _all(self, node_id: str, up: bool) -> Iterator[Document]:
        """Yield every document that a search leads to, once."""
        asked, brought, waiting = {node_id}, set[Any](), [node_id]
        depth = _FIRST_DEPTH
        while waiting:
            begun, waiting = waiting, []
            for batch in in_batches(begun):
                found, depth = self._bounded(batch, up, depth)
                for document in found:
                    if self._went_on(document, up, depth):
                        asked.update(self._leads_to(document, up))
                    else:
                        waiting += self._leads_to(document, up)
                    if document["_id"] not in brought:
                        brought.add(document["_id"])
                        yield document
                if len(found) > BATCH:
                    depth //= 2
                elif len(found) < BATCH // 4:
                    depth = min(max(1, 2 * depth), _MAX_DEPTH_OF_ALL)
            waiting = [key for key in dict.fromkeys(waiting) if key not in asked]
            asked.update(waiting)

    def _leads_to(self, document: Document, up: bool) -> Sequence[str]:
        return self.parents(document) if up else [self.name_of(document)]

    def _went_on(self, document: Document, up: bool, depth: int) -> bool:
        """Tell whether the server looked behind a document: not behind the deepest, nor into a list it cannot see."""
        if document.get("level", depth) == depth:
            return False
        return not (up and isinstance(document[self._parents_field], Mapping))

    # ------------------------------------------------------------------ requests

    def _bounded(self, keys: Sequence[Any], up: bool, depth: int) -> tuple[list[Document], int]:
        """Return the documents that the keys lead to, and how many generations behind them were searched too."""
        while depth:
            try:
                return list(self._search(keys, up, depth)), depth
            except Exception as error:
                # It is the driver's, and where nobody asks MongoDB that need not be installed.
                if getattr(error, "code", None) != _TOO_MUCH:
                    raise
                depth //= 4
        field = self._node_field if up else self._parents_field
        query = {"run_id": self._run_id, field: {"$in": list(keys)}}
        return list(self._database[self._collection].find(query, self._projection)), 0

    def _search(self, keys: Sequence[Any], up: bool, depth: int) -> Any:
        """Return a cursor over the documents that the keys lead to, and those behind them."""
        node, parents = self._node_field, self._parents_field
        search: dict[str, Any] = {
            "from": self._collection, "as": "found", "depthField": "level",
            # As values: what begins with $ would be the name of a field.
            "startWith": {"$literal": list(keys)},
            "connectFromField": parents if up else node, "connectToField": node if up else parents,
            "restrictSearchWithMatch": {"run_id": self._run_id}, "maxDepth": depth,
        }  # fmt: skip
        # Unwound right behind, what is found never has to be one document, which could not be larger than 16 MB.
        return self._database.aggregate(
            [
                {"$documents": [{}]}, {"$graphLookup": search}, {"$unwind": "$found"}, {"$replaceWith": "$found"},
                {"$project": self._projection},
            ]
        )  # fmt: skip
