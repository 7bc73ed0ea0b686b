"""Every series that a run can have: its name with its unit, what it says, and what its labels are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from lezea_mlops.sinks.prometheus.labels import label_text

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# A run has at most so many series, this one included: ``lezea_series_dropped``.
MAX_SERIES = 1_000


class Family(NamedTuple):
    """What is said of all series of one name.

    Attributes:
        kind: a counter only rises, a gauge does what it likes.
        text: what it means.
        labels: names of the labels beside ``run``.
    """

    kind: Literal["counter", "gauge"]
    text: str
    labels: tuple[str, ...] = ()


_COMPONENT = ("component", "component_type")
_GPU = ("gpu", "name")

FAMILIES: dict[str, Family] = {
    "lezea_run_info": Family(
        "gauge", "The run's experiment, attempt and host; always 1.", ("experiment", "attempt", "host")
    ),
    "lezea_run_running": Family("gauge", "1 while the run has not ended, else 0."),
    "lezea_run_started_timestamp_seconds": Family("gauge", "When the newest attempt began, UTC."),
    "lezea_run_last_event_timestamp_seconds": Family("gauge", "When the newest event was logged, UTC."),
    "lezea_events_total": Family("counter", "Events of the journal by type.", ("type",)),
    "lezea_training_step": Family("gauge", "The greatest training step of the newest attempt."),
    "lezea_metric": Family("gauge", "The last value of a metric, by its name as in MLflow.", ("name",)),
    "lezea_nonfinite_values_total": Family("counter", "Values of metrics that were NaN or infinite."),
    "lezea_loss_nonfinite": Family(
        "gauge",
        "1 while the last value of a metric named loss is not finite, else 0; the losses of builders and taskers count "
        "as one metric.",
    ),
    "lezea_delivery_up": Family("gauge", "1 while the destination takes records, else 0.", ("sink",)),
    "lezea_delivery_lag_seconds": Family(
        "gauge", "How long ago the destination had everything; 0 while nothing waits.", ("sink",)
    ),
    "lezea_delivery_waiting_records": Family("gauge", "Records that wait for the destination.", ("sink",)),
    "lezea_delivery_records_total": Family("counter", "Records that the destination took.", ("sink",)),
    "lezea_delivery_rejected_total": Family(
        "counter", "Records that the destination can never take, and that were set aside.", ("sink",)
    ),
    "lezea_delivery_failures_total": Family(
        "counter", "Failed deliveries by reason.", ("sink", "reason")
    ),
    "lezea_process_cpu_seconds_total": Family(
        "counter", "CPU time of a writer's process and its children.", ("writer",)
    ),
    "lezea_process_memory_bytes": Family(
        "gauge", "Resident memory of a writer's process and its children.", ("writer",)
    ),
    "lezea_process_read_bytes_total": Family(
        "counter", "Bytes that a writer's process and its children read from storage.", ("writer",)
    ),
    "lezea_process_written_bytes_total": Family(
        "counter", "Bytes that a writer's process and its children wrote to storage.", ("writer",)
    ),
    "lezea_gpu_utilization_ratio": Family("gauge", "How busy the whole GPU was, 0 to 1.", _GPU),
    "lezea_gpu_memory_used_bytes": Family("gauge", "Memory of the GPU in use by anybody.", _GPU),
    "lezea_gpu_power_watts": Family("gauge", "Power that the GPU draws.", _GPU),
    "lezea_gpu_temperature_celsius": Family("gauge", "Temperature of the GPU.", _GPU),
    "lezea_host_cpu_ratio": Family("gauge", "How busy all cores of the host were, 0 to 1."),
    "lezea_host_memory_used_bytes": Family("gauge", "Memory of the host in use."),
    "lezea_host_disk_used_ratio": Family("gauge", "How full the disk is that holds the run folder, 0 to 1."),
    "lezea_host_network_received_bytes_total": Family("counter", "Bytes that the host received."),
    "lezea_host_network_sent_bytes_total": Family("counter", "Bytes that the host sent."),
    "lezea_component_cpu_seconds_total": Family("counter", "CPU time of a component.", _COMPONENT),
    "lezea_component_wall_seconds_total": Family(
        "counter", "Wall time that was measured inside a component.", _COMPONENT
    ),
    "lezea_component_memory_byte_seconds_total": Family(
        "counter", "Memory of a component, integrated over time.", _COMPONENT
    ),
    "lezea_component_gpu_seconds_total": Family(
        "counter", "GPU time of a component, weighted by utilization.", _COMPONENT
    ),
    "lezea_unattributed_cpu_seconds_total": Family("counter", "CPU time that belongs to no component."),
    "lezea_cost_eur_total": Family("counter", "Cost of the run by kind, in EUR.", ("kind",)),
    "lezea_modification_cost_eur_total": Family(
        "counter", "Cost of modifications by what became of them, in EUR.", ("verdict",)
    ),
    "lezea_energy_joules_total": Family("counter", "Energy that the run took."),
    "lezea_co2_grams_total": Family("counter", "Carbon dioxide of that energy."),
    "lezea_budget_eur": Family("gauge", "The budget of a branch, in EUR.", ("branch",)),
    "lezea_budget_used_ratio": Family(
        "gauge", "How much of the budget of a branch is spent; 1 is all of it.", ("branch",)
    ),
    "lezea_population_networks": Family("gauge", "Networks of the newest generation by kind.", ("kind",)),
    "lezea_population_generation": Family("gauge", "The newest generation."),
    "lezea_population_fitness": Family(
        "gauge", "Fitness in the newest generation: max, mean, min.", ("stat",)
    ),
    "lezea_modifications_total": Family(
        "counter", "Proposed modifications by type and verdict.", ("type", "verdict")
    ),
    "lezea_modifications_accepted_ratio": Family(
        "gauge", "Accepted modifications among those that were accepted or rejected, 0 to 1."
    ),
    "lezea_series_dropped": Family(
        "gauge", "Series that are not shown on their own, because a run has at most 1000; counted up to 10000 names."
    ),
}  # fmt: skip


class Exposition:
    """The series of one run as they come together, never more than ``MAX_SERIES``.

    Attributes:
        room: how many more there may be; one place is kept for ``lezea_series_dropped``.
        dropped: how many found no place.
    """

    def __init__(self, run_id: str) -> None:
        self.room = MAX_SERIES - 1
        self.dropped = 0
        self._run = label_text(run_id)
        self._rows: dict[str, dict[tuple[str, ...], float]] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """Show a value; None is a value that is not known, and is not shown.

        Args:
            name: of the family.
            value: what is shown.
            labels: the values of the family's labels, in their order, as ``label_text`` returned them.
        """
        if value is None:
            return
        rows = self._rows.setdefault(name, {})
        if labels not in rows:
            if not self.room:
                self.dropped += 1
                return
            self.room -= 1
        # Prometheus refuses a page on which a series stands twice.
        rows[labels] = value

    def show_dropped(self, elsewhere: int) -> None:
        """Show how many series were left out, with *elsewhere* that were never added; the last thing that is added."""
        self._rows["lezea_series_dropped"] = {(): float(self.dropped + elsewhere)}

    def families(self) -> Iterator[Metric]:
        """Yield what was added as families of ``prometheus_client``."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, family in FAMILIES.items():
            rows = self._rows.get(name)
            if not rows:
                continue
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(name, family.text, labels=("run", *family.labels))
            for labels, value in rows.items():
                metric.add_metric((self._run, *labels), value)
            yield metric
