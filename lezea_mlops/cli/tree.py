"""``lezea tree``: the modifications of a run as a tree, in the terminal, as a page, or for other programs."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from lezea_mlops.cli.genealogies import (
    STYLES,
    RunArgument,
    names_shown,
    number,
    open_run,
    print_problems,
    unknown,
)
from lezea_mlops.cli.paper import Cell, Paper, Piece
from lezea_mlops.cli.runs import JsonOption, RunsDirOption, error_console, usage_errors
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.events import encode_json
from lezea_mlops.evolution import Evolution, ModificationTree
from lezea_mlops.journal import RunFolder
from lezea_mlops.reports.forest import NOWHERE, Forest, forest_of
from lezea_mlops.reports.rows import SIGNS, Drawing, Row
from lezea_mlops.reports.words import summary, verdicts

LIMIT = 200
# Without a limit so many rows share the widths of their columns.
BLOCK = 10_000
MOST_PARENTS = 3
HEADINGS = ("modification", "step", "score", "gain", "type", "target")
AT_RIGHT = (1, 2, 3)


def tree(
    run: RunArgument,
    step: Annotated[int | None, typer.Option(help="Only what was logged at this step.")] = None,
    accepted: Annotated[bool, typer.Option("--accepted", help="Only what was accepted.")] = False,
    depth: Annotated[
        int | None, typer.Option(min=1, help="So many generations from the first ones on.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Only this modification and what is below it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Draw so many rows.")] = LIMIT,
    full: Annotated[bool, typer.Option("--full", help="Draw a row for each modification.")] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a phylogeny in the ALife standard.")] = False,
    as_dot: Annotated[bool, typer.Option("--dot", help="Print a graph for GraphViz.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an interactive page, for any browser.")
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Draw the modification tree of RUN, which may be going on: oldest first, lines of descent straight down.

    Long lines and many rejected ones are drawn as one row. --json, --csv, --dot and --html have the whole tree.
    """
    forms = {"--json": as_json, "--csv": as_csv, "--dot": as_dot, "--html": html is not None}
    parts = {
        "--step": step is not None,
        "--accepted": accepted,
        "--depth": depth is not None,
        "--from": start,
    }
    with usage_errors(error_console()):
        _check(forms, parts)
        folder, evolution = open_run(run, runs_dir)
        if html is not None:
            _write_page(evolution, folder, html)
        elif any(forms.values()):
            _export(evolution.modifications, as_json, as_csv)
        else:
            drawn = _drawn(evolution.modifications, step, accepted)
            if start is not None and start not in drawn.place:
                raise _not_drawn(start, evolution.modifications)
            _draw(evolution, drawn, start, depth, None if full else limit)


def _check(forms: Mapping[str, bool], parts: Mapping[str, object]) -> None:
    chosen = [name for name, given in forms.items() if given]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} are different forms; give one of them")
    cut = [name for name, given in parts.items() if given]
    if chosen and cut:
        raise ConfigurationError(f"{chosen[0]} has the whole tree; {cut[0]} is for drawing in the terminal")


# ---------------------------------------------------------------------- what is drawn


def _drawn(modifications: ModificationTree, step: int | None, accepted: bool) -> Forest:
    def wanted(_: str, logged_at: int | None, verdict: bool | None) -> bool:
        return step in (None, logged_at) and (verdict is True or not accepted)

    forest = forest_of(modifications, wanted if accepted or step is not None else None)
    if len(modifications) and not len(forest):
        raise ConfigurationError(_nothing(modifications, step, accepted))
    return forest


def _nothing(modifications: ModificationTree, step: int | None, accepted: bool) -> str:
    if step is None:
        return "no modification was accepted; leave --accepted out to see the others"
    steps = {step for step, _, _ in modifications.verdicts() if step is not None}
    if step in steps:
        return f"no modification of step {step} was accepted; leave --accepted out to see the others"
    known = f"steps {min(steps)} to {max(steps)} have some" if steps else "none has a step"
    return f"no modification was logged at step {step}; {known}"


def _not_drawn(start: str, modifications: ModificationTree) -> ConfigurationError:
    if start in modifications:
        return ConfigurationError(
            f"{start!r} is left out by --step or --accepted; leave them out to begin there"
        )
    return unknown(start, "modification", list(modifications))


# ---------------------------------------------------------------------- in the terminal


def _draw(
    evolution: Evolution, forest: Forest, start: str | None, depth: int | None, limit: int | None
) -> None:
    paper, modifications = Paper(), evolution.modifications
    paper.row(Piece(paper.shown(summary(modifications, forest.counts), 300), "bold"))
    if not len(forest):
        return
    paper.row(*_LEGEND)
    best = modifications.best()
    favoured = forest.place.get(best, NOWHERE) if best is not None else NOWHERE
    first = None if start is None else forest.place[start]
    drawing = Drawing(forest, favoured, depth=depth, collapse=limit is not None)
    sketch = _Sketch(paper, forest, favoured)
    rows = drawing.rows(first)
    while block := list(itertools.islice(rows, limit or BLOCK)):
        paper.columns([*sketch.headings(), *map(sketch.cells, block)], AT_RIGHT)
        if limit is not None:
            break
    _tell_rest(
        paper, sketch, len(forest) if first is None else forest.sizes()[first], next(rows, None) is not None
    )
    print_problems(paper, evolution.problems())


