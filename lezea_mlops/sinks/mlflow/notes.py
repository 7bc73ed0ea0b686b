"""The run's description in MLflow (the tag ``mlflow.note.content``): purpose, conclusion, comments, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lezea_mlops.events import Envelope

MAX_COMMENTS = 20
MAX_NOTE = 7_500
MAX_TEXT = 2_000

# [order key, kind, text]; plain lists, for they are stored as JSON.
Note = list[Any]


class Notes:
    """The newest purpose and conclusion and the newest comments; replaying them changes nothing."""

    def __init__(self, stored: Iterable[Note] = ()) -> None:
        self._notes: list[Note] = [list(note) for note in stored]

    def add(self, record: Envelope, kind: str, text: str) -> None:
        """Take a note; the same record again is the same note."""
        shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"
        note = [list(record.order_key), kind, shown]
        kept = [known for known in self._notes if known[0] != note[0]] + [note]
        kept.sort(key=lambda known: known[0])
        self._notes = [
            *self._newest(kept, "purpose", 1), *self._newest(kept, "conclusion", 1),
            *self._newest(kept, "comment", MAX_COMMENTS),
        ]  # fmt: skip

    def stored(self) -> list[Note]:
        """Return what is to be remembered."""
        return self._notes

    def markdown(self) -> str:
        """Return the description; what does not fit is left out, oldest comments first."""
        purpose, conclusion = self._texts("purpose"), self._texts("conclusion")
        head = "\n\n".join([*purpose, *(f"## Conclusion\n\n{text}" for text in conclusion)])
        comments: list[str] = []
        room = MAX_NOTE - len(head)
        for text in reversed(self._texts("comment")):
            line = "- " + text.replace("\n", "\n  ")
            room -= len(line) + 1
            if room < 0:
                break
            comments.insert(0, line)
        below = "## Comments\n\n" + "\n".join(comments) if comments else ""
        return "\n\n".join(part for part in (head, below) if part)

    def _texts(self, kind: str) -> list[str]:
        return [text for _, known, text in self._notes if known == kind]

    @staticmethod
    def _newest(notes: list[Note], kind: str, count: int) -> list[Note]:
        return [note for note in notes if note[1] == kind][-count:]
