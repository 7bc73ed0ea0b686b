"""Genealogies for other tools: the ALife phylogeny standard, NetworkX, GraphViz."""

from __future__ import annotations

import csv
import json
import re
from itertools import pairwise

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.evolution import Evolution, ModificationTree, to_alife_csv, to_dot, to_node_link
from tests.evolution.trees import Logged, grown, logs, tree_of


def phylogeny(lineage: ModificationTree) -> list[dict[str, str]]:
    """Return the rows of the exported phylogeny."""
    return list(csv.DictReader(to_alife_csv(lineage)))


def drawn() -> ModificationTree:
    """Return a small tree with a crossover and a parent that never came."""
    return tree_of(
        {"id": "a", "accepted": True, "score": 1.5, "type": "widen", "target": "n1"},
        {"id": "b", "parent_id": "a", "accepted": False, "score": float("nan")},
        {"id": 'c "quoted", \\ and\nbroken', "parent_ids": ["a", "b", "never"]},
    )


def test_a_phylogeny_as_the_standard_has_it() -> None:
    """Whole numbers as ids, lists of ancestors, the step as the time of origin, our id as the label."""
    assert list(to_alife_csv(drawn())) == [
        "id,ancestor_list,origin_time,taxon_label,type,accepted,score,target\n",
        "0,[none],1,a,widen,True,1.5,n1\n",
        "1,[0],2,b,,False,NaN,\n",
        '2,"[0,1]",3,"c ""quoted"", \\ and\nbroken",,,,\n',
    ]


def test_a_phylogeny_of_networks_has_births_and_last_generations() -> None:
    """One row per network, those that were never registered too."""
    records = [
        ("network", {"network_id": "a", "network_type": "tasker", "parent_ids": [], "generation": 0}),
        ("population", {"generation": 0, "fitness_scores": {"a": 1.0}}),
        ("population", {"generation": 1, "fitness_scores": {"a": 1.5, "b": "NaN"}}),
        ("network", {"network_id": "c", "network_type": "builder", "parent_ids": ["a", "b"]}),
    ]
    envelopes = [
        Envelope(kind, {"seq": n, "ts": n}, {"run_id": "r", **p}) for n, (kind, p) in enumerate(records, 1)
    ]
    assert list(to_alife_csv(Evolution().read(envelopes).networks)) == [
        "id,ancestor_list,origin_time,taxon_label,network_type,fitness,last_generation\n",
        "0,[none],0,a,tasker,1.5,1\n",
        "1,[none],1,b,,,1\n",
        '2,"[0,1]",,c,builder,,\n',
    ]


@given(logs())
def test_a_phylogeny_reads_back_as_the_same_lines(logged: list[Logged]) -> None:
    """Every ancestor is a row above, whatever was logged: the known parents without those that close a cycle."""
    tree = grown(logged)
    rows = phylogeny(tree)
    assert [int(row["id"]) for row in rows] == list(range(len(tree)))
    assert sorted(row["taxon_label"] for row in rows) == sorted(tree)
    for row in rows:
        ancestors = [] if row["ancestor_list"] == "[none]" else json.loads(row["ancestor_list"])
        assert all(0 <= ancestor < int(row["id"]) for ancestor in ancestors)
        assert [rows[ancestor]["taxon_label"] for ancestor in ancestors] == tree.known_parents(
            row["taxon_label"]
        )


@given(logs())
def test_networkx_reads_the_graph_as_it_was_logged(logged: list[Logged]) -> None:
    """All nodes with what they are, all links, cycles and parents that never came too; through strict JSON."""
    tree = grown(logged)
    text = json.dumps(to_node_link(tree), allow_nan=False)
    graph = nx.node_link_graph(json.loads(text), edges="edges")
    assert [name for name, told in graph.nodes(data="logged") if told] == list(tree)
    assert set(graph.edges) == {
        (parent, name) for name in tree for parent in tree[name].modification.parent_ids
    }
    for name in tree:
        node = tree[name]
        told = graph.nodes[name]
        assert (told["type"], told["accepted"], told["target"], told["step"]) == (
            node.modification.type, node.modification.accepted, node.modification.target, node.step,
        )  # fmt: skip
        for ancestor in tree.ancestors(name):
            assert nx.has_path(graph, ancestor, name)


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_dot_quotes_whatever_an_id_is_made_of(names: list[str]) -> None:
    """Each text is one quoted string, in which nothing ends it early, and different ids stay different."""
    items = [{"id": names[0]}, *({"id": name, "parent_id": above} for above, name in pairwise(names))]
    text = "".join(to_dot(tree_of(*items)))
    string = r'"(?:[^"\\\n]|\\.)*"'
    statement = rf"  (?:node \[[^\n]*\]|{string}(?: -> {string})?(?: \[label={string}[^\"\n]*\])?);\n"
    assert re.fullmatch(rf"digraph {{\n(?:{statement})*}}\n", text)
    assert len(set(re.findall(rf"^  ({string}) \[", text, re.MULTILINE))) == len(names)


def test_dot_shows_what_was_accepted() -> None:
    """Green, red and dashed, grey; dotted where a parent never came."""
    lines = list(to_dot(drawn()))
    assert lines[2:6] == [
        '  "a" [label="a\\nwiden\\n1.5", color=forestgreen];\n',
        '  "b" [label="b\\nNaN", color=firebrick, style=dashed];\n',
        '  "c \\"quoted\\", \\\\ and\\nbroken" [label="c \\"quoted\\", \\\\ and\\nbroken", color=gray40];\n',
        '  "never" [style=dotted];\n',
    ]
    assert lines[6] == '  "a" -> "b";\n'
