"""The dashboard of what reaches MLflow, MongoDB and Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.stack.looks import ALARM, NONE_IS_GOOD, UP, alarms
from scripts.stack.panels import GREEN, YELLOW, Panel, Query, series, stat, states, thresholds


def delivery() -> Mapping[str, Sequence[Panel]]:
    """Return the panels about what reaches MLflow, MongoDB and Prometheus."""
    return {
        "Destinations of this run": [
            states(
                "Up and down",
                "Down: a destination takes nothing at the moment. Nothing is lost; it waits in the journal.",
                Query('min by (sink) (lezea_delivery_up{run="$run"})', "{{sink}}"), UP,
            ),
            series(
                "Lag", "How old the oldest record is that a destination has not taken yet.", "s",
                Query('max by (sink) (lezea_delivery_lag_seconds{run="$run"})', "{{sink}}"),
            ),
            series(
                "Waiting records", "How many records of the journal a destination has not taken yet.", "none",
                Query('max by (sink) (lezea_delivery_waiting_records{run="$run"})', "{{sink}}"),
            ),
            series(
                "Delivered records", "How many records each destination takes.", "recps",
                Query(
                    'sum by (sink) (rate(lezea_delivery_records_total{run="$run"}[$__rate_interval]))', "{{sink}}"
                ),
            ),
            series(
                "Failures by reason", "Attempts to deliver that failed, and will be made again.", "cpm",
                Query(
                    "60 * sum by (sink, reason)"
                    ' (rate(lezea_delivery_failures_total{run="$run"}[$__rate_interval]))',
                    "{{sink}}: {{reason}}",
                ),
            ),
            stat(
                "Rejected records",
                "Records that a destination will never take. They were set aside with the reason, in the folder "
                "rejected of the run folder.", "none",
                Query('sum(max by (sink) (lezea_delivery_rejected_total{run="$run"}))'),
                width=6, looks=NONE_IS_GOOD,
            ),
            stat(
                "Series left out",
                "How many series of this run Prometheus is not given, since a run may have a thousand. The journal, "
                "MLflow and MongoDB have their values.", "none",
                Query('max by (run) (lezea_series_dropped{run="$run"})'),
                width=6, looks=thresholds((None, GREEN), (1, YELLOW)),
            ),
        ],
        "Scraping, of all runs": [
            states(
                "Exporters", "Whether Prometheus reaches the process that answers for a run, by its address.",
                Query('max by (instance) (up{job="lezea"})', "{{instance}}"), UP,
            ),
            series(
                "Time of a scrape", "How long an exporter takes to answer.", "s",
                Query('max by (instance) (scrape_duration_seconds{job="lezea"})', "{{instance}}"),
            ),
            series(
                "Series of a scrape", "How many values an exporter answers with.", "none",
                Query('max by (instance) (scrape_samples_scraped{job="lezea"})', "{{instance}}"),
            ),
            states("Alerts of all runs", "Every alert that waits or fires.", Query(alarms(""), "{{alertname}}"), ALARM),
        ],
    }  # fmt: skip
