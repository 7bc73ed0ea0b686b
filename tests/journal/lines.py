"""Lines of a journal, made by hand."""

from __future__ import annotations

from typing import Any

from lezea_mlops.events import encode_json


def line(
    seq: int, wid: str = "main", *, att: int = 1, run_id: Any = "run-1", version: int = 1, **fields: Any
) -> bytes:
    """Return a record as a line."""
    meta = {"seq": seq, "ts": 1_763_690_000_000_000 + seq, "wid": wid, "att": att}
    record = {"v": version, "t": "metric", "m": meta, "p": {"run_id": run_id} | fields}
    return encode_json(record) + b"\n"
