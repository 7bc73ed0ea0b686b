"""Every alert fires when it must, keeps silent when it must, and says what to do; by Prometheus' own ``promtool``."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.stack import static
from tests.conftest import missing

Json = dict[str, Any]
NAMES = [rule["alert"] for rule in static.rules() if "alert" in rule]


@pytest.fixture
def promtool() -> None:
    """The program is here; without it the test is left out, loudly."""
    if shutil.which("promtool") is None:
        missing("promtool (Debian's package prometheus)")


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("command", ["check config", "check rules", "test rules"])
def test_promtool_finds_nothing(command: str) -> None:
    """The configuration, the rules, and the cases that show when each alert fires."""
    file = {"config": static.CONFIG, "rules": static.ALERTS}[command.split()[1]]
    assert (
        static.promtool_problems(command.split(), static.ALERTS_TEST if command == "test rules" else file)
        == []
    )


def test_every_alert_can_be_acted_upon() -> None:
    """It asks for series that trackers make, has a severity, a text, and cases in which it fires and does not."""
    assert static.alert_problems() == []
    assert len(NAMES) >= 10


@pytest.mark.parametrize(
    "promise",
    [
        "SinkDown",
        "DeliveryLagGrowing",
        "RunSilent",
        "RunGone",
        "BudgetNearlySpent",
        "BudgetSpent",
        "LossNotFinite",
    ],
)
def test_what_must_be_told_has_an_alert(promise: str) -> None:
    """These are the things that nobody may learn of by chance."""
    assert f"Lezea{promise}" in NAMES


CHANGES: dict[str, Callable[[Json], object]] = {
    "never": lambda rule: rule.update(expr=f"({rule['expr']}) > 1e12"),
    "at once": lambda rule: rule.update({"for": "0s"}),
    "an hour late": lambda rule: rule.update({"for": "1h"}),
    "as harmless": lambda rule: rule["labels"].update(severity="info"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("change", CHANGES)
def test_the_cases_notice_a_change_of_an_alert(change: str, tmp_path: Path) -> None:
    """An alert that fired never, too early, too late or as another kind would not pass."""
    rules = yaml.safe_load(static.ALERTS.read_text())
    changed = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    # Some alerts are to fire at once.
    changed = [rule for rule in changed if change != "at once" or "for" in rule]
    for rule in changed:
        CHANGES[change](rule)
    (tmp_path / static.ALERTS.name).write_text(yaml.safe_dump(rules))
    shutil.copy(static.ALERTS_TEST, tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / static.ALERTS_TEST.name], capture_output=True, text=True
    )
    noticed = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert {rule["alert"] for rule in changed} - noticed == set()
