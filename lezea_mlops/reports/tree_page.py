"""The modification tree of a run as one page that needs nothing else: no network, no file beside it.

What was logged is data in the page and never markup or script: it stands in a JSON block without a ``<``, the page's
script sets it as text only, and the page's own policy forbids every other script and every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lezea_mlops.events import ModificationTreeLogged, RunStarted
from lezea_mlops.evolution import Evolution, ModificationTree
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.reports.forest import Forest, Keep, forest_of
from lezea_mlops.reports.tree_data import tree_data
from lezea_mlops.reports.words import summary
from lezea_mlops.runtime.evolution import read_evolution
from lezea_mlops.runtime.finishers import Made, holds_events

# A browser draws so many at once and stays quick. Of larger trees the page shows a part, and says so.
MAX_NODES = 20_000
# Of a tree that is shown in part, this share is for the newest accepted modifications; the rest for the newest of all.
ACCEPTED_SHARE = 0.75
MAX_PROBLEMS = 50

_PARTS = Path(__file__).with_name("page")
_SCRIPTS = ("layout.js", "view.js", "page.js")


def make(folder: RunFolder) -> list[Made]:
    """Make the page of a run that has ended; nothing where it logged no modifications. This is a finisher."""
    if not holds_events(folder, (ModificationTreeLogged.type,)):
        return []
    evolution = read_evolution(folder.path)
    if not len(evolution.modifications):
        return []
    page = tree_page(evolution, title_of(folder))
    return [Made("evolution/tree.html", page.encode(), "modification tree")]


def tree_page(evolution: Evolution, title: str, *, max_nodes: int = MAX_NODES) -> str:
    """Return the page of a run's modification tree as HTML; the same evolution gives the same page.

    Args:
        evolution: modifications and networks of the run.
        title: what stands above the tree.
        max_nodes: so many modifications are drawn; of a larger tree the line of the best, accepted ones and the newest.
    """
    tree = evolution.modifications
    forest = forest_of(tree, None if len(tree) <= max_nodes else _most_telling(tree, max_nodes))
    statistics = tree.statistics()
    script = '"use strict";\n' + "\n".join(_part(name) for name in _SCRIPTS)
    style = _part("page.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _part("page.html").format(
        policy=policy, title=_escaped(title), summary=_escaped(_said_of(forest, statistics)),
        notices=_notices(evolution, forest), style=style, script=script, data=tree_data(forest, statistics),
    )  # fmt: skip


def title_of(folder: RunFolder) -> str:
    """Return what a page of this run is called: its experiment's name, and its id."""
    began = next((record for record in read_run(folder.path) if record.type == RunStarted.type), None)
    name = None if began is None else began.payload.get("experiment_name")
    return f"{name}, run {folder.run_id}" if isinstance(name, str) else f"Run {folder.run_id}"


def _part(name: str) -> str:
    return (_PARTS / name).read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _escaped(text: str) -> str:
    """Return a text as markup; the name of a folder may hold what cannot be encoded."""
    return html.escape(text.encode("utf-8", "replace").decode())


def _most_telling(tree: ModificationTree, max_nodes: int) -> Keep:
    """Return which modifications of a large tree are drawn."""
    best = tree.best()
    kept = set([] if best is None else tree.lineage(best)[-max_nodes:])
    verdicts = list(zip(tree, (accepted for _, _, accepted in tree.verdicts()), strict=True))
    for identity, accepted in reversed(verdicts):
        if len(kept) >= max_nodes * ACCEPTED_SHARE:
            break
        if accepted:
            kept.add(identity)
    for identity, _ in reversed(verdicts):
        if len(kept) >= max_nodes:
            break
        kept.add(identity)
    return lambda identity, step, accepted: identity in kept


def _said_of(forest: Forest, statistics: Mapping[str, Any]) -> str:
    said = summary(forest.tree, forest.counts)
    if statistics["count"]:
        said += f"; {statistics['roots']:,} without a parent, {statistics['depth']:,} generations deep"
    return said


def _notices(evolution: Evolution, forest: Forest) -> str:
    whole, found = len(forest.tree), []
    if len(forest) < whole:
        found.append(
            f'<p class="notice">{len(forest):,} of {whole:,} modifications are drawn: the line of the champion, the '
            "newest accepted ones, and the newest of all. What hangs on one that is not drawn is drawn at its nearest "
            "ancestor. The table counts all.</p>"
        )
    if problems := evolution.problems():
        items = "".join(f"<li>{_escaped(problem.text)}</li>" for problem in problems[:MAX_PROBLEMS])
        more = f"<li>and {len(problems) - MAX_PROBLEMS:,} more</li>" if len(problems) > MAX_PROBLEMS else ""
        said = "1 thing is" if len(problems) == 1 else f"{len(problems):,} things are"
        found.append(
            f'<details class="notice"><summary>{said} not as logged trees should be</summary>'
            f"<ul>{items}{more}</ul></details>"
        )
    return "".join(found)
