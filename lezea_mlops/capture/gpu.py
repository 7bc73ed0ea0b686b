"""The NVIDIA GPUs of this machine, asked through NVML, the driver's own library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def capture_gpus() -> dict[str, Any]:
    """Describe the NVIDIA GPUs and their driver.

    Returns:
        ``{"available": False, "reason": …}`` without the library or the driver, which is the normal state of many
        machines. Otherwise ``available``, ``driver_version``, ``cuda_driver_version`` (for instance ``"12.4"``) and
        ``gpus``: for each, ``name``, ``uuid`` and ``memory_total_bytes``. A value that the driver refuses is None,
        and ``unknown`` beside it then tells why; the other values stay.
    """
    try:
        import pynvml
    except ImportError as error:
        return {"available": False, "reason": f"nvidia-ml-py is not installed: {error}"}
    return read_gpus(pynvml)


def read_gpus(nvml: Any) -> dict[str, Any]:
    """Describe the GPUs that *nvml*, the module ``pynvml`` or one with its functions, knows of."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"available": False, "reason": f"NVML cannot be used: {error}"}
    try:
        driver = _read(
            nvml,
            driver_version=lambda: nvml_text(nvml.nvmlSystemGetDriverVersion()),
            cuda_driver_version=lambda: _cuda_version(nvml.nvmlSystemGetCudaDriverVersion_v2()),
            gpus=lambda: [_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())],
        )
    finally:
        with contextlib.suppress(
            nvml.NVMLError
        ):  # the answers are in hand; a driver that will not let go is its own
            nvml.nvmlShutdown()
    return {"available": True} | driver


def _read_gpu(nvml: Any, index: int) -> dict[str, Any]:
    def device() -> Any:
        return nvml.nvmlDeviceGetHandleByIndex(index)

    return _read(
        nvml,
        name=lambda: nvml_text(nvml.nvmlDeviceGetName(device())),
        uuid=lambda: nvml_text(nvml.nvmlDeviceGetUUID(device())),
        memory_total_bytes=lambda: int(nvml.nvmlDeviceGetMemoryInfo(device()).total),
    )


def _read(nvml: Any, **questions: Callable[[], Any]) -> dict[str, Any]:
    """Ask each question; one that the driver does not answer becomes None, with the reason under ``unknown``."""
    answers: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for fact, ask in questions.items():
        try:
            answers[fact] = ask()
        except nvml.NVMLError as error:
            answers[fact], unknown[fact] = None, str(error)
    return answers | ({"unknown": unknown} if unknown else {})


def nvml_text(value: str | bytes) -> str:
    """Return *value* as text: versions of the library before 11.5 answer with bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _cuda_version(number: int) -> str:
    """Return ``"12.4"`` for the driver's 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"
