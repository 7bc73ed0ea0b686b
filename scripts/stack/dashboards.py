"""The dashboards of Grafana; ``scripts/make_dashboards`` writes them to ``configs/grafana/dashboards``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.stack.delivery import delivery
from scripts.stack.overview import run_overview
from scripts.stack.panels import DATASOURCE, RED, SCHEMA_VERSION, Json, Panel, placed, variable
from scripts.stack.population import population
from scripts.stack.resources import resources

FOLDER = Path(__file__).resolve().parent.parent.parent / "configs" / "grafana" / "dashboards"

EXPERIMENT = variable("experiment", "Experiment", "label_values(lezea_run_info, experiment)", many=True)
RUN = variable("run", "Run", 'label_values(lezea_run_info{experiment=~"$experiment"}, run)')
METRIC = variable("metric", "Metrics", 'label_values(lezea_metric{run="$run"}, name)', many=True)


def dashboard(
    uid: str, title: str, description: str, sections: Mapping[str, Sequence[Panel]], variables: Sequence[Json]
) -> Json:
    """Return a dashboard as Grafana reads it from a file."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["lezea"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one cross hair in all panels
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "refresh": "10s",
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "annotations": {"list": [_annotations()]},
        "links": [_links()],
        "templating": {"list": list(variables)},
        "panels": placed(sections),
    }


def _annotations() -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": RED,
        "expr": 'ALERTS{run="$run", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
        "step": "15s",
    }


def _links() -> Json:
    return {
        "type": "dashboards",
        "title": "LeZeA",
        "tags": ["lezea"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def all_dashboards() -> dict[str, Json]:
    """Return every dashboard by the name of its file."""
    chosen = [EXPERIMENT, RUN]
    return {
        "run.json": dashboard(
            "lezea-run", "Run overview", "Which runs there are, and how one of them goes.", run_overview(),
            [*chosen, METRIC],
        ),
        "population.json": dashboard(
            "lezea-population", "Population and modifications",
            "How a population develops, what is changed in it, and what comes of that.", population(), chosen,
        ),
        "resources.json": dashboard(
            "lezea-resources", "Resources and costs",
            "What a run and its parts use of processors, memory, disks and GPUs, and what that costs.", resources(),
            chosen,
        ),
        "delivery.json": dashboard(
            "lezea-delivery", "Delivery health",
            "Whether what a run logs reaches MLflow, MongoDB and Prometheus, and how far behind they are.", delivery(),
            chosen,
        ),
    }  # fmt: skip


def as_text(content: Json) -> str:
    """Return a dashboard as it stands in its file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write every dashboard to its file."""
    for name, content in all_dashboards().items():
        (folder / name).write_text(as_text(content), encoding="utf-8")


if __name__ == "__main__":
    write()
