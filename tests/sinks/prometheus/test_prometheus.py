"""Prometheus itself takes what is served, and gives back what was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.sinks.prometheus import Exporter, LiveView, Outside, render, write_textfile
from lezea_mlops.sinks.prometheus.labels import label_text
from tests.sinks.prometheus.pages import Feeder, Series, full_view, series_of
from tests.sinks.prometheus.server import PrometheusServer, promtool

STRANGE_NAMES = [
    *(f"a{chr(code)}b" for code in [*range(0x20), 0x7F, 0x80, 0x85, 0xA0, 0x2028, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF]),
    'say "x"', "back\\slash", "ends with \\", "\\n", "line\nbreak", "{a=b}", "# HELP x", "val/loss", "MAP@k", "ä ö",
    "🙂", "\U0010ffff", "a b", " a ", "1a", "__name__", "x" * 200, "x" * 201, "x" * 300, "\ud800", "\ud801",
]  # fmt: skip


def as_text(series: dict[str, Series]) -> dict[str, dict[Any, str]]:
    """Return series with their values as texts: NaN is not equal to itself."""
    return {name: {labels: str(value) for labels, value in rows.items()} for name, rows in series.items()}


def test_promtool_finds_nothing_to_complain_of() -> None:
    """Names, units, types and explanations are as Prometheus wants them, also for two runs on one page."""
    checked = promtool("check", "metrics", told=render([full_view("run-1"), full_view("run-2")]))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_promtool_takes_the_page_of_a_run_that_logged_nothing() -> None:
    """As it is asked for a moment after the start."""
    checked = promtool("check", "metrics", told=render([LiveView("run-1")]))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_promtool_takes_a_file_for_node_exporter(tmp_path: Path) -> None:
    """Its first line, which says who wrote it, is none of its business."""
    (path,) = write_textfile(tmp_path, [full_view()])
    checked = promtool("check", "metrics", told=path.read_bytes())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


STRANGE_RUN = 'run "1"\n'
ALARMS = [
    "lezea_loss_nonfinite == 1",
    'lezea_delivery_up{sink="mlflow"} == 0',
    "lezea_budget_used_ratio >= 1",
]


def strange_view() -> LiveView:
    """Return a view of metrics with every kind of name."""
    view = LiveView(STRANGE_RUN)
    Feeder(view)("metric", metrics={name: float(index) for index, name in enumerate(STRANGE_NAMES)})
    return view


def alarming_view() -> LiveView:
    """Return a view of a run in which much is wrong."""
    told = Outside(sinks={"mlflow": {"state": "down"}}, budgets={"run": {"budget_eur": 1.0, "ratio": 1.5}})
    view = LiveView("alarming", lambda: told)
    Feeder(view)("metric", metrics={"loss": "NaN"})
    return view


Query = Callable[[str], "list[tuple[dict[str, str], float]]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A server that finds three runs by the file alone that says where they are served."""
    folder = tmp_path_factory.mktemp("scraped")
    server = PrometheusServer(folder / "prometheus", folder / "targets")
    exporter, views = Exporter(), [full_view(), strange_view(), alarming_view()]
    for view in views:
        exporter.add(view)
    exporter.serve(0, targets=server.targets)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        for view in views:
            exporter.remove(view)


@pytest.fixture(scope="module")
def scraped(server: PrometheusServer) -> Query:
    """Ask for what the first scrape brought: a later one that is late takes nothing of it away."""
    server.wait_until(lambda: server.first_stored_s("lezea_series_dropped"))
    at_s = server.first_stored_s("lezea_series_dropped")
    return lambda expression: server.query(expression, at_s)


def test_prometheus_stores_every_series_of_a_run(scraped: Query) -> None:
    """Name, labels and value of each are those of the page."""
    stored: dict[str, Series] = {}
    for labels, value in scraped('{__name__=~"lezea_.+",run="run-1"}'):
        name = labels.pop("__name__")
        assert (labels.pop("run"), labels.pop("job"), labels.pop("instance")[:10]) == (
            "run-1",
            "lezea",
            "127.0.0.1:",
        )
        stored.setdefault(name, {})[tuple(sorted(labels.items()))] = value
    assert as_text(stored) == as_text(series_of(full_view()))


def test_whatever_a_metric_is_called_prometheus_stores_it(server: PrometheusServer, scraped: Query) -> None:
    """Each has a series of its own, under its own name unless that is too long or no text."""
    server.wait_until(lambda: server.troubles() == [])
    found = [(labels, value) for labels, value in scraped("lezea_metric") if labels["run"] == STRANGE_RUN]
    stored = {labels["name"]: value for labels, value in found}
    assert stored == {label_text(name): float(index) for index, name in enumerate(STRANGE_NAMES)}


@pytest.mark.parametrize("expression", ALARMS)
def test_an_alarm_can_be_raised_from_what_is_stored(scraped: Query, expression: str) -> None:
    """What a person wants to be woken for is true of the run in which it is wrong, and of no other."""
    assert {labels["run"] for labels, _ in scraped(expression)} == {"alarming"}


@pytest.mark.slow
def test_prometheus_follows_processes_that_come_and_go(prometheus: PrometheusServer, tmp_path: Path) -> None:
    """A run that ends is scraped no more, a new one is found, and the rise of counters is what happened."""
    events = 'sum(lezea_events_total{run="second"})'
    for name in ("first", "second"):
        exporter, view = Exporter(), LiveView(name)
        feed = Feeder(view)
        exporter.add(view)
        place = exporter.serve(0, targets=prometheus.targets)
        assert place is not None
        prometheus.wait_until(lambda at=f"{place[0]}:{place[1]}": prometheus.targets_up() == {at})
        for _ in range(30):
            feed("comment")
        if name == "second":
            prometheus.wait_until(lambda: prometheus.query(events) == [({}, 30.0)])
        exporter.remove(view)
        prometheus.wait_until(lambda: prometheus.targets_up() == set())
