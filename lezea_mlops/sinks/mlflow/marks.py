"""What the sink marks in a run by tags of its own: what MLflow cannot show, and which word of its status is newest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
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
