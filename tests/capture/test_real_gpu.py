"""The GPUs of this machine, where it has some: every value of a real driver arrives."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.capture.usage import UsageSampler

ALWAYS = {"index", "uuid", "name", "memory_used_bytes", "memory_total_bytes", "power_w", "temperature_c"}
# Holds memory of the first GPU through CUDA's driver alone, until its input ends.
HOLDER = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")

def check(code, what):
    if code:
        sys.exit(f"{what}: CUDA error {code}")

check(cuda.cuInit(0), "cuInit")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
check(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(int(sys.argv[1]))), "cuMemAlloc")
check(cuda.cuMemsetD8_v2(memory, ctypes.c_ubyte(1), ctypes.c_size_t(int(sys.argv[1]))), "cuMemsetD8")
check(cuda.cuCtxSynchronize(), "cuCtxSynchronize")
print("holds", flush=True)
sys.stdin.read()
"""
HELD_BYTES = 256 * 2**20


@pytest.fixture(scope="module")
def nvml() -> Iterator[Any]:
    """NVML on a machine with a GPU."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"this machine has no NVIDIA GPU: {error}")
    if pynvml.nvmlDeviceGetCount() == 0:
        pytest.skip("the driver of this machine has no GPU")
    yield pynvml
    pynvml.nvmlShutdown()


@pytest.fixture
def notices() -> list[str]:
    """What a person would be told."""
    return []


@contextlib.contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process that holds memory of the first GPU."""
    command = [sys.executable, "-c", HOLDER, str(HELD_BYTES)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "holds\n":
            pytest.skip(f"CUDA cannot be used here: {process.stderr.read().strip()}")
        yield process
        process.communicate()


def is_sliced(nvml: Any, index: int) -> bool:
    """Tell whether a GPU is cut into MIG slices."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(index))[0])
    except nvml.NVMLError:
        return False


def test_every_value_of_every_gpu_arrives(nvml: Any, notices: list[str], tmp_path: Path) -> None:
    """Name, id, utilisation, memory, power and temperature, within what such a GPU can do; nothing is noticed."""
    sampler = UsageSampler(os.getpid(), "main", tmp_path, 5.0, notice=notices.append)
    gpus = sampler.sample()["sample"]["gpus"]
    sampler.close()
    assert [gpu["index"] for gpu in gpus] == list(range(nvml.nvmlDeviceGetCount()))
    for gpu in gpus:
        if is_sliced(nvml, gpu["index"]):
            continue
        assert ALWAYS | {"util_percent"} <= gpu.keys()
        assert gpu["name"]
        assert gpu["uuid"].startswith("GPU-")
        assert 0 <= gpu["memory_used_bytes"] <= gpu["memory_total_bytes"]
        assert 1 < gpu["power_w"] < 2_000
        assert 0 < gpu["temperature_c"] < 120
    assert notices == []


def test_memory_that_a_process_holds_is_seen(nvml: Any, notices: list[str], tmp_path: Path) -> None:
    """A GPU's memory grows by what a process takes; where the driver knows our pids, the process is seen to hold it."""
    before = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(0)).used
    with holder() as process:
        sampler = UsageSampler(process.pid, "main", tmp_path, 5.0, notice=notices.append)
        fields = sampler.sample()
        sampler.close()
    gpu = fields["sample"]["gpus"][0]
    assert gpu["memory_used_bytes"] >= before + HELD_BYTES // 2
    assert gpu.get("held", True) is True
    assert gpu.get("process_memory_bytes", HELD_BYTES) >= HELD_BYTES
    assert notices == []


def test_a_child_that_holds_a_gpu_counts_for_its_parent(
    nvml: Any, notices: list[str], tmp_path: Path
) -> None:
    """Sampled is this process, and the holder is its child."""
    with holder():
        sampler = UsageSampler(os.getpid(), "main", tmp_path, 5.0, notice=notices.append)
        gpu = sampler.sample()["sample"]["gpus"][0]
        sampler.close()
    assert gpu.get("held", True) is True
    assert gpu.get("process_memory_bytes", HELD_BYTES) >= HELD_BYTES
