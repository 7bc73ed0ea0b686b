"""Checks the stack: ``scripts/check_stack`` runs it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.stack import static
from scripts.stack.live import live_problems
from scripts.stack.server import PrometheusError

STATIC_ALONE = "--static"


def static_problems() -> Iterator[tuple[str, list[str]]]:
    """Yield what was checked without starting anything, and what is wrong with it."""
    yield "docker-compose config", static.compose_problems()
    yield "promtool check config", static.promtool_problems(["check", "config"], static.CONFIG)
    yield "promtool check rules", static.promtool_problems(["check", "rules"], static.ALERTS)
    yield "promtool test rules", static.promtool_problems(["test", "rules"], static.ALERTS_TEST)
    yield "alerts: texts, tests, series that exist", static.alert_problems()
    yield "dashboards: made, complete, asking for series that exist", static.dashboard_problems()


def main(arguments: Sequence[str]) -> int:
    """Check, say what was found, and return the exit code."""
    if set(arguments) - {STATIC_ALONE}:
        _say(f"check_stack takes {STATIC_ALONE} or nothing, not {' '.join(arguments)}")
        return 2
    wrong = _tell(static_problems())
    if STATIC_ALONE not in arguments:
        with tempfile.TemporaryDirectory(prefix="lezea-stack-") as folder:
            try:
                wrong += _tell(live_problems(Path(folder)))
            except PrometheusError as error:
                _say(f"WRONG  {error}")
                wrong += 1
    _say(f"== {wrong} problems" if wrong else "== all is well")
    return 1 if wrong else 0


def _tell(checks: Iterator[tuple[str, list[str]]]) -> int:
    """Say what was checked and what is wrong, and return how much is."""
    wrong = 0
    for name, problems in checks:
        _say(f"{'WRONG' if problems else 'good'}  {name}")
        for problem in problems:
            _say(f"       {problem}")
        wrong += len(problems)
    return wrong


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
