"""The NVIDIA GPUs of this machine. A machine without any, or without their library, is a normal one."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from lezea_mlops.capture import capture_gpus
from lezea_mlops.capture.gpu import read_gpus


def test_this_machine_has_an_answer() -> None:
    """Whatever hardware this runs on, the answer is whole: GPUs, or the reason why there are none."""
    facts = capture_gpus()
    if facts["available"]:
        assert all({"name", "uuid", "memory_total_bytes"} <= gpu.keys() for gpu in facts["gpus"])
    else:
        assert facts["reason"]
    assert json.loads(json.dumps(facts)) == facts


def test_a_missing_library_is_an_answer() -> None:
    """Without nvidia-ml-py the answer says what is missing."""
    program = (
        "import sys; sys.modules['pynvml'] = None; "
        "from lezea_mlops.capture.gpu import capture_gpus; print(capture_gpus())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "'available': False" in done.stdout
    assert "nvidia-ml-py is not installed" in done.stdout


class Driver:
    """Stands in for the driver of a machine with GPUs, for hardware cannot be installed by a test.

    It has the functions of ``pynvml`` that are called, and raises that module's own errors.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, **devices: dict[str, Any]) -> None:
        self.devices = list(devices.values())
        self.open = 0
        self.driver_version: Any = "550.54.15"

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> Any:
        if isinstance(self.driver_version, Exception):
            raise self.driver_version
        return self.driver_version

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self.devices[index]

    def nvmlDeviceGetName(self, device: dict[str, Any]) -> Any:
        return device["name"]

    def nvmlDeviceGetUUID(self, device: dict[str, Any]) -> Any:
        return device["uuid"]

    def nvmlDeviceGetMemoryInfo(self, device: dict[str, Any]) -> SimpleNamespace:
        if "memory" not in device:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=device["memory"])


@pytest.fixture
def driver() -> Driver:
    """Two GPUs; the second does not tell its memory."""
    return Driver(
        first={"name": "NVIDIA H200", "uuid": "GPU-1", "memory": 150_754_820_096},
        second={"name": b"Tesla K80", "uuid": b"GPU-2"},
    )


def test_gpus_and_driver_are_described(driver: Driver) -> None:
    """Name, id and memory of each GPU, the versions of the driver and of its CUDA."""
    facts = read_gpus(driver)
    assert facts["available"] is True
    assert (facts["driver_version"], facts["cuda_driver_version"]) == ("550.54.15", "12.4")
    assert facts["gpus"][0] == {
        "name": "NVIDIA H200",
        "uuid": "GPU-1",
        "memory_total_bytes": 150_754_820_096,
    }


def test_a_value_fails_alone(driver: Driver) -> None:
    """What one GPU does not tell is None, with the reason; everything else stays."""
    second = read_gpus(driver)["gpus"][1]
    assert (second["name"], second["uuid"], second["memory_total_bytes"]) == ("Tesla K80", "GPU-2", None)
    assert second["unknown"] == {"memory_total_bytes": "Not Supported"}


def test_a_driver_without_a_version_still_lists_its_gpus(driver: Driver) -> None:
    """A failed question about the driver does not hide the GPUs."""
    driver.driver_version = pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
    facts = read_gpus(driver)
    assert facts["driver_version"] is None
    assert facts["unknown"].keys() == {"driver_version"}
    assert len(facts["gpus"]) == 2


def test_the_library_is_closed_whatever_happens(driver: Driver) -> None:
    """NVML is shut down after an answer, and after an error that nobody expected."""
    read_gpus(driver)
    assert driver.open == 0
    driver.driver_version = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        read_gpus(driver)
    assert driver.open == 0
