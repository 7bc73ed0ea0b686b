"""The journal of a run: written whole at each call, read from any position, never rewritten."""

from lezea_mlops.journal.blobs import BlobStore, Captured, place_under_name
from lezea_mlops.journal.cursor import Cursor, CursorState, Position
from lezea_mlops.journal.layout import COURIER_WRITER, MAIN_WRITER, RunFolder
from lezea_mlops.journal.liveness import (
    Attempt,
    SignOfLife,
    is_writing,
    read_attempts,
    read_sign_of_life,
    state_of,
)
from lezea_mlops.journal.reader import (
    Chunk,
    Damage,
    JournalReader,
    read_chunk,
    read_run,
    recorded_run_id,
)
from lezea_mlops.journal.tail import last_numbers, last_record, stands_behind
from lezea_mlops.journal.writer import DURABILITY, JournalWriter

__all__ = [
    "COURIER_WRITER",
    "DURABILITY",
    "MAIN_WRITER",
    "Attempt",
    "BlobStore",
    "Captured",
    "Chunk",
    "Cursor",
    "CursorState",
    "Damage",
    "JournalReader",
    "JournalWriter",
    "Position",
    "RunFolder",
    "SignOfLife",
    "is_writing",
    "last_numbers",
    "last_record",
    "place_under_name",
    "read_attempts",
    "read_chunk",
    "read_run",
    "read_sign_of_life",
    "recorded_run_id",
    "stands_behind",
    "state_of",
]
