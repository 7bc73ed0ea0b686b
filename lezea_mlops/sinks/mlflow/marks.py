"""What the sink marks in a run by tags of its own: what MLflow cannot show, and which word of its status is newest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lezea_mlops.events import MAX_NAMES_APART, Envelope
from lezea_mlops.sinks.mlflow.pieces import Point, Translation

SUPERSEDED_TAG = "lezea.superseded_from_step"
CAPPED_TAG = "lezea.metric_names_capped"
CAPPED_TEXT = (
    f"more than {MAX_NAMES_APART} metric names: further builders' and taskers' own metrics are only in the journal; "
    "population snapshots and folds show them together"
)
OUTCOME_TAGS = ("lezea.reason", "lezea.error")

# Attempt, rank, time, writer, number: see ``status_order``.
StatusOrder = list[Any]


class Standing:
    """Which record said last what a run has one of; those before it do not say it again.

    One writer's records come after another's, so that what is older may arrive later.
    """

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        # Lists, for the keys are stored as JSON.
        self._newest: dict[str, list[Any]] = {name: list(key) for name, key in (stored or {}).items()}

    def take(self, record: Envelope, translation: Translation) -> Translation:
        """Return *translation* without what a newer record said, and remember what it says itself."""
        if not translation.of_run:
            return translation
        key = list(record.order_key)
        outdone = {name for name in translation.of_run if self._newest.get(name, key) > key}
        self._newest |= dict.fromkeys(translation.of_run - outdone, key)
        return replace(
            translation,
            tags={name: value for name, value in translation.tags.items() if name not in outdone},
            texts=[text for text in translation.texts if text.path not in outdone],
        )

    def is_newest(self, record: Envelope, translation: Translation, name: str) -> bool:
        """Tell whether no newer record says what *record* says by a tag or path; True if each record has its own."""
        return name not in translation.of_run or self._newest.get(name) == list(record.order_key)

    def stored(self) -> dict[str, list[Any]]:
        """Return what is to be remembered."""
        return dict(self._newest)


def told_of(key: str, point: Point) -> Iterator[tuple[str, str]]:
    """Yield name and text of the tags that say what the metric *key* cannot show of *point*."""
    if key != point.key:
        yield f"lezea.name.{key[-16:]}", point.key
    if math.isinf(point.value):
        sign = "Infinity" if point.value > 0 else "-Infinity"
        yield f"lezea.nonfinite.{point.key}", f"{sign}, first at step {point.step}; shown as NaN"


def said_of_the_past(record: Envelope, translation: Translation, newest: StatusOrder) -> Translation:
    """Leave out what a newer start or end has said since; all else comes again, in case that it is gone.

    The files of an end may stand in the place of a newer one's. Those of the same writer follow in their order.
    """
    tags = {name: value for name, value in translation.tags.items() if name not in OUTCOME_TAGS}
    newer_follows = record.type == "run_started" or newest[3] == record.wid
    return replace(translation, tags=tags, texts=translation.texts if newer_follows else [])


def status_order(record: Envelope, status: str) -> StatusOrder:
    """Return where a status stands: a newer attempt beats an older, an end a start, a real end an inferred one."""
    rank = 0 if status == "RUNNING" else 1 if record.payload.get("inferred") else 2
    return [record.att, rank, record.ts, record.wid, record.seq]


def read_order(text: str | None) -> StatusOrder:
    """Read an order back; an empty one if there is none, or a person wrote something else there."""
    try:
        att, rank, ts, wid, seq = json.loads(text or "")
        return [int(att), int(rank), int(ts), str(wid), int(seq)]
    except (ValueError, TypeError):
        return []
