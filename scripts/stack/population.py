"""The dashboard of networks and their modifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.stack.panels import Column, Panel, Query, bars, series, stat, table


def population() -> Mapping[str, Sequence[Panel]]:
    """Return the panels about networks and their modifications."""
    return {
        "Population": [
            stat(
                "Generation", "The newest generation of which a snapshot was logged.", "none",
                Query('max by (run) (lezea_population_generation{run="$run"})'),
            ),
            stat(
                "Networks", "How many networks the newest snapshot holds, of all kinds.", "none",
                Query('sum(max by (kind) (lezea_population_networks{run="$run"}))'),
            ),
            stat(
                "Best fitness", "The best fitness in the newest snapshot.", "none",
                Query('max by (run) (lezea_population_fitness{run="$run", stat="max"})'),
            ),
            stat(
                "Modifications", "How many modifications were proposed so far.", "none",
                Query('sum(max by (type, verdict) (lezea_modifications_total{run="$run"}))'),
            ),
            stat(
                "Accepted", "The share of the modifications with a verdict that were accepted.", "percentunit",
                Query('max by (run) (lezea_modifications_accepted_ratio{run="$run"})'),
            ),
            stat(
                "Spent per accepted one",
                "What all modifications cost, the rejected ones too, for each that was accepted.", "currencyEUR",
                Query(
                    'sum(max by (verdict) (lezea_modification_cost_eur_total{run="$run"}))'
                    ' / sum(max by (type, verdict) (lezea_modifications_total{run="$run", verdict="accepted"}))'
                ),
            ),
            series(
                "Fitness", "The fitness of the networks in each snapshot of the population.", "none",
                Query('max by (stat) (lezea_population_fitness{run="$run"})', "{{stat}}"), low=None,
            ),
            series(
                "Networks by kind", "How many networks of each kind each snapshot held.", "none",
                Query('max by (kind) (lezea_population_networks{run="$run"})', "{{kind}}"), stacked=True,
            ),
        ],
        "Modifications": [
            series(
                "Modifications per minute", "How many modifications got which verdict, in each minute.", "cpm",
                Query(
                    '60 * sum by (verdict) (rate(lezea_modifications_total{run="$run"}[$__rate_interval]))',
                    "{{verdict}}",
                ),
                stacked=True,
            ),
            series(
                "Share that is accepted",
                "Of all with a verdict so far. A share that falls while fitness stands still says that the operators "
                "find nothing any more.", "percentunit",
                Query('max by (run) (lezea_modifications_accepted_ratio{run="$run"})', "accepted"), high=1,
            ),
            bars(
                "By operator and verdict", "How many modifications of each type got which verdict.", "none",
                Query('max by (type, verdict) (lezea_modifications_total{run="$run"})', "{{type}} {{verdict}}"),
            ),
            bars(
                "What they cost",
                "What was spent on modifications, by verdict: the rejected ones are what dead branches cost.",
                "currencyEUR",
                Query('max by (verdict) (lezea_modification_cost_eur_total{run="$run"})', "{{verdict}}"),
            ),
            table(
                "Operators", "How often each operator was tried, and how often what it made was accepted.",
                [
                    Column(
                        "Proposed", "none",
                        'sum by (type) (max by (type, verdict) (last_over_time(lezea_modifications_total{run="$run"}'
                        "[$__range])))",
                    ),
                    Column(
                        "Accepted", "none",
                        "sum by (type) (max by (type, verdict) (last_over_time("
                        'lezea_modifications_total{run="$run", verdict="accepted"}[$__range])))',
                    ),
                    Column(
                        "Share", "percentunit",
                        "sum by (type) (max by (type, verdict) (last_over_time("
                        'lezea_modifications_total{run="$run", verdict="accepted"}[$__range])))'
                        " / sum by (type) (max by (type, verdict) (last_over_time("
                        'lezea_modifications_total{run="$run"}[$__range])))',
                    ),
                ],
                labels={"type": "Operator"},
            ),
        ],
    }  # fmt: skip
