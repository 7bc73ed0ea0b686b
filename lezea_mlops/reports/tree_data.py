"""A drawn forest as compact JSON for the page: columns, and each text once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Mapping
from typing import Any

from lezea_mlops.evolution import Node
from lezea_mlops.evolution.statistics import scope_name
from lezea_mlops.reports.forest import Forest

# What is logged with modifications may be long; a page carries this much of it, shared evenly.
MAX_TEXT_BYTES = 8_000_000
MAX_TEXT, MIN_TEXT = 4_000, 200
MAX_PARENTS_NAMED = 20
# Whole numbers up to here are exact in JavaScript.
MAX_EXACT = 2**53

_VERDICTS = {True: "a", False: "r", None: "u"}
_MARKUP = re.compile("[<>&]")


def tree_data(forest: Forest, statistics: Mapping[str, Any]) -> str:
    """Return the data of the page as JSON in ASCII, without any character that means something to HTML.

    Args:
        forest: the modifications that are drawn.
        statistics: figures of the whole tree.
    """
    columns = _Columns(forest)
    for place in range(len(forest)):
        columns.add(place, forest.node(place))
    tree, best = forest.tree, forest.tree.best()
    champion = forest.place.get(best, -1) if best is not None else -1
    data = columns.as_dict() | {
        "parent": forest.parent,
        "best": champion,
        "champions": forest.line(champion),
        "survivors": [forest.place[each] for each in tree.survivors() if each in forest.place],
        "types": _types(statistics, {kind for _, kind, _ in tree.verdicts()}),
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return _MARKUP.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Columns:
    """What is shown of each modification, a list for each kind of it."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self._texts: dict[str, int] = {}
        self._most = min(MAX_TEXT, max(MIN_TEXT, MAX_TEXT_BYTES // max(1, len(forest))))
        self._verdicts: list[str] = []
        self._lists: dict[str, list[Any]] = {
            name: [] for name in "id step score gain type target scope params more".split()
        }
        self._others: list[tuple[int, list[int]]] = []
        self._unshown: list[tuple[int, list[str]]] = []
        self._indirect: list[int] = []

    def add(self, place: int, node: Node) -> None:
        """Take the modification at the next place."""
        this, lists = node.modification, self._lists
        self._verdicts.append(_VERDICTS[this.accepted])
        lists["id"].append(self._cut(this.id))
        lists["step"].append(node.step)
        lists["score"].append(_number(this.score))
        lists["gain"].append(_number(self._forest.tree.gain(this.id)))
        for name, text in (
            ("type", this.type),
            ("target", this.target),
            ("scope", scope_name(node.scope) or None),
        ):
            lists[name].append(self._text(text))
        lists["params"].append(self._json(this.params))
        lists["more"].append(self._json(this.data or None))
        self._parents(place, this.parent_ids)

    def _parents(self, place: int, parent_ids: tuple[str, ...]) -> None:
        above, places = self._forest.parent[place], self._forest.place
        known = [places[each] for each in parent_ids if each in places]
        if above >= 0 and above not in known:
            self._indirect.append(place)
        if others := [each for each in known if each != above]:
            self._others.append((place, others))
        if unshown := [each for each in parent_ids if each not in places]:
            self._unshown.append((place, [self._cut(each) for each in unshown[:MAX_PARENTS_NAMED]]))

    def _json(self, value: Any) -> int:
        return -1 if value is None else self._text(json.dumps(value, ensure_ascii=False))

    def _text(self, text: str | None) -> int:
        return -1 if text is None else self._texts.setdefault(self._cut(text), len(self._texts))

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._most else f"{text[: self._most]}… ({len(text):,} characters)"

    def as_dict(self) -> dict[str, Any]:
        """Return the columns, and the texts that they name by number."""
        return self._lists | {
            "verdict": "".join(self._verdicts), "others": self._others, "unshown": self._unshown,
            "indirect": self._indirect, "texts": list(self._texts),
        }  # fmt: skip


def _number(number: float | None) -> float | str | None:
    """Return a number as the page can read it: as a text where JSON or JavaScript have no such number."""
    if number is None:
        return None
    exact = abs(number) <= MAX_EXACT if type(number) is int else math.isfinite(number)
    return number if exact else str(number)


def _types(statistics: Mapping[str, Any], kinds: Container[str | None]) -> list[dict[str, Any]]:
    """Return a row for each type of modification, the most frequent first; statistics name no type as ``None``."""
    rows = []
    for name, counts in statistics["by_type"].items():
        gain = statistics["gain_by_type"].get(name, {})
        rows.append(
            {
                "type": name if name in kinds else None, "proposed": counts["count"],
                "accepted": counts["accepted"], "rate": counts["accept_rate"],
                "mean_gain": gain.get("mean"), "best_gain": gain.get("best"),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row["proposed"])
