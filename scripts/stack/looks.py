"""What colours and words mean in all dashboards."""

from __future__ import annotations

from scripts.stack.panels import GREEN, GREY, RED, YELLOW, thresholds

RATIO = thresholds((None, GREEN), (0.8, YELLOW), (0.95, RED))
NONE_IS_GOOD = thresholds((None, GREEN), (1, RED))
ALIVE = {1: ("running", GREEN), 0: ("not running", GREY)}
UP = {1: ("up", GREEN), 0: ("down", RED)}
ALARM = {1: ("waits", YELLOW), 2: ("fires", RED)}


def alarms(selector: str) -> str:
    """Return the question for alerts: 1 while one waits for its time to pass, 2 while it fires."""
    return (
        f'max by (alertname) (ALERTS{{{selector}alertstate="pending"}}'
        f' or 2 * ALERTS{{{selector}alertstate="firing"}})'
    )
