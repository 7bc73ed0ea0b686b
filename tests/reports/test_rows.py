"""A tree as rows of text."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.reports.forest import NOWHERE, Forest, forest_of
from lezea_mlops.reports.rows import LONG_RUN, SIGNS, Drawing
from tests.reports.growing import chain, logged_trees, modification, tree_of

Trees = list[list[dict[str, Any]]]


def forest(*logged: dict[str, Any]) -> Forest:
    """Return the forest of one logged tree."""
    return forest_of(tree_of(logged))


def drawn(forest: Forest, favoured: str | None = None, **options: Any) -> list[str]:
    """Return the rows as they are read."""
    place = NOWHERE if favoured is None else forest.place[favoured]
    return [
        f"{row.lines} {len(row.places)} more"
        if row.is_bundle
        else f"{row.lines}{SIGNS[forest.accepted[row.places[0]]]} {forest.ids[row.places[0]]}"
        + (f" +{row.below}" if row.below else "")
        for row in Drawing(forest, place, **options).rows()
    ]


@given(logged_trees(), st.booleans(), st.integers(0, 29))
def test_every_modification_stands_in_exactly_one_row(logged: Trees, collapse: bool, best: int) -> None:
    """Alone, or with others in one row."""
    grown = forest_of(tree_of(*logged))
    rows = list(Drawing(grown, best % len(grown), collapse=collapse).rows())
    assert sorted(place for row in rows for place in row.places) == list(range(len(grown)))
    assert collapse or not any(row.is_bundle for row in rows)


@given(logged_trees(), st.integers(1, 4))
def test_what_is_too_deep_is_counted(logged: Trees, depth: int) -> None:
    """At the row below which it would be."""
    grown = forest_of(tree_of(*logged))
    rows = list(Drawing(grown, depth=depth).rows())
    assert sum(len(row.places) + row.below for row in rows) == len(grown)
    assert all(len(grown.line(place)) <= depth for row in rows for place in row.places)


def test_a_line_goes_straight_down_and_branches_are_indented() -> None:
    """Side branches stand before the child that continues the line."""
    grown = forest(
        modification("a"),
        modification("b", "a", accepted=False),
        modification("c", "a"),
        modification("d", "a"),
        modification("e", "d"),
        modification("f", "d", accepted=None),
        modification("g", "c", accepted=False),
        modification("h", "e", accepted=False),
        modification("lone"),
    )
    assert drawn(grown) == [
        "┌● a",
        "├──✕ b",
        "├─┬● c",
        "│ └──✕ g",
        "├● d",
        "├──■ f",
        "├● e",
        "└──✕ h",
        "─● lone",
    ]


def test_the_line_of_the_favoured_goes_straight_down_before_all_others() -> None:
    """However small it is beside them."""
    grown = forest(
        modification("x"),
        modification("a"),
        modification("b", "a"),
        modification("c", "b"),
        modification("d", "a"),
    )
    assert drawn(grown, "d") == ["┌● a", "├─┬● b", "│ └● c", "└● d", "─● x"]


def test_a_thousand_generations_are_a_few_rows() -> None:
    """The ends of the line, and how much is between them; with every row on request."""
    grown = forest(*chain(1_000))
    assert drawn(grown) == ["┌● 0", "├● 1", "├● 2", "┊ 994 more", "├● 997", "├● 998", "└● 999"]
    assert len(drawn(grown, collapse=False)) == 1_000
    assert len(drawn(forest(*chain(LONG_RUN)))) == LONG_RUN


def test_a_long_line_is_not_cut_over_a_crossover() -> None:
    """A modification with several parents has a row of its own."""
    logged = chain(30)
    logged[15]["parent_ids"].append("3")
    assert "├● 15" in drawn(forest(*logged))


def test_many_rejected_children_are_one_row() -> None:
    """After the first of them; accepted ones and those with children have their own."""
    logged = [modification("a"), *(modification(f"r{i}", "a", accepted=False) for i in range(20))]
    grown = forest(*logged, modification("s", "r7"), modification("b", "a"))
    assert drawn(grown) == ["┌● a", "├──✕ r0", "├──✕ r1", "├──✕ r2", "├──● b", "├┄ 16 more", "├✕ r7", "└● s"]


def test_many_rejected_first_ones_are_one_row() -> None:
    """At the end."""
    grown = forest(*(modification(f"r{i}", accepted=False) for i in range(9)), modification("a"))
    assert drawn(grown) == ["─✕ r0", "─✕ r1", "─✕ r2", "─● a", "┄ 6 more"]


def test_one_modification_can_be_drawn_alone_with_what_is_below_it() -> None:
    """Nothing that stands above or beside it."""
    grown = forest(*chain(5), modification("b", 1))
    rows = Drawing(grown).rows(grown.place["3"])
    assert [(row.lines, [grown.ids[place] for place in row.places]) for row in rows] == [
        ("┌", ["3"]),
        ("└", ["4"]),
    ]


def test_indentation_grows_with_the_logarithm_of_the_tree() -> None:
    """However deep it is: a line that branches off holds at most half of what is below its parent."""
    chance = random.Random(4)
    logged = [modification(0)]
    logged += [modification(i, chance.randrange(max(0, i - 5), i), accepted=None) for i in range(1, 3_000)]
    grown = forest(*logged)
    deepest = max(len(grown.line(place)) for place in range(len(grown)))
    most = max(len(row.lines) for row in Drawing(grown, collapse=False).rows())
    assert deepest > 500
    assert most <= 2 * math.log2(3_000) + 3


def test_rows_are_drawn_as_they_are_asked_for() -> None:
    """A tree with a million children of one node, or a hundred thousand generations, is no obstacle."""
    star = forest(modification("a"), *(modification(i, "a", accepted=None) for i in range(50_000)))
    assert next(Drawing(star).rows()).lines == "┌"
    deep = forest(*chain(100_000))
    assert len(drawn(deep, collapse=False)) == 100_000
