"""The newest sample of each process, of each GPU and of the host, as series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops.sinks.prometheus.families import Exposition
from lezea_mlops.sinks.prometheus.labels import MAX_LABEL, DistinctCount, amount, finite, label_text

MAX_WRITERS = 32
MAX_GPUS = 16
_PERCENT = 100.0

_PROCESS_SERIES = {
    "lezea_process_cpu_seconds_total": ("cpu_s", "children_cpu_s"),
    "lezea_process_memory_bytes": ("memory_bytes", "children_memory_bytes"),
    "lezea_process_read_bytes_total": ("read_bytes",),
    "lezea_process_written_bytes_total": ("write_bytes",),
}
_HOST_SERIES = {
    "lezea_host_memory_used_bytes": "memory_used_bytes",
    "lezea_host_network_received_bytes_total": "network_received_bytes",
    "lezea_host_network_sent_bytes_total": "network_sent_bytes",
}

Values = dict[str, "float | None"]


class Machines:
    """What the samplers of a run said last."""

    def __init__(self, left_out: DistinctCount) -> None:
        self._left_out = left_out
        self._processes: dict[str, Values] = {}
        self._gpus: dict[str, tuple[str, str, Values]] = {}
        self._host: Values = {}
        self._host_of_main = False

    def take(self, sample: Mapping[str, Any]) -> None:
        """Take a sample."""
        writer = label_text(sample.get("writer"))
        process = sample.get("process")
        if isinstance(process, Mapping):
            if writer in self._processes or len(self._processes) < MAX_WRITERS:
                self._processes[writer] = {
                    name: _sum(process, fields) for name, fields in _PROCESS_SERIES.items()
                }
            else:
                self._left_out.add(("writer", writer), len(_PROCESS_SERIES))
        gpus = sample.get("gpus")
        for gpu in gpus if isinstance(gpus, list) else ():
            if isinstance(gpu, Mapping):
                self._take_gpu(gpu)
        host = sample.get("host")
        # The writers of a run may be on several hosts; the run's host is that of ``main``.
        if isinstance(host, Mapping) and (writer == "main" or not self._host_of_main):
            self._host_of_main = writer == "main"
            self._host = _of_host(host)

    def show(self, shown: Exposition) -> None:
        """Show all of it."""
        for writer, values in self._processes.items():
            for name, value in values.items():
                shown.add(name, value, writer)
        for index, gpu_name, values in self._gpus.values():
            for name, value in values.items():
                shown.add(name, value, index, gpu_name)
        for name, value in self._host.items():
            shown.add(name, value)

    def _take_gpu(self, gpu: Mapping[str, Any]) -> None:
        index = label_text(gpu.get("index"))
        identity = label_text(gpu.get("uuid")) or index
        known = self._gpus.get(identity)
        if known is None and len(self._gpus) >= MAX_GPUS:
            self._left_out.add(("gpu", identity), 4)
            return
        # Two hosts have a GPU 0 each.
        taken = {label for other, (label, _, _) in self._gpus.items() if other != identity}
        label = known[0] if known else identity if index in taken else index
        values: Values = {
            "lezea_gpu_utilization_ratio": _ratio(gpu.get("util_percent")),
            "lezea_gpu_memory_used_bytes": amount(gpu.get("memory_used_bytes")),
            "lezea_gpu_power_watts": amount(gpu.get("power_w")),
            "lezea_gpu_temperature_celsius": finite(gpu.get("temperature_c")),
        }
        self._gpus[identity] = (label, label_text(gpu.get("name"))[:MAX_LABEL], values)


def _of_host(host: Mapping[str, Any]) -> Values:
    values: Values = {name: amount(host.get(field)) for name, field in _HOST_SERIES.items()}
    values["lezea_host_cpu_ratio"] = _ratio(host.get("cpu_percent"))
    used, total = amount(host.get("disk_used_bytes")), amount(host.get("disk_total_bytes"))
    values["lezea_host_disk_used_ratio"] = used / total if used is not None and total else None
    return values


def _sum(process: Mapping[str, Any], fields: tuple[str, ...]) -> float | None:
    """Return the sum of what is known; None if nothing is."""
    known = [value for field in fields if (value := amount(process.get(field))) is not None]
    return sum(known) if known else None


def _ratio(percent: Any) -> float | None:
    value = amount(percent)
    return None if value is None else value / _PERCENT