_WORDS = {True: " accepted   ", False: " rejected   ", None: " undecided   "}
_LEGEND = [
    *(piece for each, word in _WORDS.items() for piece in (Piece(SIGNS[each], STYLES[each]), Piece(word))),
    Piece("★", "yellow"),
    Piece(" champion"),
]


class _Sketch:
    """Turns rows of a drawing into cells.

    Attributes:
        drawn: how many modifications have a row of their own.
        bundled: how many stand with others in one row.
    """

    def __init__(self, paper: Paper, forest: Forest, favoured: int) -> None:
        self._paper = paper
        self._forest = forest
        self._best = favoured
        self._line = set(forest.line(favoured))
        self._survivors = {forest.place[each] for each in forest.tree.survivors() if each in forest.place}
        self._has_headings = False
        self.drawn = self.bundled = 0

    def headings(self) -> list[list[Cell]]:
        """Return the headings the first time."""
        if self._has_headings:
            return []
        self._has_headings = True
        return [[[Piece(heading, "dim")] for heading in HEADINGS]]

    def cells(self, row: Row) -> list[Cell]:
        """Return the cells of a row; a single one where it stands for several modifications."""
        if row.is_bundle:
            return [self._bundle(row)]
        self.drawn += 1
        [place] = row.places
        node = self._forest.node(place)
        this = node.modification
        name = Piece(self._paper.shown(this.id), "bold" if place in self._line else "")
        star = Piece(" ★" if place == self._best else "", "yellow")
        marks = ["survivor"] * (place in self._survivors) + self._parents(place)
        marks += [f"{row.below:,} below"] * bool(row.below)
        return [
            [Piece(row.lines, "dim"), Piece(SIGNS[this.accepted] + " ", STYLES[this.accepted]), name, star],
            number(node.step, "d"), number(this.score, ".4g"), number(self._forest.tree.gain(this.id), "+.2g"),
            [Piece(self._paper.shown(this.type or ""))], [Piece(self._paper.shown(this.target or ""), "dim")],
            [Piece(", ".join(marks), "cyan")],
        ]  # fmt: skip

    def _bundle(self, row: Row) -> Cell:
        self.bundled += len(row.places)
        counts = Counter(self._forest.accepted[place] for place in row.places)
        ends = [self._paper.shown(self._forest.ids[place]) for place in (row.places[0], row.places[-1])]
        said = f"  {len(row.places):,} more, {' to '.join(ends)}: {verdicts(counts)}"
        return [Piece(row.lines, "dim"), Piece(said, "dim")]

    def _parents(self, place: int) -> list[str]:
        """Name the parents that the lines do not lead to."""
        elsewhere = self._forest.parents_elsewhere(place)
        if not elsewhere:
            return []
        known = [each if each in self._forest.tree else f"{each} (unknown)" for each in elsewhere]
        above = self._forest.parent[place]
        also = above >= 0 and len(elsewhere) < len(self._forest.tree.parents(self._forest.ids[place]))
        return [f"{'also on' if also else 'on'} {names_shown(self._paper, known, MOST_PARENTS)}"]


def _tell_rest(paper: Paper, sketch: _Sketch, whole: int, is_cut: bool) -> None:
    missing = whole - sketch.drawn - sketch.bundled
    if is_cut:
        paper.row(
            Piece(f"{missing:,} of {whole:,} modifications are not in these rows; ", "bold"),
            Piece("--limit 1000 draws more, --full all; --accepted, --step, --depth and --from draw a part"),
        )
    elif sketch.bundled:
        paper.row(Piece("--full draws a row for each modification", "dim"))


# ---------------------------------------------------------------------- for others


def _write_page(evolution: Evolution, folder: RunFolder, file: Path) -> None:
    from lezea_mlops.reports.tree_page import title_of, tree_page

    page = tree_page(evolution, title_of(folder))
    try:
        file.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html is {str(file)!r}, which cannot be written: {error}") from error
    typer.echo(f"{file.absolute()} is written; open it in a browser")


def _export(modifications: ModificationTree, as_json: bool, as_csv: bool) -> None:
    from lezea_mlops.evolution.export import to_alife_csv, to_dot, to_node_link

    if as_json:
        typer.echo(encode_json(to_node_link(modifications)))
    else:
        sys.stdout.writelines(to_alife_csv(modifications) if as_csv else to_dot(modifications))
        # A reader that is gone is noticed here, and not when the interpreter ends.
        sys.stdout.flush()
