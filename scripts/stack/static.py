"""What can be said of the stack's files without starting anything of it: each function returns what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lezea_mlops.sinks.prometheus.families import FAMILIES
from scripts.stack import dashboards
from scripts.stack.promql import OF_PROMETHEUS, unknown_parts

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "configs" / "prometheus" / "prometheus.yml"
ALERTS = ROOT / "configs" / "prometheus" / "alerts.yml"
ALERTS_TEST = ROOT / "configs" / "prometheus" / "alerts_test.yml"
GRAFANA = ROOT / "configs" / "grafana"

SEVERITIES = {"warning", "critical"}
KINDS = {"bargauge", "stat", "state-timeline", "table", "timeseries"}
# Units of Grafana, by the names that it has for them.
UNITS = {
    "binBps", "bytes", "celsius", "cpm", "currencyEUR", "dateTimeFromNow", "eps", "kwatth", "massg", "none",
    "percentunit", "recps", "s", "watt",
}  # fmt: skip
COLUMNS = 24

Json = dict[str, Any]


def known_series() -> dict[str, frozenset[str]]:
    """Return the labels of all series that Prometheus can hold, by their names."""
    exported = {name: frozenset(family.labels) for name, family in FAMILIES.items()}
    recorded = {rule["record"]: frozenset[str]() for rule in rules() if "record" in rule}
    return exported | recorded | OF_PROMETHEUS


def rules() -> list[Json]:
    """Return every rule of Prometheus: alerts, and series that are recorded for them."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(dashboard: Json) -> list[Json]:
    """Return the panels of a dashboard, without the headings above them."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def compose_problems() -> list[str]:
    """Return what docker-compose has to say against ``docker-compose.yml``, resolved with generated passwords."""
    command = _compose_command()
    if command is None:
        return ["docker-compose is not here: on Debian and Ubuntu, apt-get install docker-compose"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(ROOT / "configs", place / "configs")
        (place / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "make_env", place / "scripts")
        shutil.copy(ROOT / "docker-compose.yml", place)
        # Debian's is a Python program: nothing of this environment is for it.
        environment = {"PATH": os.environ["PATH"], "HOME": name, "LC_ALL": "C.UTF-8"}
        for step in ([str(place / "scripts" / "make_env")], [*command, "config", "--quiet"]):
            done = subprocess.run(step, cwd=place, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                return [f"{' '.join(step)}: {(done.stderr or done.stdout).strip()}"]
    return []


def _compose_command() -> list[str] | None:
    if program := shutil.which("docker-compose"):
        return [program]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return None


def promtool_problems(words: Sequence[str], file: Path) -> list[str]:
    """Return what ``promtool`` has to say against *file*; nothing where it finds it good."""
    program = shutil.which("promtool")
    if program is None:
        return ["promtool is not here: on Debian and Ubuntu, apt-get install prometheus"]
    done = subprocess.run([program, *words, str(file)], cwd=ROOT, capture_output=True, text=True)
    return [] if done.returncode == 0 else [f"promtool {' '.join(words)}: {done.stdout}{done.stderr}".strip()]


def alert_problems() -> list[str]:
    """Return alerts that lack what a person needs at night, or a test, or that ask for series that nobody makes."""
    known, wrong = known_series(), []
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        wrong += [f"{name}: {problem}" for problem in unknown_parts(rule["expr"], known)]
        if "alert" not in rule:
            continue
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            wrong.append(f"{name}: its label severity is none of {', '.join(sorted(SEVERITIES))}")
        wrong += [
            f"{name}: it has no {part}"
            for part in ("summary", "description")
            if not rule.get("annotations", {}).get(part)
        ]
    return wrong + _untested_alerts()


def _untested_alerts() -> list[str]:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in yaml.safe_load(ALERTS_TEST.read_text(encoding="utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else silent).add(case["alertname"])
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    return [f"{name}: no test shows that it fires" for name in sorted(alerts - fires)] + [
        f"{name}: no test shows when it does not fire" for name in sorted(alerts - silent)
    ]


def dashboard_problems(folder: Path | None = None) -> list[str]:
    """Return what is wrong with the files of the dashboards: made by nobody, incomplete, asking for unknown series."""
    folder = folder or GRAFANA / "dashboards"
    made = dashboards.all_dashboards()
    wrong = [f"{path.name}: nothing makes this file" for path in folder.glob("*") if path.name not in made]
    found: dict[str, Json] = {}
    for name, content in made.items():
        try:
            text = (folder / name).read_text(encoding="utf-8")
            found[name] = json.loads(text)
        except (OSError, ValueError) as error:
            wrong.append(f"{name}: {error}")
            continue
        if text != dashboards.as_text(content):
            wrong.append(f"{name}: it is not what scripts/make_dashboards makes; run that")
    uids = [dashboard["uid"] for dashboard in found.values()]
    if len(set(uids)) != len(uids):
        wrong.append(f"two dashboards have one uid: {', '.join(uids)}")
    known, datasource = known_series(), _datasource_uid()
    for name, dashboard in found.items():
        wrong += [f"{name}: {problem}" for problem in _problems_of(dashboard, known, datasource)]
    return wrong


def _datasource_uid() -> str:
    provisioned = yaml.safe_load((GRAFANA / "datasources.yml").read_text(encoding="utf-8"))
    return str(provisioned["datasources"][0]["uid"])


def _problems_of(dashboard: Json, known: dict[str, frozenset[str]], datasource: str) -> Iterator[str]:
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have one id"
    yield from _overlaps(dashboard["panels"])
    if "run" not in {variable["name"] for variable in dashboard["templating"]["list"]}:
        yield "no run can be chosen"
    for panel in panels(dashboard):
        title = panel.get("title") or f"panel {panel['id']}"
        yield from (f"{title}: {problem}" for problem in _panel_problems(panel, known, datasource))


def _panel_problems(panel: Json, known: dict[str, frozenset[str]], datasource: str) -> Iterator[str]:
    if panel["type"] not in KINDS:
        yield f"its type is {panel['type']!r}, none of {', '.join(sorted(KINDS))}"
    yield from (f"it has no {part}" for part in ("title", "description") if not panel.get(part))
    units = [panel["fieldConfig"]["defaults"].get("unit")] + [
        entry["value"]
        for override in panel["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "unit"
    ]
    yield from (f"its unit is {unit!r}, which Grafana does not know" for unit in units if unit not in UNITS)
    if not panel["targets"]:
        yield "it asks nothing"
    for target in panel["targets"]:
        if target["datasource"]["uid"] != datasource or panel["datasource"]["uid"] != datasource:
            yield f"it asks a data source that is not provisioned: {target['datasource']['uid']}"
        yield from unknown_parts(target["expr"], known)


def _overlaps(placed: Sequence[Json]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in placed:
        place = panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"{panel['title']}: it is wider than the page"
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        for other in sorted({taken[cell] for cell in cells if cell in taken}):
            yield f"{panel['title']}: it lies over {other}"
        taken.update((cell, str(panel["title"])) for cell in cells)
