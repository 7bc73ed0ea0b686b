"""What GPUs do, through a driver of which every answer may fail, hang, or make no sense."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from lezea_mlops.capture.asking import Asker
from lezea_mlops.capture.gpu_usage import GpuUsage
from lezea_mlops.capture.usage import UsageSampler
from tests.capture.hanging import Hanging

GIB = 2**30
OURS, OTHER = 4_711, 99
UNKNOWN_UINT, UNKNOWN_ULONGLONG = 2**32 - 1, 2**64 - 1


class Driver(Hanging):
    """Stands in for the driver of a machine with two GPUs, for hardware cannot be broken by a test.

    It has the functions of ``pynvml`` that are called and that module's own constants and errors.

    Attributes:
        failing: by function, the error that it raises, for the first GPU where it is about one; or None, where it
            does not answer.
        calls: the functions that were called.
        hung: how many calls got no answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Exception | None] = {}
        self.calls: list[str] = []
        self.hung = 0
        self.gpus = [self.gpu(0), self.gpu(1)]

    @staticmethod
    def gpu(index: int) -> dict[str, Any]:
        """Return a GPU that one process of ours computes on, and somebody else draws."""
        return {
            "Name": "NVIDIA H200", "UUID": f"GPU-{index}", "UtilizationRates": SimpleNamespace(gpu=40 + index),
            "MemoryInfo": SimpleNamespace(used=3 * GIB, total=140 * GIB), "PowerUsage": 312_500, "Temperature": 54,
            "ComputeRunningProcesses": [SimpleNamespace(pid=OURS, usedGpuMemory=2 * GIB)],
            "GraphicsRunningProcesses": [SimpleNamespace(pid=OTHER, usedGpuMemory=GIB)],
            "MigMode": [0, 0], "MaxMigDeviceCount": 0, "slices": [],
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            return getattr(pynvml, name)
        return lambda *arguments: self._answer(name, *arguments)

    def _answer(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        if name in self.failing and (not arguments or arguments[0] in (0, self.gpus[0])):
            if (error := self.failing[name]) is not None:
                raise error
            self.hung += 1
            self.hang()
        match name.removeprefix("nvmlDeviceGet"), *arguments:
            case "nvmlInit" | "nvmlShutdown", *_:
                return None
            case "Count", *_:
                return len(self.gpus)
            case "HandleByIndex", index:
                if index >= len(self.gpus):
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
                return self.gpus[index]
            case "MigDeviceHandleByIndex", gpu, index:
                if gpu["slices"][index] is None:
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
                return gpu["slices"][index]
            case what, gpu, *_:
                if isinstance(gpu[what], Exception):
                    raise gpu[what]
                return gpu[what]

    def let_go(self) -> None:
        """Answer what hangs, and fail no more."""
        self.failing.clear()
        super().let_go()


@pytest.fixture
def driver() -> Iterator[Driver]:
    """A driver without a fault."""
    working = Driver()
    yield working
    working.let_go()


class Watch:
    """Looks at GPUs, at times that a test chooses."""

    def __init__(self, driver: Any, pids: tuple[int, ...] = (OURS,), on_host: bool = True) -> None:
        self.now_s = 0.0
        self.notices: list[str] = []
        self.pids = pids
        patience = getattr(driver, "patience", threading.Event.wait)
        self.asker = Asker(self.notices.append, wait=patience)
        self.usage = GpuUsage(driver, lambda: self.now_s, on_host)

    def look(self) -> list[dict[str, Any]]:
        """Return one sample of the GPUs, five seconds after the one before."""
        self.now_s += 5.0
        gpus = self.asker.collect(lambda turn: self.usage.look(turn, self.pids))
        assert gpus is not None
        return gpus


WHOLE = {
    "index": 0, "uuid": "GPU-0", "name": "NVIDIA H200", "util_percent": 40, "memory_used_bytes": 3 * GIB,
    "memory_total_bytes": 140 * GIB, "power_w": 312.5, "temperature_c": 54, "process_memory_bytes": 2 * GIB,
    "held": True,
}  # fmt: skip
SECOND = WHOLE | {"index": 1, "uuid": "GPU-1", "util_percent": 41}
# Each call, and what is missing of the first GPU where it fails; None where the GPU itself is.
CALLS: dict[str, set[str] | None] = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": set(),
    "nvmlDeviceGetHandleByIndex": None,
    "nvmlDeviceGetName": {"name"},
    "nvmlDeviceGetUUID": {"uuid"},
    "nvmlDeviceGetUtilizationRates": {"util_percent"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_bytes", "memory_total_bytes"},
    "nvmlDeviceGetPowerUsage": {"power_w"},
    "nvmlDeviceGetTemperature": {"temperature_c"},
    "nvmlDeviceGetComputeRunningProcesses": {"held", "process_memory_bytes"},
    "nvmlDeviceGetGraphicsRunningProcesses": set(),
    "nvmlDeviceGetMigMode": set(),
}
FAILURES = {
    "not supported": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
    "lost": pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST),
    "no permission": pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION),
    "a code of tomorrow": pynvml.NVMLError(4_242),
    "an error of its own": type("DriverMelted", (Exception,), {})("it melted"),
    "a defect": TypeError("an integer is required"),
    "hangs": None,
}


