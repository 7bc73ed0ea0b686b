"""What the NVIDIA GPUs do, through NVML.

A machine without GPUs, driver or library is a normal one. A driver may be loaded later, and a GPU that was lost may
come back, so NVML is started anew now and then where something is missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lezea_mlops._process import pid_namespace
from lezea_mlops.capture.asking import Judge, Question, Turn, every_failure, known
from lezea_mlops.capture.gpu import nvml_text

START_AGAIN_S = 60.0
# Where the driver does not say how many GPUs there are, they are tried in turn.
MOST_GPUS = 64
# What is beyond is no reading: NVML fills a field that it does not know with ones.
MOST_WATTS = 100_000
COLDEST_C, WARMEST_C = -60, 250
MOST_MEMORY_BYTES = 2**50
# Processes have the numbers that the driver knows in this namespace of the kernel; containers have others.
PIDS_OF_THE_HOST = "pid:[4026531836]"

NORMAL_WITHOUT_GPU = ("NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED")
NORMAL_WITHOUT_MIG = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_FUNCTION_NOT_FOUND")
# The values of a whole GPU may be refused to who sees a slice of it.
NORMAL_WITH_MIG = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_NO_PERMISSION")
NORMAL_BEYOND_THE_LAST = ("NVML_ERROR_INVALID_ARGUMENT", "NVML_ERROR_NOT_FOUND")
# These say nothing about the state of the driver; starting it anew would not help.
REFUSALS = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_NO_PERMISSION", "NVML_ERROR_FUNCTION_NOT_FOUND")

Number = TypeVar("Number", int, float)
# The processes on a GPU by pid, with the memory of each where it is told.
Listed = Mapping[int, "int | None"]


@dataclass
class Device:
    """A GPU of this machine, with what never changes of it."""

    index: int
    handle: Any = None
    name: str | None = None
    uuid: str | None = None


class GpuUsage:
    """Reads all GPUs.

    Args:
        nvml: the module ``pynvml``, or one with its functions; imported when it is needed by default.
        clock: a monotonic one, in seconds.
        pids_are_the_hosts: whether the driver numbers processes as this process does; found out by default.
    """

    def __init__(
        self,
        nvml: Any = None,
        clock: Callable[[], float] = time.monotonic,
        pids_are_the_hosts: bool | None = None,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        if pids_are_the_hosts is None:
            pids_are_the_hosts = sys.platform != "linux" or pid_namespace() == PIDS_OF_THE_HOST
        # A container may be told its own numbers all the same; then it finds one of its own at some time.
        self._knows_our_pids = pids_are_the_hosts
        self._started = False
        self._start_at_s = float("-inf")
        # None until they have been counted.
        self._devices: list[Device] | None = None

    def look(self, turn: Turn[Any], pids: Collection[int]) -> list[dict[str, Any]]:
        """Return the ``gpus`` of a sample; what is not known of a GPU is absent.

        Args:
            turn: asks the questions.
            pids: the processes by which a GPU counts as held.
        """
        is_counting = self._started and self._devices is None
        if is_counting or self._clock() >= self._start_at_s:
            self._start(turn)
        return [
            self._read(turn, device, pids) for device in self._devices or () if self._has_handle(turn, device)
        ]

    def close(self, turn: Turn[Any]) -> None:
        """Let NVML go."""
        if self._started:
            question = Question("gpu", "NVML", "end of its use")
            # Where the driver is gone there is nothing to let go.
            turn.ask(question, self._nvml.nvmlShutdown, lambda _question, _error: None)
            self._started, self._devices = False, None

    def _start(self, turn: Turn[Any]) -> None:
        """Start NVML and find the GPUs; the next look goes on with what hangs here."""
        if self._devices is not None:
            self.close(turn)
        if self._nvml is None:
            self._nvml = turn.ask(Question("gpu", "NVML", "library"), _imported, self._without_library)
        if self._nvml is None:
            return
        if not self._started:
            question = Question("gpu", "NVML", "state of the driver")
            if not turn.ask(question, lambda: _started(self._nvml), self._could_not_start):
                return
            self._started, self._start_at_s = True, float("inf")
        question = Question("gpu", "NVML", "number of GPUs")
        count = turn.ask(question, lambda: int(self._nvml.nvmlDeviceGetCount()), self._judge())
        self._devices = self._try_all(turn) if count is None else [Device(i) for i in range(count)]
        if not self._devices:
            self._start_anew_later()

    def _try_all(self, turn: Turn[Any]) -> list[Device]:
        devices: list[Device] = []
        for index in range(MOST_GPUS):
            device = Device(index)
            if not self._has_handle(turn, device, *NORMAL_BEYOND_THE_LAST):
                break
            devices.append(device)
        return devices

    def _has_handle(self, turn: Turn[Any], device: Device, *normal: str) -> bool:
        if device.handle is None:
            device.handle = self._ask(
                turn, device, "handle", lambda nvml: nvml.nvmlDeviceGetHandleByIndex(device.index), *normal
            )
        return device.handle is not None

    def _read(self, turn: Turn[Any], device: Device, pids: Collection[int]) -> dict[str, Any]:
        handle = device.handle

        def ask(fact: str, call: Callable[[Any], Any], *normal: str) -> Any:
            return self._ask(turn, device, fact, call, *normal)

        device.name = device.name or ask("name", lambda nvml: nvml_text(nvml.nvmlDeviceGetName(handle)))
        device.uuid = device.uuid or ask("UUID", lambda nvml: nvml_text(nvml.nvmlDeviceGetUUID(handle)))
        sliced = ask("MIG mode", lambda nvml: nvml.nvmlDeviceGetMigMode(handle)[0] == 1, *NORMAL_WITHOUT_MIG)
        normal = NORMAL_WITH_MIG if sliced else ()
        # Of a GPU in slices the driver does not tell the utilisation.
        utilisation = None if sliced else ask("utilisation", lambda nvml: _utilisation(nvml, handle))
        memory = ask("memory", lambda nvml: _memory(nvml.nvmlDeviceGetMemoryInfo(handle)), *normal)
        power_w = ask("power", lambda nvml: _power_w(nvml, handle), *normal)
        temperature_c = ask("temperature", lambda nvml: _temperature_c(nvml, handle), *normal)
        slices = self._slices(turn, device) if sliced else [("", handle)]
        listed = [self._processes(turn, device, *a_slice, normal) for a_slice in slices]
        used_bytes, total_bytes = memory or (None, None)
        return known({
            "index": device.index, "uuid": device.uuid, "name": device.name, "util_percent": utilisation,
            "memory_used_bytes": used_bytes, "memory_total_bytes": total_bytes,
            "power_w": power_w, "temperature_c": temperature_c,
        }) | self._hold(listed, pids, total_bytes)  # fmt: skip

    def _slices(self, turn: Turn[Any], device: Device) -> list[tuple[str, Any]]:
        """Return the MIG devices of a GPU, with a word for each."""
        count = self._ask(
            turn, device, "number of slices", lambda nvml: nvml.nvmlDeviceGetMaxMigDeviceCount(device.handle)
        )
        slices = []
        for number in range(count or 0):
            handle = self._ask(
                turn, device, f"slice {number}",
                lambda nvml, i=number: nvml.nvmlDeviceGetMigDeviceHandleByIndex(device.handle, i), # type: ignore[misc]
                *NORMAL_BEYOND_THE_LAST,
            )  # fmt: skip
            if handle is not None:
                slices.append((f" of slice {number}", handle))
        return slices

    def _processes(
        self, turn: Turn[Any], device: Device, where: str, handle: Any, normal: Iterable[str]
    ) -> tuple[Listed | None, Listed | None]:
        """Return what computes and what draws on a GPU or on a slice of it; None where that is not told."""
        compute, graphics = (
            self._ask(turn, device, f"list of {use.lower()} processes{where}", _lister(use, handle), *normal)
            for use in ("Compute", "Graphics")
        )
        return compute, graphics

    def _hold(
        self,
        listed: Collection[tuple[Listed | None, Listed | None]],
        pids: Collection[int],
        total_bytes: int | None,
    ) -> dict[str, Any]:
        """Say whether our processes hold a GPU, and how much of its memory; nothing where nobody can tell."""
        # Who computes and draws is in both lists, with the same memory.
        together = [dict(graphics or {}) | dict(compute or {}) for compute, graphics in listed]
        ours = [memory for processes in together for pid, memory in processes.items() if pid in pids]
        if ours:
            self._knows_our_pids = True
            memories = [memory for memory in ours if memory is not None]
            memory_bytes = _within(sum(memories), 0, total_bytes or MOST_MEMORY_BYTES)
            return known(
                {"process_memory_bytes": memory_bytes if len(memories) == len(ours) else None, "held": True}
            )
        if not self._knows_our_pids or not listed or any(compute is None for compute, _ in listed):
            return {}
        return {"process_memory_bytes": 0, "held": False}

    def _ask(
        self, turn: Turn[Any], device: Device, fact: str, call: Callable[[Any], Any], *normal: str
    ) -> Any:
        question = Question("gpu", f"GPU {device.index}", fact)
        return turn.ask(question, lambda: call(self._nvml), self._judge(*normal))

    def _judge(self, *normal: str) -> Judge:
        """Return who judges an error of NVML; *normal* are the names of those that mean a normal state."""

        def judge(question: Question, error: Exception) -> str | None:
            nvml = self._nvml
            if not isinstance(error, nvml.NVMLError):
                return every_failure(question, error)
            code = error.value
            if code in (getattr(nvml, name) for name in REFUSALS):
                return (
                    None if code in (getattr(nvml, name) for name in normal) else f"{question.fact}: {code}"
                )
            self._start_anew_later()
            # A GPU that is lost answers every question so, and that is one failure.
            return None if code in (getattr(nvml, name) for name in normal) else f"NVML: {code}"

        return judge

    def _could_not_start(self, question: Question, error: Exception) -> str | None:
        self._start_anew_later()
        return self._judge(*NORMAL_WITHOUT_GPU)(question, error)

    def _start_anew_later(self) -> None:
        now_s = self._clock()
        if not now_s < self._start_at_s < float("inf"):
            self._start_at_s = now_s + START_AGAIN_S

    def _without_library(self, question: Question, error: Exception) -> str | None:
        self._start_at_s = float("inf")
        return None if isinstance(error, ImportError) else every_failure(question, error)


def _imported() -> Any:
    import pynvml

    return pynvml


def _started(nvml: Any) -> bool:
    nvml.nvmlInit()
    return True


def _memory(info: Any) -> tuple[int, int] | None:
    """Return used and total bytes; None where they cannot be."""
    total_bytes = _within(info.total, 1, MOST_MEMORY_BYTES)
    used_bytes = None if total_bytes is None else _within(info.used, 0, total_bytes)
    return None if total_bytes is None or used_bytes is None else (used_bytes, total_bytes)


def _utilisation(nvml: Any, handle: Any) -> int | None:
    return _within(nvml.nvmlDeviceGetUtilizationRates(handle).gpu, 0, 100)


def _power_w(nvml: Any, handle: Any) -> float | None:
    return _within(nvml.nvmlDeviceGetPowerUsage(handle) / 1_000, 0, MOST_WATTS)


def _temperature_c(nvml: Any, handle: Any) -> int | None:
    return _within(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), COLDEST_C, WARMEST_C)


def _lister(use: str, handle: Any) -> Callable[[Any], Listed]:
    """Return a call that lists the processes of a kind of *use*, by pid with their memory."""
    function = f"nvmlDeviceGet{use}RunningProcesses"

    def ask(nvml: Any) -> Listed:
        try:
            processes = getattr(nvml, function)(handle)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                raise
            # Drivers before 510 know the older form alone.
            processes = getattr(nvml, f"{function}_v2")(handle)
        return {process.pid: _held_bytes(process.usedGpuMemory) for process in processes}

    return ask


def _held_bytes(used_bytes: int | None) -> int | None:
    return None if used_bytes is None else _within(used_bytes, 0, MOST_MEMORY_BYTES)


def _within(value: Number, lowest: float, highest: float) -> Number | None:
    """Return *value* if it can be a reading; None otherwise."""
    return value if lowest <= value <= highest else None
