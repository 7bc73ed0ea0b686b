"""The page of a modification tree, as text: what is in it, and what can never be."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from lezea_mlops.evolution import Evolution
from lezea_mlops.journal import RunFolder
from lezea_mlops.reports.tree_data import MAX_TEXT
from lezea_mlops.reports.tree_page import MAX_NODES, make, tree_page
from lezea_mlops.tracker import ExperimentTracker
from tests.reports.growing import HOSTILE, chain, evolution_of, hostile_evolution, logged_trees, modification


class Parsed(HTMLParser):
    """The tags of a page, and the text inside each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


def data_of(page: str) -> dict[str, Any]:
    """Return the data of a page, as its script reads them."""
    found: dict[str, Any] = json.loads(Parsed(page).texts["script"][0])
    return found


def text(data: dict[str, Any], column: str, place: int) -> str | None:
    """Return the text that a column names."""
    number = data[column][place]
    return None if number < 0 else data["texts"][number]


@settings(max_examples=40)
@given(logged_trees())
def test_the_data_are_those_that_were_logged(logged: list[list[dict[str, Any]]]) -> None:
    """Ids, verdicts, scores, types, steps, and every parent, drawn or not."""
    evolution = evolution_of(*logged)
    tree, data = evolution.modifications, data_of(tree_page(evolution, "T"))
    others, unshown = dict(data["others"]), dict(data["unshown"])
    assert sorted(data["id"]) == sorted(tree)
    for place, name in enumerate(data["id"]):
        node, above = tree[name], data["parent"][place]
        this = node.modification
        assert data["verdict"][place] == {True: "a", False: "r", None: "u"}[this.accepted]
        assert (data["score"][place], data["gain"][place], data["step"][place]) == (
            this.score,
            tree.gain(name),
            node.step,
        )
        assert text(data, "type", place) == this.type
        drawn = ([] if above < 0 else [above]) + others.get(place, [])
        assert sorted([data["id"][each] for each in drawn] + unshown.get(place, [])) == sorted(
            this.parent_ids
        )
    best = tree.best()
    assert data["best"] == (-1 if best is None else data["id"].index(best))
    assert {data["id"][place] for place in data["survivors"]} == set(tree.survivors())


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_what_was_logged_never_becomes_markup_or_script(words: str) -> None:
    """Id, parents, type, target, params, scope and title: the page has the same tags, and the words as text."""
    page = tree_page(hostile_evolution(words), words)
    harmless = Parsed(tree_page(hostile_evolution("harmless"), "harmless"))
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in harmless.tags]
    assert parsed.texts["script"][1] == harmless.texts["script"][1]
    # Browsers end a script in more ways than the parser here knows.
    assert not set(parsed.texts["script"][0]) & set("<>&")
    data = data_of(page)
    assert data["id"] == [words]
    assert text(data, "type", 0) == words
    assert json.loads(text(data, "params", 0) or "") == {words: [words]}
    assert text(data, "scope", 0) == f"builder:{words}"


def test_a_folder_whose_name_is_no_text_gets_a_page() -> None:
    """File systems allow names that UTF-8 does not."""
    assert Parsed(tree_page(Evolution(), "run \udcff").encode().decode()).texts["title"] == ["run ?"]