def expected_without(call: str) -> list[dict[str, Any]]:
    """Return what two GPUs say where *call* fails for the first one."""
    missing = CALLS[call]
    if missing is None:
        return [] if call == "nvmlInit" else [SECOND]
    return [{name: value for name, value in WHOLE.items() if name not in missing}, SECOND]


def test_everything_is_told(driver: Driver) -> None:
    """Each value of each GPU comes, as JSON."""
    watch = Watch(driver)
    assert watch.look() == [WHOLE, SECOND]
    assert json.loads(json.dumps(watch.look())) == [WHOLE, SECOND]
    assert watch.notices == []


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", CALLS)
def test_a_value_fails_alone(call: str, failure: str, driver: Driver) -> None:
    """Whatever one call does, all other values come, in every sample, and one notice is given at most."""
    driver.failing[call] = FAILURES[failure]
    watch = Watch(driver)
    for _ in range(4):
        assert watch.look() == expected_without(call)
    normal = (call, failure) == ("nvmlDeviceGetMigMode", "not supported")
    assert len(watch.notices) == (0 if normal else 1), watch.notices


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", CALLS)
def test_a_value_comes_back(call: str, failure: str, driver: Driver) -> None:
    """Once the call works again, also after a GPU was lost or NVML could not start, its value is there."""
    driver.failing[call] = FAILURES[failure]
    watch = Watch(driver)
    watch.look()
    driver.let_go()
    watch.now_s += 60.0
    watch.look()
    assert watch.look() == [WHOLE, SECOND]


@pytest.mark.parametrize("call", CALLS)
def test_a_value_that_fails_in_the_middle_of_a_run_fails_alone(call: str, driver: Driver) -> None:
    """What was learned before stays known; nothing is asked for again that never changes."""
    watch = Watch(driver)
    watch.look()
    driver.failing[call] = FAILURES["lost"]
    is_known = call.endswith(("Init", "Count", "HandleByIndex", "Name", "UUID"))
    assert watch.look() == ([WHOLE, SECOND] if is_known else expected_without(call))


def test_a_driver_that_locks_up_leaves_two_threads_behind(driver: Driver) -> None:
    """Where every call hangs, samples go on without GPUs, and later with them."""
    watch = Watch(driver)
    assert watch.look() == [WHOLE, SECOND]
    driver.failing = dict.fromkeys(CALLS, None)
    for _ in range(5):
        watch.look()
    assert driver.hung == 2
    assert len(watch.notices) == 2
    driver.let_go()
    assert watch.look() == [WHOLE, SECOND]


def test_a_lost_gpu_is_one_failure(driver: Driver) -> None:
    """It answers every question with the same error; that is told once, and the other GPU goes on."""
    watch = Watch(driver)
    watch.look()
    driver.failing = {
        call: FAILURES["lost"] for call in CALLS if call.startswith("nvmlDeviceGet") and "Count" not in call
    }
    lost = {"index": 0, "uuid": "GPU-0", "name": "NVIDIA H200"}
    assert [watch.look() for _ in range(3)] == [[lost, SECOND]] * 3
    assert len(watch.notices) == 1
    assert "GPU 0" in watch.notices[0]


def test_a_driver_that_was_loaded_anew_is_found(driver: Driver) -> None:
    """NVML is let go and started again within a minute, and not at every sample."""
    watch = Watch(driver)
    watch.look()
    gone = pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
    driver.failing = dict.fromkeys(CALLS, gone) | {"nvmlShutdown": gone}
    for _ in range(11):
        watch.look()
    assert driver.calls.count("nvmlInit") == 1
    driver.failing.clear()
    watch.look()
    assert watch.look() == [WHOLE, SECOND]
    assert driver.calls.count("nvmlInit") == 2
    assert len(watch.notices) == 1


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_machine_without_a_driver_is_a_normal_one(code: int, driver: Driver) -> None:
    """No GPUs and no notice; a driver that is loaded later is found."""
    driver.failing["nvmlInit"] = pynvml.NVMLError(code)
    watch = Watch(driver)
    assert [watch.look() for _ in range(3)] == [[], [], []]
    assert watch.notices == []
    assert len(driver.calls) == 1
    driver.failing.clear()
    watch.now_s += 60.0
    assert watch.look() == [WHOLE, SECOND]


