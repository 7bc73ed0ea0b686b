"""The run's description: purpose, conclusion, comments, in Markdown, whatever order they come in."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.notes import MAX_COMMENTS, MAX_NOTE, MAX_TEXT, Notes

KINDS = st.sampled_from(["purpose", "conclusion", "comment"])
Told = tuple[Envelope, str, str]


def record(seq: int, *, att: int = 1, ts: int | None = None, wid: str = "main") -> Envelope:
    """Return a record whose only meaning is its place in the order."""
    return Envelope("comment", {"seq": seq, "ts": ts if ts is not None else seq, "wid": wid, "att": att}, {})


def told(*notes: Told) -> Notes:
    """Return notes that were told these."""
    found = Notes()
    for at, kind, text in notes:
        found.add(at, kind, text)
    return found


def test_nothing_told_is_an_empty_description() -> None:
    """Without purpose, comments and conclusion there is no text."""
    assert Notes().markdown() == ""


def test_purpose_first_then_conclusion_then_comments_oldest_first() -> None:
    """A person reads what it is for, what came of it, and what was remarked on the way."""
    notes = told(
        (record(1), "purpose", "Find out."), (record(2), "comment", "Slow.\nVery slow."),
        (record(3), "conclusion", "It works."), (record(4), "comment", "Fast now."),
    )  # fmt: skip
    assert notes.markdown() == (
        "Find out.\n\n## Conclusion\n\nIt works.\n\n## Comments\n\n- Slow.\n  Very slow.\n- Fast now."
    )


def test_the_newest_purpose_and_conclusion_stand() -> None:
    """A resumed run may bring new ones; the attempt counts before the time."""
    notes = told(
        (record(9, att=2, ts=5), "conclusion", "new"), (record(1, ts=100), "conclusion", "old"),
        (record(1, ts=1), "purpose", "first"), (record(8, att=2, ts=2), "purpose", "second"),
    )  # fmt: skip
    assert notes.markdown() == "second\n\n## Conclusion\n\nnew"


def test_a_comment_of_another_writer_stands_among_the_others() -> None:
    """They are sorted by their place in the order of all writers."""
    notes = told(
        (record(1, ts=30), "comment", "c"), (record(1, ts=10, wid="rank1"), "comment", "a"),
        (record(2, ts=20, wid="rank1"), "comment", "b"),
    )  # fmt: skip
    assert notes.markdown() == "## Comments\n\n- a\n- b\n- c"


def test_the_newest_comments_are_kept() -> None:
    """Of a thousand comments the description shows the last twenty."""
    notes = told(*((record(seq), "comment", f"comment {seq}") for seq in range(1, 1_001)))
    lines = notes.markdown().splitlines()[2:]
    assert lines == [f"- comment {seq}" for seq in range(1_001 - MAX_COMMENTS, 1_001)]


@settings(max_examples=50)
@given(st.lists(st.tuples(KINDS, st.text(max_size=MAX_TEXT * 2)), max_size=40))
def test_the_description_fits_a_tag(texts: list[tuple[str, str]]) -> None:
    """However long the texts are; long ones are cut, and the oldest comments are left out."""
    notes = told(*((record(seq), kind, text) for seq, (kind, text) in enumerate(texts)))
    assert len(notes.markdown()) <= MAX_NOTE


def test_long_comments_leave_room_for_the_newest() -> None:
    """What does not fit are the oldest."""
    notes = told(*((record(seq), "comment", f"{seq} " + "x" * MAX_TEXT) for seq in range(10)))
    shown = notes.markdown()
    assert "- 9 " in shown
    assert "- 0 " not in shown


@settings(max_examples=100)
@given(
    notes=st.lists(
        st.tuples(st.builds(record, st.integers(1, 30), ts=st.integers(1, 5)), KINDS, st.text(max_size=5)),
        max_size=25, unique_by=lambda note: note[0].order_key,
    ),
    seed=st.integers(0, 1_000),
)  # fmt: skip
def test_order_and_repetition_change_nothing(notes: list[Told], seed: int) -> None:
    """Told in any order, some of them twice, and stored as JSON in between: the description is the same."""
    shuffled = random.Random(seed).sample(notes, len(notes))
    again = Notes(json.loads(json.dumps(told(*shuffled).stored())))
    for at, kind, text in shuffled[::2]:
        again.add(at, kind, text)
    assert again.markdown() == told(*notes).markdown()
