"""Rows in columns, for a terminal with colours and a width, or for a file or a pipe, which have neither."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

# What is drawn where only ASCII can be.
_ASCII = str.maketrans("●✕■┌├└│─┬┊┄★…×→", "+x?,|`|--:.*.x>")
MOST_CHARACTERS = 48


class Piece(NamedTuple):
    """A text and how it looks, as Rich names that."""

    text: str
    style: str = ""


Cell: TypeAlias = Sequence[Piece]


class Paper:
    """Where rows are printed."""

    def __init__(self) -> None:
        self.console = Console()
        self._ascii = self.console.options.ascii_only

    def shown(self, text: str, most: int = MOST_CHARACTERS) -> str:
        """Return logged text as it can be printed: one line, nothing that commands a terminal, not too long."""
        if len(text) > most:
            text = f"{text[: most - 1]}…"
        if not text.isprintable():
            text = "".join(character if character.isprintable() else "�" for character in text)
        return text

    def row(self, *pieces: Piece) -> None:
        """Print one row, however long it is."""
        if self.console.is_terminal:
            self.console.print(self._styled(pieces), soft_wrap=True)
        else:
            self._echo([pieces])

    def columns(self, rows: Sequence[Sequence[Cell]], right: Iterable[int] = ()) -> None:
        """Print rows whose cells stand below each other; a row of one cell takes no part in that.

        What is beyond the width of a terminal is left out.

        Args:
            rows: the cells of each row.
            right: the columns whose cells stand at the right.
        """
        lengths = [[_length(cell) for cell in row] for row in rows]
        most = max(map(len, rows), default=0)
        widths = [
            max((row[index] for row in lengths if len(row) > max(1, index)), default=0)
            for index in range(most)
        ]
        at_right = set(right)
        lines = [
            row[0] if len(row) == 1 else _aligned(row, found, widths, at_right)
            for row, found in zip(rows, lengths, strict=True)
        ]
        if not self.console.is_terminal:
            self._echo(lines)
            return
        for line in lines:
            self.console.print(self._styled(line), no_wrap=True, overflow="ellipsis")

    def _styled(self, pieces: Sequence[Piece]) -> Text:
        text = Text.assemble(*((self._encodable(piece.text), piece.style) for piece in pieces))
        text.rstrip()
        return text

    def _echo(self, lines: Iterable[Sequence[Piece]]) -> None:
        texts = ("".join(piece.text for piece in line).rstrip() for line in lines)
        typer.echo(self._encodable("\n".join(texts)))

    def _encodable(self, text: str) -> str:
        if not self._ascii:
            return text
        return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def _length(cell: Cell) -> int:
    return sum(cell_len(piece.text) for piece in cell)


def _aligned(
    row: Sequence[Cell], lengths: Sequence[int], widths: Sequence[int], at_right: Container[int]
) -> list[Piece]:
    """Return the pieces of a row, each cell as wide as its column; a column without anything is left out."""
    pieces: list[Piece] = []
    for index, cell in enumerate(row):
        if widths[index]:
            space = Piece(" " * (widths[index] - lengths[index]))
            pieces += [space, *cell] if index in at_right else [*cell, space]
            pieces.append(Piece("  "))
    return pieces
