"""Params in MLflow cannot change: the first value stays, later ones become numbered revisions.

A revision N is a tag ``lezea.rev<N>`` with the order key of the record that made it, a tag ``lezea.rev<N>.<key>`` for
each changed param, and the file ``config/revision-<N>.json``. All of it is read back from the run, so that a replay
finds the number it gave before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.names import file_part, fit
from lezea_mlops.sinks.mlflow.translation import TextFile

MAX_PARAM = 6_000
MAX_TAG = 8_000
_REVISION = re.compile(r"lezea\.rev(\d+)")
_REVISED = re.compile(r"lezea\.rev(\d+)\.(.+)", re.DOTALL)

OrderKey = tuple[int, int, str, int]


@dataclass
class ParamChange:
    """What one record of params brings: new params, tags of a revision, files."""

    new: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    texts: list[TextFile] = field(default_factory=list)


class ParamHistory:
    """The params that a run has in MLflow, and the revisions after them."""

    def __init__(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._base = dict(params)
        self._orders: dict[int, OrderKey] = {}
        self._revised: dict[int, dict[str, str]] = {}
        for name, value in tags.items():
            if match := _REVISION.fullmatch(name):
                att, ts, wid, seq = json.loads(value)
                self._orders[int(match[1])] = (att, ts, wid, seq)
            elif match := _REVISED.fullmatch(name):
                self._revised.setdefault(int(match[1]), {})[match[2]] = value

    def apply(self, record: Envelope, params: Mapping[str, str]) -> ParamChange:
        """Return what must be written for *params*, whose names are escaped; the same record again, the same."""
        change = ParamChange()
        changed: dict[str, str] = {}
        for name, value in params.items():
            key = fit(name)
            shown = shortened(value, f"values/params/{file_part(key)}.txt", MAX_PARAM, change.texts)
            if shown != value:
                change.tags["lezea.truncated"] = "true"
            known = self._in_force_before(record.order_key, key)
            if known is None:
                change.new[key] = self._base[key] = shown
            elif known != shown:
                changed[key] = shown
        if changed:
            self._revise(record, changed, change)
        return change

    def _in_force_before(self, order: OrderKey, key: str) -> str | None:
        value = self._base.get(key)
        for number in sorted(self._orders):
            if self._orders[number] < order and key in self._revised.get(number, {}):
                value = self._revised[number][key]
        return value

    def _revise(self, record: Envelope, changed: dict[str, str], change: ParamChange) -> None:
        order = record.order_key
        number = next((n for n, known in self._orders.items() if known == order), len(self._orders) + 1)
        diff = {
            key: {"from": self._in_force_before(order, key), "to": value}
            for key, value in sorted(changed.items())
        }
        self._orders[number] = order
        self._revised[number] = changed
        change.tags[f"lezea.rev{number}"] = json.dumps(list(order))
        change.tags |= {fit(f"lezea.rev{number}.{key}"): value for key, value in changed.items()}
        content = {"revision": number, "attempt": record.att, "ts": record.ts, "changed": diff}
        change.texts.append(
            TextFile(f"config/revision-{number}.json", json.dumps(content, indent=2, ensure_ascii=False))
        )


def shortened(value: str, pointer: str, limit: int, texts: list[TextFile]) -> str:
    """Return *value*, or head, digest and pointer if it is longer than *limit*; then the whole of it joins *texts*."""
    if len(value) <= limit:
        return value
    texts.append(TextFile(pointer, value))
    mark = (
        f" … [{len(value)} characters, sha256:{hashlib.sha256(value.encode()).hexdigest()}, whole: {pointer}]"
    )
    return value[: limit - len(mark)] + mark
