"""The machine and the process that a run happens in.

Everything here is read from the operating system directly and costs less than a millisecond. `platform.platform()`
and psutil give the same answers for 8 and 13 ms, which every start of a run would pay.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable
from typing import Any, TypeVar

_Fact = TypeVar("_Fact")

# The environment is full of secrets: what is not named here is never read.
ENVIRONMENT_VARIABLES = (
    "CONDA_DEFAULT_ENV",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MKL_NUM_THREADS",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "ROCR_VISIBLE_DEVICES",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_LOCALID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "VIRTUAL_ENV",
    "WORLD_SIZE",
    "XLA_FLAGS",
)


def capture_host() -> dict[str, Any]:
    """Describe this machine and this process; what the system does not tell is None.

    The command line is returned as it is: secrets in it are redacted where an event is built.
    """
    system = platform.uname()
    return {
        "hostname": _told(socket.gethostname),
        "platform": f"{system.system}-{system.release}-{system.machine}",
        "os": f"{system.system} {system.release}",
        "libc": _told(_libc),
        "machine": system.machine,
        "python_version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable or None,
        "cpu_count": os.cpu_count(),
        "cpu_usable_count": _told(_usable_cpus),
        "cpu_model": _told(_cpu_model),
        "memory_total_bytes": _told(_memory_total_bytes),
        "pid": os.getpid(),
        "cwd": _told(os.getcwd),
        "entrypoint": sys.argv[0] if sys.argv else None,
        "argv": list(sys.argv),
        "environment": {name: os.environ[name] for name in ENVIRONMENT_VARIABLES if name in os.environ},
    }


def _told(fact: Callable[[], _Fact]) -> _Fact | None:
    """Return what *fact* says; None where the system does not have it, or forbids it."""
    try:
        return fact()
    except (AttributeError, OSError, ValueError):
        return None


def _libc() -> str | None:
    return os.confstr("CS_GNU_LIBC_VERSION")


def _usable_cpus() -> int:
    """Count the processors that this process may run on: a job of a scheduler often gets only some."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str | None:
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_IDENTIFIER")
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as processors:
        # The first processor is enough; a machine with hundreds of them takes long to list them all.
        for line in processors:
            name, _, value = line.partition(":")
            if name.strip() in {"model name", "Hardware", "cpu model"}:
                return value.strip()
    return None


def _memory_total_bytes() -> int | None:
    if sys.platform != "win32":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)