def test_nothing_is_fetched() -> None:
    """No address, no file beside it; and the page forbids itself every request and every other script."""
    page = tree_page(evolution_of(chain(3)), "T")
    assert not re.search(
        r"[a-z]:?//\w|url\(|@import|<link|\bsrc=|href=|fetch\(|XMLHttp|import\(|eval\(", page
    )
    parsed = Parsed(page)
    [policy] = [str(tag["content"]) for _, tag in parsed.tags if "http-equiv" in tag]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for kind, content in (("script", parsed.texts["script"][1]), ("style", parsed.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}
    assert "default-src" in rules


def test_the_same_evolution_gives_the_same_page() -> None:
    """To the byte, so that a page that is made again is the same file."""
    logged = [*chain(20, score=0.5, params={"units": 3}), modification("x", 3, 4, accepted=False)]
    assert tree_page(evolution_of(logged), "T") == tree_page(evolution_of(logged), "T")


def test_a_large_tree_is_shown_in_part_and_the_page_says_so() -> None:
    """The line of the champion from its first ancestor, accepted ones, and the newest; never more than the limit."""
    logged = chain(40, score=0.1, accepted=None)
    logged[30] |= {"score": 0.9, "accepted": True}
    logged += [modification(f"old{i}", accepted=False) for i in range(400)]
    logged += [modification(f"new{i}", f"old{i}", accepted=False) for i in range(60)]
    evolution = evolution_of(logged)
    page = tree_page(evolution, "T", max_nodes=100)
    data = data_of(page)
    assert len(data["id"]) == 100
    assert set(map(str, range(31))) <= set(data["id"])
    assert "new59" in data["id"]
    assert "100 of 500 modifications are drawn" in page
    assert dict(data["unshown"])[data["id"].index("new59")] == ["old59"]
    assert sum(row["proposed"] for row in data["types"]) == 500
    assert "are drawn" not in tree_page(evolution, "T", max_nodes=500)


def test_what_hangs_on_one_that_is_not_drawn_is_drawn_at_its_ancestor() -> None:
    """And marked so."""
    logged = [
        modification("a", score=0.9),
        modification("b", "a", accepted=False),
        modification("c", "b", score=0.1),
    ]
    data = data_of(tree_page(evolution_of(logged), "T", max_nodes=2))
    assert (data["id"], data["parent"], data["indirect"], data["unshown"]) == (
        ["a", "c"],
        [-1, 0],
        [1],
        [[1, ["b"]]],
    )


def test_a_line_longer_than_the_limit_is_shown_at_its_end() -> None:
    """A champion with more ancestors than can be drawn."""
    logged = chain(300)
    logged[-1]["score"] = 0.5
    assert data_of(tree_page(evolution_of(logged), "T", max_nodes=50))["id"] == [
        str(i) for i in range(250, 300)
    ]


def test_ten_thousand_modifications_are_about_a_megabyte() -> None:
    """Columns, and each text once."""
    steps = [
        [
            modification(
                f"m{step}-{i}", *([f"m{step - 1}-{i}"] if step else []), accepted=i == 0, score=step / 7 + i,
                type=f"kind{i % 5}", target=f"net-{step}-{i}", params={"units": i, "layer": i % 3},
            )
            for i in range(100)
        ]
        for step in range(100)
    ]  # fmt: skip
    assert len(tree_page(evolution_of(*steps), "T")) < 1_300_000


def test_numbers_that_json_or_a_browser_lack_are_texts() -> None:
    """NaN, infinity, and integers that a browser would round."""
    scores = [float("nan"), float("inf"), 2**60, 3, 0.25, None]
    logged = [
        modification(i, score={"$num": "NaN"} if score != score else score) for i, score in enumerate(scores)
    ]
    logged[1]["score"] = {"$num": "Infinity"}
    data = data_of(tree_page(evolution_of(logged), "T"))
    assert data["score"][:2] == ["nan", "inf"]
    assert data["score"][3:] == [3, 0.25, None]
    assert float(data["score"][2]) == 2**60


def test_long_params_are_cut_and_their_length_is_said() -> None:
    """A page carries some of each, not megabytes of one."""
    [shown] = data_of(tree_page(evolution_of([modification("a", params="x" * 100_000)]), "T"))["texts"]
    assert len(shown) < MAX_TEXT + 50
    assert shown.endswith("… (100,002 characters)")


def test_what_cannot_be_as_it_was_logged_is_told() -> None:
    """Unknown parents and cycles, as text."""
    page = tree_page(
        evolution_of([modification("a", "<never>"), modification("b", "c"), modification("c", "b")]), "T"
    )
    items = Parsed(page).texts["li"]
    assert any("<never>" in item for item in items)
    assert any("ancestors of each other" in item for item in items)


def test_modifications_without_a_type_are_counted_as_that() -> None:
    """Not as a type of that name."""
    rows = data_of(tree_page(evolution_of([modification("a"), modification("b", type="widen")]), "T"))[
        "types"
    ]
    assert sorted(str(row["type"]) for row in rows) == ["None", "widen"]
    assert [row["type"] for row in rows if row["type"] != "widen"] == [None]
    [row] = data_of(tree_page(evolution_of([modification("a", type="None")]), "T"))["types"]
    assert row["type"] == "None"


def test_an_evolution_without_modifications_is_a_page_that_says_so() -> None:
    """For whoever asks for it."""
    page = tree_page(Evolution(), "Nothing yet")
    assert "no modification was logged" in page
    assert data_of(page)["id"] == []


# ---------------------------------------------------------------------- at the end of a run


def ended_run(tmp_path: Path, *logged: dict[str, Any]) -> RunFolder:
    """Return a run that logged these modifications, if any, and ended."""
    with ExperimentTracker("Page & more", runs_dir=tmp_path, settings={"mode": "offline"}) as tracker:
        if logged:
            tracker.log_modification_tree(1, logged)
    return RunFolder(Path(tracker.run_dir))


def test_a_run_with_modifications_gets_a_page(tmp_path: Path) -> None:
    """Named after its experiment and its id."""
    folder = ended_run(tmp_path, modification("a", score=0.5), modification("b", "a"))
    [made] = make(folder)
    assert (made.name, made.role) == ("evolution/tree.html", "modification tree")
    assert isinstance(made.content, bytes)
    page = made.content.decode()
    assert Parsed(page).texts["h1"] == [f"Page & more, run {folder.run_id}"]
    assert data_of(page)["id"] == ["a", "b"]


def test_a_run_without_modifications_gets_none(tmp_path: Path) -> None:
    """Nothing is made of nothing."""
    assert list(make(ended_run(tmp_path))) == []


def test_the_limit_is_what_browsers_stand() -> None:
    """Ten thousand modifications are always drawn whole."""
    assert MAX_NODES >= 10_000
