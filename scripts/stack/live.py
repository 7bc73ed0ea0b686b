"""What only a running stack shows: a real run is scraped by a real Prometheus, which is asked all that Grafana asks."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.stack.dashboards import all_dashboards
from scripts.stack.promql import selectors, series_names
from scripts.stack.server import PrometheusError, PrometheusServer
from scripts.stack.static import ROOT, known_series, panels, rules

# A run first makes its store. All are limits for a machine that has much else to do.
START_S = 120.0
SERIES_WITHIN_S = 90.0
STEADY_SCRAPES = 5
END_S = 60.0
# After the end of a program its courier makes the page of its modification tree, at low priority.
COURIER_S = 180.0
# A time in seconds, as Prometheus keeps it.
ROUNDING_S = 1e-3
POLL_S = 0.2
# What Grafana puts in place of its own variables, for a server that scrapes every other second.
WINDOWS = {"$__rate_interval": "20s", "$__range": "5m", "$__interval": "1s"}
SHOWN_S = 300
STEP_S = 1

# Series that not every machine has. A question that asks for one of them may find nothing.
WITHOUT = {"lezea_gpu_": "a GPU"}
# By what the example run is priced.
RATES = {
    "LEZEA_RATE_CORE_HOUR_EUR": "0.05", "LEZEA_RATE_GB_HOUR_EUR": "0.01", "LEZEA_RATE_GPU_HOUR_EUR": "2.5",
    "LEZEA_RATE_KWH_EUR": "0.3", "LEZEA_RATE_CO2_G_PER_KWH": "380", "LEZEA_RATE_CORE_WATTS": "8",
}  # fmt: skip
# Events that are made while nobody logs anything.
SAMPLES = "resource"

Json = dict[str, Any]


class ExampleRun:
    """A program with a tracker, as a context; by default ``example_run.py``.

    Args:
        folder: where it keeps everything; the tracker says in its folder ``targets`` where it listens.
        command: the program; it is given the folder, prints the id of its run, and does what it reads.

    Attributes:
        run_id: the id of its run.
    """

    def __init__(self, folder: Path, command: Sequence[str] = ("-m", "scripts.stack.example_run")) -> None:
        self.targets = folder / "targets"
        self.run_id = ""
        self._folder, self._command = folder, command

    def __enter__(self) -> ExampleRun:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "run.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command, str(self._folder)], cwd=ROOT, env=_environment(), stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        self.run_id = self._line()
        if not self.run_id:
            self._process.kill()
            self._process.wait()
            said = (self._folder / "run.log").read_text(errors="replace")[-3_000:]
            raise PrometheusError(f"the example run does not start; it said:\n{said}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _line(self) -> str:
        """Return the next line that it prints; nothing if none comes in time."""
        lines: queue.Queue[str] = queue.Queue()
        output = self._process.stdout
        assert output is not None
        # A pipe cannot be waited for with a limit everywhere.
        threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
        try:
            return lines.get(timeout=START_S).strip()
        except queue.Empty:
            return ""

    def be_quiet(self) -> None:
        """Have it log nothing any more."""
        assert self._process.stdin is not None
        self._process.stdin.write("quiet\n")
        self._process.stdin.flush()
        if self._line() != "quiet":
            raise PrometheusError("the example run does not answer any more")

    def last_event_s(self) -> float:
        """Return when it logged anything last, as its journal says."""
        journal = self._folder / "runs" / self.run_id / "events.jsonl"
        records = map(json.loads, reversed(journal.read_bytes().splitlines()))
        # Where a thread delivers, samples stand in the same journal.
        return float(next(record["m"]["ts"] for record in records if "sample" not in record["p"]) / 1e6)

    def end(self) -> None:
        """End it, and wait until it has ended; killed where it does not."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment() -> dict[str, str]:
    """Return the environment of a run whose settings are its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LEZEA_")}
    return clean | RATES | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class Question:
    """One question of a panel, as Grafana sends it.

    Attributes:
        place: dashboard and panel.
        expr: with the variables filled in.
        labels: what a series is called by; every one that is found must have them.
        instant: for one moment, or for all of the time that is shown.
        optional: what a machine must have for series to exist; empty: they must exist.
    """

    place: str
    expr: str
    labels: frozenset[str]
    instant: bool
    optional: str

    def problem(self, server: PrometheusServer) -> str | None:
        """Return what is wrong with the answer."""
        try:
            found = server.now(self.expr) if self.instant else server.over(self.expr, SHOWN_S, STEP_S)
        except PrometheusError as error:
            return f"{self.place}: {self.expr}: {error}"
        if not found and not self.optional:
            return f"{self.place}: no series answers {self.expr}"
        for series in found:
            if missing := self.labels - set(series["metric"]):
                return f"{self.place}: a series is called by {', '.join(sorted(missing))}, which it lacks: {self.expr}"
        return None


def questions(run_id: str) -> list[Question]:
    """Return all that the dashboards ask, for one run."""
    found = []
    for dashboard in all_dashboards().values():
        variables = {"$experiment": ".*", "$run": run_id, "$metric": ".*"} | WINDOWS
        for panel in panels(dashboard):
            for target in panel["targets"]:
                labels = frozenset(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))
                expr = _filled(target["expr"], variables)
                found.append(
                    Question(
                        f"{dashboard['title']} → {panel['title']}",
                        expr,
                        labels,
                        target["instant"],
                        _optional(expr),
                    )
                )
    return found


def _filled(expr: str, variables: Mapping[str, str]) -> str:
    # The longest first: one name may begin another.
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(name, variables[name])
    return expr


def _optional(expr: str) -> str:
    for name in series_names(expr):
        for prefix, needed in WITHOUT.items():
            if name.startswith(prefix):
                return needed
    return ""


def panel_problems(server: PrometheusServer, run_id: str) -> list[str]:
    """Return what the panels ask and nothing answers, once it had time to come; and what is no question at all."""
    open_ones = questions(run_id)
    give_up = time.monotonic() + SERIES_WITHIN_S
    while True:
        problems = {each: problem for each in open_ones if (problem := each.problem(server))}
        if not problems or time.monotonic() > give_up:
            return list(problems.values())
        open_ones = list(problems)
        # Series come with the next scrapes, and rates with a few.
        time.sleep(1.0)


def variable_problems(server: PrometheusServer, run_id: str) -> list[str]:
    """Return the choices at the top of dashboards that offer nothing."""
    wrong = []
    for dashboard in all_dashboards().values():
        for variable in dashboard["templating"]["list"]:
            place = f"{dashboard['title']} → {variable['label']}"
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            if asked is None:
                wrong.append(f"{place}: {variable['definition']} cannot be checked")
                continue
            selector = _filled(asked[1], {"$experiment": ".*", "$run": run_id})
            if not server.ask(f"label/{asked[2]}/values", **{"match[]": selector}):
                wrong.append(f"{place}: {variable['definition']} offers nothing")
    return wrong


def rule_problems(server: PrometheusServer) -> list[str]:
    """Return rules that Prometheus could not evaluate, and series in them that the run does not have."""
    wrong = []
    for group in server.ask("rules")["groups"]:
        wrong += [
            f"{rule['name']}: {rule['lastError']}" for rule in group["rules"] if rule["health"] == "err"
        ]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        for selector in sorted(selectors(rule["expr"])):
            if series_names(selector) & recorded or _optional(selector):
                continue
            if not server.ask("series", **{"match[]": selector}):
                wrong.append(f"{rule.get('alert') or rule['record']}: the run has no series {selector}")
    return wrong


def unused_series(server: PrometheusServer) -> list[str]:
    """Return series of the run that the tracker does not know, which would be none that a document could name."""
    names = server.ask("label/__name__/values", **{"match[]": '{job="lezea", __name__=~"lezea_.*"}'})
    return [
        f"{name} is exposed, and no family of the exporter"
        for name in sorted(set(names) - set(known_series()))
    ]


def alert_problems(server: PrometheusServer, run_id: str) -> list[str]:
    """Return alerts that the run gives reason for and that have not begun."""
    return [
        f"{name}: the run gives reason for it, and it has not begun"
        for name in ("LezeaSinkDown", "LezeaLossNotFinite", "LezeaBudgetSpent")
        if not server.now(f'last_over_time(ALERTS{{alertname="{name}", run="{run_id}"}}[1m])')
    ]


def silence_problems(server: PrometheusServer, run: ExampleRun) -> list[str]:
    """Return whether a run that logs nothing any more looks as if it did, because it is sampled all the time."""
    last = f'max(last_over_time(lezea_run_last_event_timestamp_seconds{{run="{run.run_id}"}}[1m]))'
    samples = f'sum(last_over_time(lezea_events_total{{run="{run.run_id}", type="{SAMPLES}"}}[1m]))'
    run.be_quiet()
    logged_s = run.last_event_s()
    if not _until(lambda: (server.value(last) or 0.0) > logged_s - ROUNDING_S, SERIES_WITHIN_S):
        return ["what the run logged last is never seen"]
    sampled = server.value(samples) or 0.0
    if not _until(lambda: (server.value(samples) or 0.0) >= sampled + 3, SERIES_WITHIN_S):
        return ["a run that logs nothing is not sampled any more"]
    if (server.value(last) or 0.0) > logged_s + ROUNDING_S:
        return ["the samples of a run count as what it logs: LezeaRunSilent would never fire"]
    return []


def target_problems(targets: Path) -> list[str]:
    """Return why the server of a container, which is another user, could not read where trackers listen."""
    if not (files := list(targets.glob("*.json"))):
        return [f"no tracker says in {targets} where it listens"]
    wrong = [f"{path} cannot be read by other users" for path in files if not path.stat().st_mode & 0o004]
    if targets.stat().st_mode & 0o005 != 0o005:
        wrong.append(f"{targets} cannot be read by other users")
    return wrong


def live_problems(
    folder: Path, command: Sequence[str] = ("-m", "scripts.stack.example_run")
) -> Iterator[tuple[str, list[str]]]:
    """Yield what was checked on a running stack, and what is wrong with it.

    Raises:
        PrometheusError: run or server do not start.
    """
    with (
        ExampleRun(folder / "run", command) as run,
        PrometheusServer(folder / "prometheus", run.targets) as server,
    ):
        scraped = f'sum_over_time(up{{job="lezea"}}[1m]) >= {STEADY_SCRAPES}'
        if not _until(lambda: bool(server.now(scraped)), SERIES_WITHIN_S):
            yield "scraping: the tracker answers", [f"Prometheus does not reach it: {server.ask('targets')}"]
            return
        yield "targets: others may read where the tracker listens", target_problems(run.targets)
        yield "panels: every question has an answer", panel_problems(server, run.run_id)
        yield "variables: every choice offers something", variable_problems(server, run.run_id)
        yield "rules: every one is evaluated on series that exist", rule_problems(server)
        yield "alerts: those that the run gives reason for have begun", alert_problems(server, run.run_id)
        yield "series: each is one that the exporter knows", unused_series(server)
        yield "silence: a run that logs nothing is seen to be silent", silence_problems(server, run)
        run.end()
        gone = _until(lambda: not list(run.targets.glob("*.json")), COURIER_S)
        yield "end: the tracker takes its address away", [] if gone else [f"a file is left in {run.targets}"]


def _until(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until *holds* does, at most *within_s* seconds; tell whether it did."""
    give_up = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    return held
