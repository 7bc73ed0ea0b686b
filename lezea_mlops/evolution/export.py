"""Genealogies in the formats of other tools: the ALife phylogeny standard, NetworkX, GraphViz.

All three take modifications or networks, and keep our ids as labels. Where lines come back, ``file.writelines`` writes
them one by one, so that a million need not stand in memory as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from lezea_mlops.events import number_text
from lezea_mlops.evolution.networks import NetworkLineage
from lezea_mlops.evolution.tree import ModificationTree

_COLOUR_OF = {True: "forestgreen", False: "firebrick", None: "gray40"}


def to_alife_csv(lineage: ModificationTree | NetworkLineage) -> Iterator[str]:
    """Yield the lines of a phylogeny in the ALife data standard, parents before their children.

    ``id`` numbers the lines from 0, ``ancestor_list`` names all parents (``[none]`` for a root), ``origin_time`` is the
    step of a modification or the generation in which a network was born, ``taxon_label`` is our id. The standard has
    no place for a parent that never came, nor for a cycle: the first is left out, and of the second the links whose
    parent was logged after its child.
    """
    numbers: dict[str, int] = {}
    yield _row(["id", "ancestor_list", "origin_time", "taxon_label", *_attribute_names(lineage)])
    for number, name in enumerate(lineage.parents_first()):
        numbers[name] = number
        parents = ",".join(str(numbers[parent]) for parent in lineage.known_parents(name))
        attributes = _attributes(lineage, name)
        born = attributes.pop("step" if isinstance(lineage, ModificationTree) else "generation")
        yield _row([number, f"[{parents or 'none'}]", born, name, *attributes.values()])


def _attribute_names(lineage: ModificationTree | NetworkLineage) -> Sequence[str]:
    if isinstance(lineage, ModificationTree):
        return ("type", "accepted", "score", "target")
    return ("network_type", "fitness", "last_generation")


def _attributes(lineage: ModificationTree | NetworkLineage, name: str) -> dict[str, Any]:
    """Return what is exported of a node beside its id and parents."""
    if isinstance(lineage, ModificationTree):
        modification, step, _, _ = lineage[name]
        score = None if modification.score is None else number_text(modification.score)
        return {
            "step": step, "type": modification.type, "accepted": modification.accepted, "score": score,
            "target": modification.target,
        }  # fmt: skip
    network, fitness = lineage[name], lineage.fitness(name)
    last = max(fitness, default=None)
    return {
        "generation": network.generation, "network_type": network.network_type,
        "fitness": None if last is None else fitness[last], "last_generation": last,
    }  # fmt: skip


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def to_node_link(lineage: ModificationTree | NetworkLineage) -> dict[str, Any]:
    """Return the graph as JSON that ``networkx.node_link_graph(…, edges="edges")`` reads, parents to children.

    Every node that was logged is there with its attributes, in logged order, cycles too; a parent that never came is a
    node with ``logged`` false. Numbers that are not finite are texts.
    """
    nodes, edges, missing = [], [], dict[str, None]()
    for name in lineage:
        nodes.append({"id": name, "logged": True, **_attributes(lineage, name)})
        for parent in lineage.parents(name):
            edges.append({"source": parent, "target": name})
            if parent not in lineage:
                missing[parent] = None
    nodes += [{"id": name, "logged": False} for name in missing]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}


def to_dot(lineage: ModificationTree | NetworkLineage) -> Iterator[str]:
    """Yield the lines of the graph for GraphViz, parents above their children.

    Accepted modifications are green, rejected ones red and dashed; a parent that never came is dotted.
    """
    yield "digraph {\n"
    yield "  node [shape=box, fontname=sans];\n"
    missing = dict[str, None]()
    for name in lineage:
        yield f"  {_quoted(name)} [{_appearance(lineage, name)}];\n"
        missing.update((parent, None) for parent in lineage.parents(name) if parent not in lineage)
    for name in missing:
        yield f"  {_quoted(name)} [style=dotted];\n"
    for name in lineage:
        for parent in lineage.parents(name):
            yield f"  {_quoted(parent)} -> {_quoted(name)};\n"
    yield "}\n"


def _appearance(lineage: ModificationTree | NetworkLineage, name: str) -> str:
    attributes = _attributes(lineage, name)
    if isinstance(lineage, ModificationTree):
        told = [attributes["type"], attributes["score"]]
        accepted = attributes["accepted"]
        look = f", color={_COLOUR_OF[accepted]}" + (", style=dashed" if accepted is False else "")
    else:
        told, look = [attributes["network_type"], attributes["fitness"]], ""
    label = "\n".join([name, *(str(each) for each in told if each is not None)])
    return f"label={_quoted(label)}{look}"


def _quoted(text: str) -> str:
    """Return *text* as a quoted string of DOT, in which a backslash would begin an escape of a label."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "\\0")
    return f'"{escaped}"'
