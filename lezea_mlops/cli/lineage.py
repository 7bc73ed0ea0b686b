"""``lezea lineage``: the line that led to a network or a modification, from its first ancestor on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from lezea_mlops.cli.genealogies import STYLES, RunArgument, names_shown, number, open_run, unknown
from lezea_mlops.cli.paper import Cell, Paper, Piece
from lezea_mlops.cli.runs import JsonOption, RunsDirOption, counted, error_console, usage_errors
from lezea_mlops.events import encode_json, number_text
from lezea_mlops.evolution import Evolution, Node
from lezea_mlops.reports.rows import SIGNS

MOST_PARAMS = 80
MOST_PARENTS = 3
MOST_SPANS = 3
AT_RIGHT = (1, 2, 3)


def lineage(
    run: RunArgument,
    identity: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Id of a network, or of a modification.")
    ],
    as_json: JsonOption = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Show what led to NETWORK in RUN: its ancestors, and the modifications that made each of them.

    The line follows the first parent. Exit code 2 if nothing has this id.
    """
    with usage_errors(error_console()):
        _, evolution = open_run(run, runs_dir)
        networks, modifications = _networks(evolution, identity), _modifications(evolution, identity)
        if not networks and not modifications:
            known = [*evolution.networks, *evolution.modifications]
            raise unknown(identity, "network or modification", known)
    if as_json:
        typer.echo(encode_json(_as_json(evolution, identity, networks, modifications)))
        return
    paper = Paper()
    if networks:
        _show_networks(paper, evolution, identity, networks)
    if modifications:
        _show_modifications(paper, evolution, identity, modifications)


def _networks(evolution: Evolution, identity: str) -> dict[str, list[Node]]:
    """Return the networks of the line, each with the modifications that made it; none if nothing names the network."""
    path = evolution.path_to(identity)
    if identity not in evolution.networks:
        return {identity: path} if path else {}
    line: dict[str, list[Node]] = {network: [] for network in evolution.networks.lineage(identity)}
    for node in path:
        line[str(node.modification.target)].append(node)
    return line


def _modifications(evolution: Evolution, identity: str) -> list[Node]:
    tree = evolution.modifications
    return [tree[each] for each in tree.lineage(identity)] if identity in tree else []


# ---------------------------------------------------------------------- as rows


def _show_networks(
    paper: Paper, evolution: Evolution, identity: str, line: Mapping[str, Sequence[Node]]
) -> None:
    made = counted(sum(map(len, line.values())), "modification")
    paper.row(Piece(f"{paper.shown(identity)}: {counted(len(line), 'network')} in line, {made}", "bold"))
    headings = ("network", "born", "fitness", "gain", "type", "lived", "")
    rows: list[list[Cell]] = [[[Piece(heading, "dim")] for heading in headings]]
    for network_id, nodes in line.items():
        rows.append(_network_cells(paper, evolution, network_id))
        rows.extend(_modification_cells(paper, evolution, node, "  ") for node in nodes)
    paper.columns(rows, AT_RIGHT)


def _network_cells(paper: Paper, evolution: Evolution, network_id: str) -> list[Cell]:
    networks = evolution.networks
    if network_id not in networks:
        return [
            [Piece(paper.shown(network_id), "bold")],
            [],
            [],
            [],
            [],
            [],
            [Piece("never registered", "yellow")],
        ]
    network, fitness = networks[network_id], networks.fitness(network_id)
    last = next((value for _, value in sorted(fitness.items(), reverse=True) if value is not None), None)
    return [
        [Piece(paper.shown(network_id), "bold")], number(network.generation, "d"), number(last, ".4g"), [],
        [Piece(paper.shown(network.network_type or ""))], [Piece(_spans(networks.generations(network_id)))],
        _further(paper, network.parent_ids),
    ]  # fmt: skip


def _further(paper: Paper, parent_ids: Sequence[str]) -> Cell:
    """Name the parents beside the first, which is the row above."""
    return [
        Piece(
            f"also from {names_shown(paper, parent_ids[1:], MOST_PARENTS)}" if parent_ids[1:] else "", "cyan"
        )
    ]


def _spans(generations: Sequence[int]) -> str:
    """Return ascending numbers as spans, such as ``0–4, 7``; the first and the last ones of many."""
    spans: list[tuple[int, int]] = []
    for generation in generations:
        if spans and generation == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], generation)
        else:
            spans.append((generation, generation))
    texts = [str(first) if first == last else f"{first}–{last}" for first, last in spans]
    return ", ".join(texts if len(texts) <= MOST_SPANS else [*texts[: MOST_SPANS - 1], "…", texts[-1]])


def _show_modifications(paper: Paper, evolution: Evolution, identity: str, nodes: Sequence[Node]) -> None:
    paper.row(Piece(f"{paper.shown(identity)}: {counted(len(nodes), 'modification')} in line", "bold"))
    headings = ("modification", "step", "score", "gain", "type", "target", "")
    rows: list[list[Cell]] = [[[Piece(heading, "dim")] for heading in headings]]
    rows += [_modification_cells(paper, evolution, node, "", node.modification.target) for node in nodes]
    paper.columns(rows, AT_RIGHT)


def _modification_cells(
    paper: Paper, evolution: Evolution, node: Node, indent: str, target: str | None = None
) -> list[Cell]:
    this = node.modification
    params = "" if this.params is None else json.dumps(this.params, ensure_ascii=False)
    further = _further(paper, this.parent_ids)
    return [
        [Piece(indent), Piece(SIGNS[this.accepted] + " ", STYLES[this.accepted]), Piece(paper.shown(this.id))],
        number(node.step, "d"), number(this.score, ".4g"), number(evolution.modifications.gain(this.id), "+.2g"),
        [Piece(paper.shown(this.type or ""))], [Piece(paper.shown(target or ""), "dim")],
        [*further, Piece(" " * any(piece.text for piece in further)), Piece(paper.shown(params, MOST_PARAMS), "dim")],
    ]  # fmt: skip


# ---------------------------------------------------------------------- for programs


def _as_json(
    evolution: Evolution, identity: str, line: Mapping[str, Sequence[Node]], nodes: Sequence[Node]
) -> dict[str, Any]:
    return {
        "id": identity,
        "networks": [
            _network_facts(evolution, network) | {"modifications": [_facts(evolution, node) for node in made]}
            for network, made in line.items()
        ],
        "modifications": [_facts(evolution, node) for node in nodes],
    }


def _network_facts(evolution: Evolution, network_id: str) -> dict[str, Any]:
    networks = evolution.networks
    if network_id not in networks:
        return {"network_id": network_id}
    network = networks[network_id]
    return {
        "network_id": network_id, "network_type": network.network_type, "parent_ids": list(network.parent_ids),
        "generation": network.generation,
        "fitness": {str(generation): value for generation, value in sorted(networks.fitness(network_id).items())},
    }  # fmt: skip


def _facts(evolution: Evolution, node: Node) -> dict[str, Any]:
    this = node.modification
    return {
        "id": this.id, "parent_ids": list(this.parent_ids), "type": this.type, "accepted": this.accepted,
        "score": number_text(this.score) if isinstance(this.score, float) else this.score,
        "gain": evolution.modifications.gain(this.id), "target": this.target, "params": this.params,
        "step": node.step, "scope": node.scope, "ts": node.ts, "data": dict(this.data),
    }  # fmt: skip
