"""Records as they come from the journal, and what the translation makes of them, in a form that is easy to compare."""

from __future__ import annotations

from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.pieces import Translation
from lezea_mlops.sinks.mlflow.translation import translate

SHA = "ab" * 32
Payload = dict[str, Any]


def record(kind: str, payload: Payload, *, wid: str = "main", seq: int = 7, att: int = 1) -> Envelope:
    """Return a record as it comes from the journal."""
    meta = {"seq": seq, "ts": 1_763_690_000_123_456, "wid": wid, "att": att}
    return Envelope(kind, meta, {"run_id": "run-1", **payload})


def brought(kind: str, payload: Payload, **meta: Any) -> Translation:
    """Return what such a record brings."""
    return translate(record(kind, payload, **meta))


def metrics(out: Translation) -> dict[str, tuple[float, int]]:
    """Return value and step by metric; each name comes once."""
    found = {point.key: (point.value, point.step) for point in out.points}
    assert len(found) == len(out.points)
    return found


def files(out: Translation) -> set[str]:
    """Return the paths of all files."""
    return {text.path for text in out.texts} | {blob.path for blob in out.blobs}
