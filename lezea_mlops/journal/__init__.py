"""The journal of a run: written whole at each call, read from any position, never rewritten."""

from lezea_mlops.journal.blobs import BlobStore, Captured, place_under_name
from lezea_mlops.journal.cursor import Cursor, CursorState, Position
from lezea_mlops.journal.layout import MAIN_WRITER, RunFolder
from lezea_mlops.journal.reader import Chunk, Damage, JournalReader, read_chunk, read_run
from lezea_mlops.journal.writer import DURABILITY, JournalWriter

__all__ = [
    "DURABILITY",
    "MAIN_WRITER",
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
    "place_under_name",
    "read_chunk",
    "read_run",
]
