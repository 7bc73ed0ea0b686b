"""Params in MLflow cannot change: the first value stays, later ones become numbered revisions.

A revision N is a tag ``lezea.rev<N>`` with the order key of the record that made it, a tag ``lezea.rev<N>.<key>`` for
each changed param, and the file ``config/revision-<N>.json``. All of it is read back from the run, so that a replay
finds the number it gave before.

What a record changes is judged by the first values and by the earlier revisions of its own writer. Records of one
writer always come in one order; those of several do not, and a judgement across them would differ from time to time.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.names import file_part, fit
from lezea_mlops.sinks.mlflow.pieces import TextFile

MAX_PARAM = 6_000
MAX_TAG = 8_000
_REVISION = re.compile(r"lezea\.rev(\d+)")


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
        self._tags = {name: value for name, value in tags.items() if name.startswith("lezea.rev")}
        self._last = 0
        # By writer: the records that made revisions, as (seq, revision) in their order.
        self._revisions: dict[str, list[tuple[int, int]]] = {}
        for name, value in self._tags.items():
            order = _order_key(value) if (match := _REVISION.fullmatch(name)) else None
            if match and order:
                self._remember(order[2], order[3], int(match[1]))

    def apply(self, record: Envelope, params: Mapping[str, str]) -> ParamChange:
        """Return what must be written for *params*, whose names are escaped; the same record again, the same."""
        change = ParamChange()
        changed: dict[str, tuple[str, str]] = {}
        for name, value in params.items():
            key = fit(name)
            shown = shortened(value, f"values/params/{file_part(key)}", MAX_PARAM, change.texts)
            if shown != value:
                change.tags["lezea.truncated"] = "true"
            known = self._in_force_before(record, key)
            if known is None:
                change.new[key] = self._base[key] = shown
            elif known != shown:
                changed[key] = (known, shown)
        if changed:
            self._revise(record, changed, change)
        return change

    def _in_force_before(self, record: Envelope, key: str) -> str | None:
        revisions = self._revisions.get(record.wid, [])
        for _, number in reversed(revisions[: bisect_left(revisions, (record.seq, 0))]):
            if (value := self._tags.get(_tag(number, key))) is not None:
                return value
        return self._base.get(key)

    def _remember(self, wid: str, seq: int, number: int) -> None:
        insort(self._revisions.setdefault(wid, []), (seq, number))
        self._last = max(self._last, number)

    def _revise(self, record: Envelope, changed: Mapping[str, tuple[str, str]], change: ParamChange) -> None:
        number = next((n for seq, n in self._revisions.get(record.wid, []) if seq == record.seq), None)
        if number is None:
            number = self._last + 1
            self._remember(record.wid, record.seq, number)
        tags = {_tag(number, key): value for key, (_, value) in changed.items()}
        tags[f"lezea.rev{number}"] = json.dumps(list(record.order_key))
        self._tags |= tags
        change.tags |= tags
        diff = {key: {"from": before, "to": value} for key, (before, value) in sorted(changed.items())}
        content = {"revision": number, "attempt": record.att, "ts": record.ts, "changed": diff}
        change.texts.append(
            TextFile(f"config/revision-{number}.json", json.dumps(content, indent=2, ensure_ascii=False))
        )


def _tag(number: int, key: str) -> str:
    return fit(f"lezea.rev{number}.{key}")


def _order_key(text: str) -> tuple[int, int, str, int] | None:
    """Read an order key (attempt, time, writer, number) back; None if a person wrote something else there."""
    try:
        att, ts, wid, seq = json.loads(text)
        return int(att), int(ts), str(wid), int(seq)
    except (ValueError, TypeError):
        return None


def shortened(value: str, pointer: str, limit: int, texts: list[TextFile]) -> str:
    """Return *value*, or head, digest and pointer if it is longer than *limit*; then the whole of it joins *texts*.

    The whole stands under *pointer* and the digest's beginning, so that values of one name do not replace each other.
    """
    # Some of the databases below MLflow hold no NUL.
    value = value.replace("\0", "\N{SYMBOL FOR NULL}")
    if len(value) <= limit:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()
    path = f"{pointer}-{digest[:8]}.txt"
    texts.append(TextFile(path, value))
    mark = f" … [{len(value)} characters, sha256:{digest}, whole: {path}]"
    return value[: limit - len(mark)] + mark
