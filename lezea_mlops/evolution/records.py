"""What a record says of evolution, for all who read records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lezea_mlops.events import Envelope, Modification, encode_json, number_text, read_modification
from lezea_mlops.evolution.graph import Moment


def moment_of(record: Envelope) -> Moment:
    """Return when and where a record was logged; a step that is no whole number is None."""
    step: Any = record.payload.get("step")
    scope = tuple((level, identity) for level, identity in record.scope)
    return Moment(record.order_key, step if type(step) is int else None, scope, record.ts)


def modifications_of(record: Envelope) -> Iterator[Modification]:
    """Yield the modifications of a logged tree, or of a part of one; none if it has no list of them.

    One without an id has the id ``<writer>.<number of the record>.<place in it, from 1>``. What is no mapping becomes
    a modification with itself as ``value`` among its data.
    """
    logged = record.payload.get("modifications")
    if isinstance(logged, list):
        prefix = f"{record.wid}.{record.seq}."
        for place, each in enumerate(logged, start=1):
            yield read_modification(each, f"{prefix}{place}")


def content_of(modification: Modification) -> bytes:
    """Return all of a modification but its id as JSON; equal contents are equal bytes."""
    score = modification.score
    told = number_text(score) if isinstance(score, float) else score
    return encode_json((*modification[1:4], told, *modification[5:]))
