"""The page of a modification tree in a real browser, in a frame as MLflow shows it: it may run scripts, no more."""

from __future__ import annotations

import html
import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.evolution import Evolution
from lezea_mlops.reports.tree_page import tree_page
from tests.reports.growing import HOSTILE, chain, evolution_of, hostile_evolution, modification

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed; pages are not opened"
)

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402 (it comes with what may be missing)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,800",
)  # fmt: skip
# Where all modifications stand, in columns and lanes, and which edges turn late.
LAYOUT = (
    "const { column, lane, late } = page.place;"
    "return { parent: page.tree.parent, column: [...column], lane: [...lane], late: [...late] }"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed; pages are not opened")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Opened:
    """A page in a frame of its own, without the rights of the page around it."""

    def __init__(self, browser: Any, tmp_path: Path, evolution: Evolution) -> None:
        self.browser = browser
        page = html.escape(tree_page(evolution, "Shown"), quote=True)
        around = tmp_path / "around.html"
        around.write_text(
            '<!doctype html><meta charset="utf-8"><iframe sandbox="allow-scripts" width="1100" height="700" '
            f'srcdoc="{page}"></iframe>'
        )
        browser.get(around.as_uri())
        browser.switch_to.frame(0)
        assert self.script("return document.documentElement.dataset.ready") == "yes", self.errors()

    def script(self, code: str, *arguments: Any) -> Any:
        """Run code in the page."""
        return self.browser.execute_script(code, *arguments)

    def painted(self, code: str, *arguments: Any) -> Any:
        """Run code in the page, and wait until what it changed is drawn."""
        after = "requestAnimationFrame(() => requestAnimationFrame(() => done(result)))"
        code = f"const done = arguments[arguments.length - 1]; const result = (() => {{ {code} }})(); {after}"
        return self.browser.execute_async_script(code, *arguments)

    def text(self, name: str) -> str:
        """Return the text that an element shows."""
        return str(self.browser.find_element(By.ID, name).text)

    def point(self, name: str) -> ActionChains:
        """Move the pointer to a modification."""
        x, y = self.script("return page.view.at(page.tree.id.indexOf(arguments[0]))", name)
        canvas = self.browser.find_element(By.ID, "tree")
        size = canvas.size
        middle_x, middle_y = size["width"] / 2, size["height"] / 2
        return ActionChains(self.browser).move_to_element_with_offset(
            canvas, round(x - middle_x), round(y - middle_y)
        )

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def colours(self) -> int:
        """Return how many colours the drawing has."""
        return int(
            self.painted(
                "const c = page.view.canvas, d = page.view.context.getImageData(0, 0, c.width, c.height).data;"
                "return new Set(new Uint32Array(d.buffer)).size"
            )
        )

    def errors(self) -> list[str]:
        """Return what the browser complained of, and forget it."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


FAMILY = [
    modification("a", score=0.1, type="widen", params={"units": 8}),
    modification("b", "a", score=0.3, type="prune"),
    modification("c", "a", accepted=False, score=0.2, type="prune"),
]
GROWN = [modification("d", "b", "c", score=0.9, type="crossover"), modification("e", "never", accepted=None)]


def test_it_works_in_a_frame_that_may_only_run_scripts(browser: Any, tmp_path: Path) -> None:
    """As MLflow shows artifacts; it draws, requests nothing, and could not."""
    page = Opened(browser, tmp_path, evolution_of(FAMILY, GROWN))
    assert page.colours() > 5
    assert page.script("return performance.getEntriesByType('resource').length") == 0
    refused = page.browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done(false), () => {});"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.violatedDirective))"
    )
    assert refused == "connect-src"
    # Only that attempt.
    assert all("Content Security Policy" in error for error in page.errors())


def test_pointing_shows_a_modification_and_a_click_keeps_it(browser: Any, tmp_path: Path) -> None:
    """With its params, its parents, and the line of its ancestors."""
    page = Opened(browser, tmp_path, evolution_of(FAMILY, GROWN))
    page.point("a").perform()
    assert page.text("tip").splitlines() == ["a", "widen · accepted · score 0.1", '{"units": 8}']
    page.point("d").click().perform()
    assert page.text("name") == "d"
    fields = page.text("fields")
    assert "accepted, the champion, survivor" in fields
    assert "+0.6" in fields
    assert [line.split()[0] for line in page.text("line").splitlines()] == ["a", "b", "d"]
    assert page.script("return [...page.view.line].map((i) => page.tree.id[i])") == ["a", "b", "d"]
    page.point("e").click().perform()
    assert "not drawn: never" in page.text("fields")


def test_keys_move_search_and_let_go(browser: Any, tmp_path: Path) -> None:
    """All that the pointer can do."""
    page = Opened(browser, tmp_path, evolution_of(FAMILY, GROWN))
    page.script("document.getElementById('tree').focus()")
    selected = "return page.view.selected < 0 ? null : page.tree.id[page.view.selected]"
    page.painted("page.select(page.tree.id.indexOf('b'))")
    page.press(Keys.ARROW_RIGHT)
    assert page.script(selected) == "d"
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.script(selected) == "a"
    page.press("/", "p", "r", "u", "n")
    assert page.text("found") == "2 found; Enter goes to the next"
    page.press(Keys.ENTER)
    assert page.script(selected) == "b"
    page.press(Keys.ENTER)
    assert page.script(selected) == "c"
    assert "c: prune · rejected" in page.script("return document.getElementById('said').textContent")
    page.press(Keys.ESCAPE, Keys.ESCAPE)
    assert page.script(selected) is None
    before = page.script("return page.view.scaleX")
    page.press("-")
    assert page.script("return page.view.scaleX") < before


@pytest.mark.parametrize("words", HOSTILE[:5], ids=range(5))
def test_hostile_words_stay_words(browser: Any, tmp_path: Path, words: str) -> None:
    """In the tip, in the details, in the table and in the search; nothing runs, nothing is asked."""
    page = Opened(browser, tmp_path, hostile_evolution(words))
    elements = "return document.querySelectorAll('script, img, iframe, object, embed').length"
    before = page.script(elements)
    page.painted("page.hover(0, 50, 50); page.select(0)")
    page.painted("const s = document.getElementById('search'); s.value = arguments[0]; s.oninput()", words)
    assert page.script("return document.getElementById('name').textContent") == words
    assert words in page.script("return document.getElementById('tip').textContent")
    assert words in page.script("return document.getElementById('types').textContent")
    assert page.script("return page.view.matches.size") == 1
    assert page.script(elements) == before == 2
    assert page.errors() == []


def grown_by_chance(seed: int) -> Evolution:
    """Return some hundred modifications over some steps, with several parents, gaps, and parents in the same step."""
    chance, names = random.Random(seed), []
    steps: list[list[dict[str, Any]]] = [[] for _ in range(12)]
    for number in range(220):
        step = min(11, number // 20 + chance.randrange(2))
        parents = chance.sample(names[-40:], min(len(names), chance.choice([0, 1, 1, 1, 2])))
        steps[step].append(modification(number, *parents, accepted=chance.choice([True, False, None])))
        names.append(str(number))
    return evolution_of(*steps)


@pytest.mark.parametrize("seed", range(5))
def test_no_two_modifications_share_a_place_and_no_edges_cross(
    browser: Any, tmp_path: Path, seed: int
) -> None:
    """Of the edges to the first parents; columns go forward in time."""
    layout = Opened(browser, tmp_path, grown_by_chance(seed)).script(LAYOUT)
    columns, lanes, parents, late = (layout[name] for name in ("column", "lane", "parent", "late"))
    places = list(zip(columns, lanes, strict=True))
    assert len(set(places)) == len(places)
    level: list[tuple[int, float, float, int]] = []
    upright: list[tuple[int, float, int, int]] = []
    for i, parent in enumerate(parents):
        if parent < 0:
            continue
        assert columns[parent] < columns[i]
        turn = columns[i] - 0.5 if late[i] else columns[parent] + 0.5
        level.append((parent, columns[parent], turn, lanes[parent]))
        level.append((parent, turn, columns[i], lanes[i]))
        low, high = sorted((lanes[parent], lanes[i]))
        upright.append((parent, turn, low, high))
    for (one, x, low, high), (other, left, right, lane) in itertools.product(upright, level):
        if one != other:
            assert not (left < x < right and low <= lane <= high), (one, other)
    for x, lane in places:
        assert not any(left < x < right and lane == at for _, left, right, at in level), (
            "an edge hides a modification"
        )


def test_ten_thousand_modifications_are_drawn(browser: Any, tmp_path: Path) -> None:
    """And a hundred generations in one line, and as many without a parent."""
    steps = [
        [modification(f"{s}-{i}", *([f"{s - 1}-{i // 2}"] if s else []), accepted=i < 50) for i in range(100)]
        for s in range(100)
    ]
    page = Opened(browser, tmp_path, evolution_of(*steps))
    assert page.script("return page.tree.count") == 10_000
    assert page.colours() > 5
    before = page.script("return page.view.scaleX")
    page.painted("page.view.zoom(4)")
    assert page.script("return page.view.scaleX") > before
    assert page.errors() == []


def test_a_line_of_twenty_thousand_generations_is_drawn(browser: Any, tmp_path: Path) -> None:
    """No function of the page calls itself."""
    page = Opened(browser, tmp_path, evolution_of(chain(20_000)))
    assert page.painted("page.select(19999, true); return page.view.line.size") == 20_000
    assert page.text("line").startswith("19960 before these")
    assert page.errors() == []


def test_it_is_dark_where_a_person_wants_it_so(browser: Any, tmp_path: Path) -> None:
    """It follows the preference, also when that changes."""
    page = Opened(browser, tmp_path, evolution_of(FAMILY))
    background = "return getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        # The command is answered before the page has heard of it.
        heard = f"return matchMedia('(prefers-color-scheme: {scheme})').matches"
        WebDriverWait(browser, 60).until(lambda _, heard=heard: page.script(heard))
        found[scheme] = page.painted(background)
    assert found == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 29)"}
