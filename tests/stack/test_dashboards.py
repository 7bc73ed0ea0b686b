"""The dashboards are whole: each panel says what it shows, in which unit, and asks for series that trackers make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.stack import static
from scripts.stack.dashboards import FOLDER, all_dashboards, write

Json = dict[str, Any]


def test_the_files_are_what_the_generator_makes_and_nothing_is_wrong_with_them() -> None:
    """Whoever changes a panel and forgets scripts/make_dashboards is told so here."""
    assert static.dashboard_problems() == []
    assert {path.name for path in FOLDER.iterdir()} == set(all_dashboards())


def test_each_subject_has_its_dashboard() -> None:
    """They are found by uids that never change, for links to them to last."""
    uids = {content["uid"]: content["title"] for content in all_dashboards().values()}
    assert uids == {
        "lezea-run": "Run overview",
        "lezea-population": "Population and modifications",
        "lezea-resources": "Resources and costs",
        "lezea-delivery": "Delivery health",
    }


def test_every_family_of_the_exporter_is_shown_somewhere() -> None:
    """What is made for nobody to see would not be worth a series."""
    asked = " ".join(
        target["expr"]
        for content in all_dashboards().values()
        for panel in static.panels(content)
        for target in panel["targets"]
    )
    assert [name for name in static.FAMILIES if name not in asked and name != "lezea_loss_nonfinite"] == []


def test_the_generator_makes_the_same_again(tmp_path: Path) -> None:
    """Files differ only where a panel does."""
    write(tmp_path)
    for path in FOLDER.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def first_panel(dashboard: Json) -> Json:
    """Return a panel that is no heading."""
    return static.panels(dashboard)[0]


FAULTS: dict[str, Callable[[Json], object]] = {
    "it is not what scripts/make_dashboards makes": lambda d: d.update(version=2),
    "nothing makes the series lezea_nothing": lambda d: first_panel(d)["targets"][0].update(
        expr="lezea_nothing"
    ),
    "no series in it has the label sinc": lambda d: first_panel(d)["targets"][0].update(
        expr="max by (sinc) (lezea_delivery_up)"
    ),
    "it asks a data source that is not provisioned: other": lambda d: first_panel(d)["targets"][0].update(
        datasource={"uid": "other"}
    ),
    "it asks nothing": lambda d: first_panel(d).update(targets=[]),
    "it has no description": lambda d: first_panel(d).update(description=""),
    "it has no title": lambda d: first_panel(d).update(title=""),
    "its unit is 'parsecs'": lambda d: first_panel(d)["fieldConfig"]["defaults"].update(unit="parsecs"),
    "its type is 'graph'": lambda d: first_panel(d).update(type="graph"),
    "two panels have one id": lambda d: static.panels(d)[1].update(id=first_panel(d)["id"]),
    "it lies over": lambda d: static.panels(d)[1].update(gridPos=first_panel(d)["gridPos"]),
    "it is wider than the page": lambda d: first_panel(d)["gridPos"].update(w=25),
    "no run can be chosen": lambda d: d["templating"].update(list=[]),
    "two dashboards have one uid": lambda d: d.update(uid="lezea-run"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_found(fault: str, tmp_path: Path) -> None:
    """Also in one that was changed by hand, for instance exported from Grafana."""
    folder = tmp_path / "dashboards"
    shutil.copytree(FOLDER, folder)
    content = json.loads((folder / "delivery.json").read_text())
    FAULTS[fault](content)
    (folder / "delivery.json").write_text(json.dumps(content))
    assert [problem for problem in static.dashboard_problems(folder) if fault in problem]


def test_files_that_are_missing_broken_or_left_over_are_found(tmp_path: Path) -> None:
    """Grafana would show an old dashboard, or say nothing of one that it cannot read."""
    folder = tmp_path / "dashboards"
    shutil.copytree(FOLDER, folder)
    (folder / "run.json").unlink()
    (folder / "population.json").write_text("{")
    (folder / "old.json").write_text("{}")
    said = "\n".join(static.dashboard_problems(folder))
    assert all(
        name in said for name in ("run.json: ", "population.json: ", "old.json: nothing makes this file")
    )