def test_a_machine_without_gpus_is_a_normal_one(driver: Driver) -> None:
    """A driver that knows of none is asked again now and then; one may be plugged in."""
    gpus, driver.gpus = driver.gpus, []
    watch = Watch(driver)
    assert (watch.look(), watch.notices) == ([], [])
    driver.gpus = gpus
    watch.now_s += 60.0
    assert watch.look() == [WHOLE, SECOND]


def test_a_machine_without_the_library_is_a_normal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told, and the library is not looked for at every sample."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = Watch(None)
    assert (watch.look(), watch.look(), watch.notices) == ([], [], [])


@pytest.mark.parametrize(
    ("call", "answer", "missing"),
    [
        ("UtilizationRates", SimpleNamespace(gpu=UNKNOWN_UINT), {"util_percent"}),
        ("UtilizationRates", SimpleNamespace(gpu=101), {"util_percent"}),
        ("MemoryInfo", SimpleNamespace(used=UNKNOWN_ULONGLONG, total=GIB), {"memory_used_bytes", "memory_total_bytes"}),
        ("MemoryInfo", SimpleNamespace(used=0, total=0), {"memory_used_bytes", "memory_total_bytes"}),
        ("MemoryInfo", SimpleNamespace(used=0, total=UNKNOWN_ULONGLONG), {"memory_used_bytes", "memory_total_bytes"}),
        ("PowerUsage", UNKNOWN_UINT, {"power_w"}),
        ("PowerUsage", -1, {"power_w"}),
        ("PowerUsage", None, {"power_w"}),
        ("Temperature", "warm", {"temperature_c"}),
        ("UtilizationRates", SimpleNamespace(gpu=float("nan")), {"util_percent"}),
        ("MigMode", [], set()),
        ("ComputeRunningProcesses", [SimpleNamespace(pid=OURS, usedGpuMemory=200 * GIB)], {"process_memory_bytes"}),
        ("ComputeRunningProcesses", 7, {"held", "process_memory_bytes"}),
        ("Temperature", UNKNOWN_UINT, {"temperature_c"}),
        ("ComputeRunningProcesses", [SimpleNamespace(pid=OURS, usedGpuMemory=None)], {"process_memory_bytes"}),
        ("ComputeRunningProcesses", [SimpleNamespace(pid=OURS, usedGpuMemory=2**63)], {"process_memory_bytes"}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_not_known(call: str, answer: Any, missing: set[str], driver: Driver) -> None:
    """NVML fills what it does not know with ones; such a value is absent."""
    driver.gpus[0][call] = answer
    first = Watch(driver).look()[0]
    assert WHOLE.keys() - first.keys() == missing


def test_what_computes_and_draws_holds_its_memory_once(driver: Driver) -> None:
    """A process is in both lists with the same memory; several of ours are summed up."""
    driver.gpus[0]["GraphicsRunningProcesses"] = [SimpleNamespace(pid=OURS, usedGpuMemory=2 * GIB)]
    driver.gpus[1]["ComputeRunningProcesses"] += [SimpleNamespace(pid=5, usedGpuMemory=GIB)]
    first, second = Watch(driver, pids=(OURS, 5)).look()
    assert (first["process_memory_bytes"], second["process_memory_bytes"]) == (2 * GIB, 3 * GIB)


def test_a_gpu_of_others_is_not_held(driver: Driver) -> None:
    """On the host itself a GPU that does not list us is not ours."""
    first = Watch(driver, pids=(1,)).look()[0]
    assert (first["held"], first["process_memory_bytes"]) == (False, 0)


def test_in_a_container_nobody_knows_who_holds_a_gpu(driver: Driver) -> None:
    """The driver numbers processes as the host does; not to be listed says nothing there, until one of us is."""
    watch = Watch(driver, pids=(1,), on_host=False)
    assert [gpu.keys() & {"held", "process_memory_bytes"} for gpu in watch.look()] == [set(), set()]
    driver.gpus[1]["ComputeRunningProcesses"] = [SimpleNamespace(pid=1, usedGpuMemory=GIB)]
    watch.look()
    assert [gpu["held"] for gpu in watch.look()] == [False, True]


def test_an_older_driver_lists_processes_in_its_own_form(driver: Driver) -> None:
    """Before 510 there is no third version of the lists."""
    unknown = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    for gpu in driver.gpus:
        for use in ("Compute", "Graphics"):
            gpu[f"{use}RunningProcesses_v2"], gpu[f"{use}RunningProcesses"] = (
                gpu[f"{use}RunningProcesses"],
                unknown,
            )
    watch = Watch(driver)
    assert (watch.look(), watch.notices) == ([WHOLE, SECOND], [])


def test_text_may_come_as_bytes(driver: Driver) -> None:
    """Older versions of the library answer so."""
    driver.gpus[0] |= {"Name": b"NVIDIA H200", "UUID": b"GPU-0"}
    assert Watch(driver).look() == [WHOLE, SECOND]


def sliced(driver: Driver, *processes: list[SimpleNamespace]) -> Driver:
    """Cut the first GPU in slices with these processes, of which the last one is not in use."""
    refused = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    forbidden = pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
    slices = [
        {"ComputeRunningProcesses": listed, "GraphicsRunningProcesses": refused} for listed in processes
    ]
    driver.gpus[0] |= {
        "MigMode": [1, 1], "MaxMigDeviceCount": len(slices) + 1, "slices": [*slices, None], "UtilizationRates": refused,
        "PowerUsage": refused, "MemoryInfo": forbidden, "ComputeRunningProcesses": forbidden,
    }  # fmt: skip
    return driver


def test_a_gpu_in_slices_is_a_normal_one(driver: Driver) -> None:
    """What a whole GPU does is not told there; we hold it where one of its slices has us. Nothing is noticed."""
    ours, other = (SimpleNamespace(pid=pid, usedGpuMemory=GIB) for pid in (OURS, OTHER))
    watch = Watch(sliced(driver, [other], [ours, other]))
    temperature = {name: WHOLE[name] for name in ("index", "uuid", "name", "temperature_c")}
    assert watch.look() == [temperature | {"process_memory_bytes": GIB, "held": True}, SECOND]
    assert watch.notices == []


def test_a_gpu_in_slices_of_others_is_not_held(driver: Driver) -> None:
    """All slices say who is on them."""
    other = SimpleNamespace(pid=OTHER, usedGpuMemory=GIB)
    assert Watch(sliced(driver, [other], [])).look()[0]["held"] is False


def sampler_with(driver: Driver, folder: Path, notice: Callable[[str], None] = [].append) -> UsageSampler:
    """Return a sampler of this process whose GPUs are those of *driver*, listing this process as ours."""
    for gpu in driver.gpus:
        for process in gpu["ComputeRunningProcesses"]:
            process.pid = os.getpid()
    return UsageSampler(
        os.getpid(), "main", folder, 5.0, nvml=driver, asker=Asker(notice, wait=driver.patience)
    )


def test_a_sample_has_the_gpus_and_their_sum(driver: Driver, tmp_path: Path) -> None:
    """The utilisation of a record is that of all GPUs that the process holds; a closed sampler has let NVML go."""
    sampler = sampler_with(driver, tmp_path)
    fields = sampler.sample()
    assert fields["gpu_util_percent"] == 81.0
    assert fields["sample"]["gpus"] == [WHOLE, SECOND]
    driver.gpus[1]["ComputeRunningProcesses"] = []
    assert sampler.sample()["gpu_util_percent"] == 40.0
    driver.gpus[0]["ComputeRunningProcesses"] = []
    assert sampler.sample()["gpu_util_percent"] == 0.0
    sampler.close()
    sampler.close()
    assert driver.calls.count("nvmlShutdown") == 1


def test_a_held_gpu_that_does_not_tell_leaves_the_sum_open(driver: Driver, tmp_path: Path) -> None:
    """Nothing is better than a zero that is none."""
    driver.gpus = [driver.gpus[0] | {"UtilizationRates": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)}]
    assert "gpu_util_percent" not in sampler_with(driver, tmp_path).sample()


def test_a_driver_that_hangs_leaves_process_and_host(driver: Driver, tmp_path: Path) -> None:
    """Their values are in every sample, whatever becomes of the GPUs."""
    driver.failing = dict.fromkeys(CALLS, None)
    notices: list[str] = []
    sampler = sampler_with(driver, tmp_path, notices.append)
    for _ in range(3):
        sample = sampler.sample()["sample"]
        assert {"process", "host"} <= sample.keys()
        assert {"cpu_s", "children_cpu_s", "memory_bytes"} <= sample["process"].keys()
        assert "gpus" not in sample
    assert len(notices) == 1
