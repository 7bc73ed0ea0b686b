"""The dashboard of what a run uses, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.stack.looks import RATIO
from scripts.stack.panels import (
    GREEN,
    RED,
    YELLOW,
    Column,
    Panel,
    Query,
    bars,
    series,
    stat,
    table,
    thresholds,
)


def resources() -> Mapping[str, Sequence[Panel]]:
    """Return the panels about what a run uses, and what that costs."""
    return {
        "Costs": [*_costs()],
        "Processes of the run": [*_processes()],
        "Components": [*_components()],
        "GPUs": [*_gpus()],
        "Host": [*_host()],
    }


def _costs() -> Sequence[Panel]:
    spent = 'sum by (kind) (max by (kind) (lezea_cost_eur_total{run="$run"}))'
    per_hour = '3600 * sum by (kind) (rate(lezea_cost_eur_total{run="$run"}[5m]))'
    return [
        stat("Spent", "What the run has cost so far, by the rates that it was given.", "currencyEUR",
             Query(f"sum({spent})"), width=6),
        stat("Per hour", "What an hour costs at the pace of the last five minutes.", "currencyEUR",
             Query(f"sum({per_hour})"), width=6),
        stat("Energy", "Measured by the GPUs themselves, and estimated for processor cores where a power was given.",
             "kwatth", Query('max by (run) (lezea_energy_joules_total{run="$run"}) / 3.6e6'), width=6),
        stat("CO₂", "The energy, by the carbon intensity that the rates name.", "massg",
             Query('max by (run) (lezea_co2_grams_total{run="$run"})'), width=6),
        series("Spent by kind", "What was spent so far, by what it was spent on.", "currencyEUR",
               Query(spent, "{{kind}}"), stacked=True),
        series("Spent per hour by kind", "At the pace of the five minutes before each moment.", "currencyEUR",
               Query(per_hour, "{{kind}}"), stacked=True),
        bars("Budgets", "Which share of each budget is spent. 80 % and 100 % raise alerts; nothing is stopped.",
             "percentunit", Query('max by (branch) (lezea_budget_used_ratio{run="$run"})', "{{branch}}"), high=1,
             looks=thresholds((None, GREEN), (0.8, YELLOW), (1, RED))),
        table("Budgets in euros", "What each branch may spend, and which share of it is spent.",
              [Column("Budget", "currencyEUR",
                      'max by (branch) (last_over_time(lezea_budget_eur{run="$run"}[$__range]))'),
               Column("Used", "percentunit",
                      'max by (branch) (last_over_time(lezea_budget_used_ratio{run="$run"}[$__range]))')],
              labels={"branch": "Branch"}, width=12, height=8),
    ]  # fmt: skip


def _processes() -> Sequence[Panel]:
    return [
        series("Processor cores", "How many cores each process of the run keeps busy, its children included.", "none",
               Query('sum by (writer) (rate(lezea_process_cpu_seconds_total{run="$run"}[$__rate_interval]))',
                     "{{writer}}")),
        series("Memory", "What each process and its children hold in memory.", "bytes",
               Query('max by (writer) (lezea_process_memory_bytes{run="$run"})', "{{writer}}"), stacked=True),
        series("Reading and writing", "What processes read from disks and wrote to them.", "binBps",
               Query('sum by (writer) (rate(lezea_process_read_bytes_total{run="$run"}[$__rate_interval]))',
                     "{{writer}} reads"),
               Query('sum by (writer) (rate(lezea_process_written_bytes_total{run="$run"}[$__rate_interval]))',
                     "{{writer}} writes"), width=24),
    ]  # fmt: skip


def _components() -> Sequence[Panel]:
    def total(name: str) -> str:
        return (
            f"sum by (component, component_type) (max by (component, component_type)"
            f' (last_over_time({name}{{run="$run"}}[$__range])))'
        )

    def per_type(name: str) -> str:
        return f'sum by (component_type) (rate({name}{{run="$run"}}[$__rate_interval]))'

    measured = 'sum(max by (component, component_type) (lezea_component_cpu_seconds_total{run="$run"}))'
    return [
        series("Processor cores by type", "What components of each type keep busy, as measured where they work.",
               "none", Query(per_type("lezea_component_cpu_seconds_total"), "{{component_type}}"),
               Query('rate(lezea_unattributed_cpu_seconds_total{run="$run"}[$__rate_interval])', "unattributed"),
               stacked=True),
        series("Memory by type", "What components of each type held, on average over the time around each moment.",
               "bytes", Query(per_type("lezea_component_memory_byte_seconds_total"), "{{component_type}}"),
               stacked=True),
        stat("Attributed", "The share of the run's processor time that some component answers for.", "percentunit",
             Query(f'{measured} / ({measured} + max(lezea_unattributed_cpu_seconds_total{{run="$run"}}))'), width=6),
        bars("Ten components with the most processor time", "Processor time since the run began.", "s",
             Query('topk(10, max by (component) (lezea_component_cpu_seconds_total{run="$run"}))', "{{component}}"),
             width=18),
        table("Components", "What each component used since the run began: time that it took, processor time, memory "
              "(a gibibyte held for an hour is one GiB-hour) and time of GPUs. Beyond fifty components, the one called "
              "other stands for the rest of its type.",
              [Column("Time", "s", total("lezea_component_wall_seconds_total")),
               Column("Processor", "s", total("lezea_component_cpu_seconds_total")),
               Column("Memory (GiB-hours)", "none",
                      total("lezea_component_memory_byte_seconds_total") + " / (3600 * 2^30)"),
               Column("GPU", "s", total("lezea_component_gpu_seconds_total"))],
              labels={"component": "Component", "component_type": "Type"}, height=10),
    ]  # fmt: skip


def _gpus() -> Sequence[Panel]:
    def each(name: str) -> Query:
        return Query(f'max by (gpu, name) ({name}{{run="$run"}})', "{{gpu}} {{name}}")

    return [
        series("Use", "How much of the time each GPU worked, for whomever.", "percentunit",
               each("lezea_gpu_utilization_ratio"), high=1),
        series("GPU memory", "What is held in the memory of each GPU, by whomever.", "bytes",
               each("lezea_gpu_memory_used_bytes")),
        series("Power", "What each GPU draws.", "watt", each("lezea_gpu_power_watts")),
        series("Temperature", "How hot each GPU is. Most slow down from about 85 °C on.", "celsius",
               each("lezea_gpu_temperature_celsius"), low=None),
    ]  # fmt: skip


def _host() -> Sequence[Panel]:
    return [
        stat("Disk", "How full the disk with the run folder is. 90 % and 98 % raise alerts.", "percentunit",
             Query('max by (run) (lezea_host_disk_used_ratio{run="$run"})'), width=6, looks=RATIO),
        series("Processors", "How busy all processor cores of the host are, for whomever.", "percentunit",
               Query('max by (run) (lezea_host_cpu_ratio{run="$run"})', "busy"), width=6, high=1),
        series("Memory of the host", "What is in use, by whomever.", "bytes",
               Query('max by (run) (lezea_host_memory_used_bytes{run="$run"})', "used"), width=6),
        series("Network", "What the host received and sent, for whomever.", "binBps",
               Query('sum by (run) (rate(lezea_host_network_received_bytes_total{run="$run"}[$__rate_interval]))',
                     "received"),
               Query('sum by (run) (rate(lezea_host_network_sent_bytes_total{run="$run"}[$__rate_interval]))',
                     "sent"), width=6),
    ]  # fmt: skip
