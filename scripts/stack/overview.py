"""The dashboard that one looks at first: which runs there are, and how one of them goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.stack.looks import ALARM, ALIVE, NONE_IS_GOOD, alarms
from scripts.stack.panels import (
    GREEN,
    RED,
    YELLOW,
    Column,
    Panel,
    Query,
    series,
    stat,
    states,
    table,
    thresholds,
    words,
)


def run_overview() -> Mapping[str, Sequence[Panel]]:
    """Return the panels of the dashboard that one looks at first: which runs there are, and how one of them goes."""
    return {
        "All runs": [
            table(
                "Runs",
                "Every run that was seen within the time that is shown. A click on one shows it below. "
                "Not running: it has ended, or its exporter cannot be reached.",
                [
                    Column(
                        "State", "none",
                        "max by (run, experiment, host) (max by (run, experiment, host)"
                        ' (lezea_run_info{experiment=~"$experiment"}) * on (run) group_left max by (run)'
                        " (lezea_run_running)) or 0 * max by (run, experiment, host)"
                        ' (last_over_time(lezea_run_info{experiment=~"$experiment"}[$__range]))',
                        words(ALIVE) | {"custom.cellOptions": {"type": "color-text"}},
                    ),
                    Column(
                        "Attempts", "none",
                        "count by (run) (count by (run, attempt) (last_over_time(lezea_run_info[$__range])))",
                    ),
                    Column("Step", "none", "max by (run) (last_over_time(lezea_training_step[$__range]))"),
                    Column(
                        "Last event", "dateTimeFromNow",
                        "1000 * max by (run) (last_over_time(lezea_run_last_event_timestamp_seconds[$__range]))",
                    ),
                    Column(
                        "Spent", "currencyEUR",
                        "sum by (run) (max by (run, kind) (last_over_time(lezea_cost_eur_total[$__range])))",
                    ),
                ],
                labels={"run": "Run", "experiment": "Experiment", "host": "Host"},
                links={"Run": "/d/lezea-run?var-run=${__value.raw}&${__url_time_range}"},
            ),
        ],
        "This run": [
            stat(
                "State", "Whether the run is going on.", "none",
                Query('max by (run) (lezea_run_running{run="$run"})'), looks=words(ALIVE),
            ),
            stat(
                "Age", "How long ago this attempt was started.", "s",
                Query('time() - max by (run) (lezea_run_started_timestamp_seconds{run="$run"})'),
            ),
            stat(
                "Silent for", "How long ago the program logged anything. Half an hour raises an alert.", "s",
                Query('time() - max by (run) (lezea_run_last_event_timestamp_seconds{run="$run"})'),
                looks=thresholds((None, GREEN), (600, YELLOW), (1800, RED)),
            ),
            stat(
                "Step", "The newest step of training that was logged.", "none",
                Query('max by (run) (lezea_training_step{run="$run"})'),
            ),
            stat(
                "Values that are not finite", "How many values of metrics were NaN or infinite so far.", "none",
                Query('max by (run) (lezea_nonfinite_values_total{run="$run"})'), looks=NONE_IS_GOOD,
            ),
            stat(
                "Spent", "What the run has cost so far, by the rates that it was given.", "currencyEUR",
                Query('sum(max by (kind) (lezea_cost_eur_total{run="$run"}))'),
            ),
            states(
                "Alerts",
                "Alerts of this run: one that waits becomes one that fires when its condition lasts. Their texts say "
                "what to do; Prometheus shows them under Alerts.",
                Query(alarms('run="$run",'), "{{alertname}}"), ALARM,
            ),
            series(
                "Loss", "Metrics that are called loss, in any scope. A value that is not finite leaves a gap.",
                "none", Query('max by (name) (lezea_metric{run="$run", name=~"(.*/)?loss"})', "{{name}}"), low=None,
            ),
            series(
                "Metrics", "The metrics that are chosen above, each as it was logged last.", "none",
                Query('max by (name) (lezea_metric{run="$run", name=~"$metric"})', "{{name}}"), low=None,
            ),
            series(
                "Training step", "The newest step that was logged. It falls back where a run was resumed.", "none",
                Query('max by (run) (lezea_training_step{run="$run"})', "step"),
            ),
            series(
                "Events by type", "What the program and the tracker write down, by type of event.", "eps",
                Query('sum by (type) (rate(lezea_events_total{run="$run"}[$__rate_interval]))', "{{type}}"),
                stacked=True,
            ),
        ],
    }  # fmt: skip
