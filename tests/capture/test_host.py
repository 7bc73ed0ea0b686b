"""The machine and the process that a run happens in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops.capture import capture_host


def test_the_process_is_identified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pid, folder and command line are those of this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    facts = capture_host()
    assert (facts["pid"], facts["cwd"]) == (os.getpid(), str(tmp_path))
    assert (facts["entrypoint"], facts["argv"]) == ("train.py", ["train.py", "--lr", "0.1"])
    assert facts["python_version"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may leave some of it untold")
def test_linux_tells_everything_about_the_machine() -> None:
    """On Linux no fact about the machine is missing, and the numbers are plausible."""
    facts = capture_host()
    for name in ("hostname", "platform", "os", "libc", "machine", "executable"):
        assert facts[name], name
    assert 1 <= facts["cpu_usable_count"] <= facts["cpu_count"]
    assert facts["memory_total_bytes"] > 64 * 1024 * 1024


def test_the_facts_are_plain_values() -> None:
    """The facts can be written as JSON and come back equal."""
    facts = capture_host()
    assert json.loads(json.dumps(facts)) == facts


def test_only_named_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rank and the visible GPUs are kept, a key in the environment is not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("CLOUD_SECRET_KEY", "do-not-tell")
    facts = capture_host()
    assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert facts["environment"]["RANK"] == "2"
    assert "do-not-tell" not in json.dumps(facts)


def test_a_variable_that_is_not_set_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable and an empty one are told apart."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    environment = capture_host()["environment"]
    assert "SLURM_JOB_ID" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_deleted_folder_is_untold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process whose folder was deleted has no folder, and everything else."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    facts = capture_host()
    assert facts["cwd"] is None
    assert facts["pid"] == os.getpid()


def test_an_interpreter_without_arguments_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter has no command line."""
    monkeypatch.setattr(sys, "argv", [])
    facts = capture_host()
    assert (facts["entrypoint"], facts["argv"]) == (None, [])


def test_numpy_and_psutil_stay_unimported() -> None:
    """Describing the host loads no third-party package."""
    program = (
        "import sys; from lezea_mlops.capture.host import capture_host; capture_host(); "
        "print([name for name in ('numpy', 'psutil', 'git') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
