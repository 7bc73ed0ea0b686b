"""Samples of what a process, its GPUs and its host use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lezea_mlops.capture.asking import PATIENCE_S, Asker, Turn, known
from lezea_mlops.capture.gpu_usage import GpuUsage
from lezea_mlops.capture.host_usage import HostLook, HostUsage
from lezea_mlops.capture.process_usage import ProcessLook, ProcessUsage

log = logging.getLogger("lezea_mlops")

MAIN_WRITER = "main"


class Look(NamedTuple):
    """What one look at everything tells."""

    process: ProcessLook | None
    host: HostLook | None
    gpus: list[dict[str, Any]]


class UsageSampler:
    """Samples a process with its children, the GPUs and the host.

    Guarantees:
        * Each value fails alone: one that is not known is absent, and the others come. Each kind of failure is told
          once.
        * A driver or a disk that does not answer delays a sample by a few seconds at most, and the next ones not at
          all; it leaves at most two threads behind.
        * The counters of a process never fall, and what a child has used counts once, also when it has ended.

    Args:
        pid: the process, which may be this one.
        writer: the name of its journal's writer.
        folder: a folder on the disk that is looked at.
        period_s: the time between two samples, which a sample tells.
        excluded: children of the process that do not count, with all that they start.
        nvml: the module ``pynvml``, or one with its functions; imported by default.
        notice: takes a sentence for a person for each kind of failure; a warning in the log by default.
        asker: asks the questions; one that sends its notices to *notice* by default.
        clock: a monotonic one, in seconds; nothing is measured by the wall's.
    """

    def __init__(
        self,
        pid: int,
        writer: str,
        folder: Path,
        period_s: float,
        *,
        excluded: Collection[int] = (),
        nvml: Any = None,
        notice: Callable[[str], None] = log.warning,
        asker: Asker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = {"writer": writer, "pid": pid, "period_s": period_s}
        self._component_id = "process" if writer == MAIN_WRITER else f"process:{writer}"
        self._asker = asker or Asker(notice, PATIENCE_S)
        self._process = ProcessUsage(pid, excluded, clock)
        self._host = HostUsage(folder)
        self._gpus = GpuUsage(nvml, clock)
        self._asker.collect(self._process.open)

    def sample(self) -> dict[str, Any]:
        """Return the fields of a ``resource`` record with a ``sample``; empty once the process has ended."""
        look = self._asker.collect(self._look)
        if look is None or self._process.gone:
            return {}
        sample: dict[str, Any] = dict(self._identity)
        beside: dict[str, Any] = {}
        if look.process is not None:
            sample["process"] = self._process.settle(look.process)
            beside = self._process.since_before(look.process, sample["process"])
        if look.gpus:
            sample["gpus"] = look.gpus
        if look.host is not None and (host := self._host.settle(look.host)):
            sample["host"] = host
        return known({
            "component_id": self._component_id, "component_type": "process", **beside,
            "gpu_util_percent": _utilisation(look.gpus), "sample": sample,
        })  # fmt: skip

    def close(self) -> None:
        """Let the GPUs' library go; a second time does nothing."""
        self._asker.collect(self._gpus.close)

    def _look(self, turn: Turn[Look]) -> Look:
        process = self._process.look(turn)
        if self._process.gone:
            return Look(None, None, [])
        pids = process.pids if process is not None else ()
        return Look(process, self._host.look(turn), self._gpus.look(turn, pids))


def _utilisation(gpus: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the utilisation of the GPUs that are held, summed; of all of which nobody can tell."""
    ours = [gpu for gpu in gpus if gpu.get("held", True)]
    told = [gpu["util_percent"] for gpu in ours if "util_percent" in gpu]
    # A process that holds no GPU uses none; one whose GPUs do not tell may use any part of them.
    return None if not gpus or (ours and not told) else float(sum(told))
