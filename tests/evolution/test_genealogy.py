"""Lines, ancestors and cycles, beside a plain model of the same graph that needs no care for size."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given

from lezea_mlops.evolution import ModificationTree
from tests.evolution.trees import Logged, grown, logs, tree_of


def graph_of(tree: ModificationTree) -> nx.DiGraph:
    """Return the known nodes as networkx holds them, parents to children."""
    graph = nx.DiGraph()
    graph.add_nodes_from(tree)
    graph.add_edges_from((p, name) for name in tree for p in tree[name].modification.parent_ids if p in tree)
    return graph


@given(logs())
def test_ancestors_and_descendants_are_those_of_networkx(logged: list[Logged]) -> None:
    """Of any graph, with cycles, and in logged order."""
    tree = grown(logged)
    graph, place = graph_of(tree), list(tree).index
    for name in tree:
        assert tree.ancestors(name) == sorted(nx.ancestors(graph, name), key=place)
        assert tree.descendants(name) == sorted(nx.descendants(graph, name), key=place)
        assert tree.children(name) == sorted(graph.successors(name), key=place)
    assert tree.roots() == [name for name in tree if not graph.in_degree(name)]


@given(logs())
def test_a_lineage_follows_first_parents_until_there_is_none_that_is_new(logged: list[Logged]) -> None:
    """Each is the first parent of the next, and what ends the line is told by the problems."""
    tree = grown(logged)
    for name in tree:
        line = tree.lineage(name)
        assert line[-1] == name
        assert len(set(line)) == len(line)
        for parent, child in pairwise(line):
            assert tree[child].modification.parent_ids[0] == parent
        above = tree[line[0]].modification.parent_ids[:1]
        assert all(parent in line or parent not in tree for parent in above)


@given(logs())
def test_the_nearest_common_ancestor_is_fewest_generations_away(logged: list[Logged]) -> None:
    """No other node is an ancestor of both at a smaller distance, and of the equally near the newest is taken."""
    tree = grown(logged)
    distance = dict(nx.all_pairs_shortest_path_length(graph_of(tree)))
    place = list(tree).index
    for one in tree:
        for other in tree:
            common = [
                (distance[n][one] + distance[n][other], -place(n), n)
                for n in tree
                if one in distance[n] and other in distance[n]
            ]
            assert tree.common_ancestor(one, other) == (min(common)[2] if common else None)


@given(logs())
def test_cycles_are_told_and_opened_where_a_parent_was_logged_late(logged: list[Logged]) -> None:
    """What remains has an order, in which no node stands before its parents, and depth counts along it."""
    tree = grown(logged)
    graph, place = graph_of(tree), list(tree).index
    tangles = [
        sorted(group, key=place)
        for group in nx.strongly_connected_components(graph)
        if len(group) > 1 or any(graph.has_edge(name, name) for name in group)
    ]
    told = [problem.id for problem in tree.problems() if problem.kind == "cycle"]
    assert told == sorted((group[0] for group in tangles), key=place)
    group_of = {name: number for number, group in enumerate(tangles) for name in group}
    cut = [
        (p, n)
        for p, n in graph.edges
        if p in group_of and group_of[p] == group_of.get(n) and place(p) >= place(n)
    ]
    graph.remove_edges_from(cut)
    order = list(tree.parents_first())
    assert sorted(order) == sorted(tree)
    for name in tree:
        above = list(graph.predecessors(name))
        assert sorted(tree.known_parents(name)) == sorted(above)
        assert all(order.index(parent) < order.index(name) for parent in above)
        assert tree.depth(name) == 1 + max((tree.depth(parent) for parent in above), default=0)


@given(logs())
def test_a_parent_that_never_came_is_told_once(logged: list[Logged]) -> None:
    """By its id, however many name it, and it is no node."""
    tree = grown(logged)
    missing = {p for name in tree for p in tree[name].modification.parent_ids} - set(tree)
    assert sorted(p.id for p in tree.problems() if p.kind == "unknown_parent") == sorted(missing)
    assert not any(name in tree for name in missing)


def test_what_was_never_logged_is_a_key_error_that_says_so() -> None:
    """Also of a parent that was only named."""
    tree = tree_of({"id": "a", "parent_id": "x"})
    assert "x" not in tree
    for ask in (tree.lineage, tree.ancestors, tree.descendants, tree.children, tree.depth, tree.gain):
        with pytest.raises(KeyError, match="'x' was logged"):
            ask("x")
