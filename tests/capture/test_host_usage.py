"""What the host does, and what of it belongs to a container."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lezea_mlops.capture import host_usage
from lezea_mlops.capture.asking import Asker
from lezea_mlops.capture.host_usage import HostLook, HostUsage, Memory, MemoryLimit, Transfer

# A question may take so long on a machine that stands still for a while.
PATIENCE_S = 60.0
HOST = Memory(6_000, 10_000)
ALL = {
    "cpu_percent", "memory_used_bytes", "memory_total_bytes", "disk_used_bytes", "disk_total_bytes", "disk_read_bytes",
    "disk_write_bytes", "network_received_bytes", "network_sent_bytes",
}  # fmt: skip
READERS = {
    "read_processors": {"cpu_percent"},
    "read_memory": {"memory_used_bytes", "memory_total_bytes"},
    "read_disk_transfer": {"disk_read_bytes", "disk_write_bytes"},
    "read_network_transfer": {"network_received_bytes", "network_sent_bytes"},
}


def looked(usage: HostUsage, notice: Callable[[str], None] = [].append) -> dict[str, Any]:
    """Return one sample of the host."""
    look = Asker(notice, PATIENCE_S).collect(usage.look)
    assert look is not None
    return usage.settle(look)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may leave some of it untold")
def test_this_host_tells_everything(tmp_path: Path) -> None:
    """Transfers begin with zero; everything but the load is known at once, and can be true."""
    first = looked(HostUsage(tmp_path))
    assert {name: first[name] for name in ALL if "network" in name or "read" in name or "write" in name} == {
        "disk_read_bytes": 0, "disk_write_bytes": 0, "network_received_bytes": 0, "network_sent_bytes": 0,
    }  # fmt: skip
    assert 0 < first["memory_used_bytes"] <= first["memory_total_bytes"]
    assert 0 < first["disk_used_bytes"] <= first["disk_total_bytes"]
    assert first.keys() == ALL - {"cpu_percent"}


def test_the_load_is_that_of_the_time_since_the_sample_before(tmp_path: Path) -> None:
    """30 of 120 seconds of all processors are 25 %; the first sample, and one without growth, tell no load."""
    usage = HostUsage(tmp_path)
    readings = [
        (100.0, 1_000.0),
        (130.0, 1_120.0),
        (130.0, 1_120.0),
        None,
        (140.0, 1_130.0),
        (150.0, 1_140.0),
    ]
    loads = [usage.settle(HostLook(r, None, None, None, None)).get("cpu_percent") for r in readings]
    assert loads == [None, 25.0, None, None, None, 100.0]


@pytest.mark.parametrize("reader", READERS)
def test_a_value_fails_alone(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one part of the system refuses is absent and told once; the others come."""
    notices: list[str] = []

    def refuse(*_arguments: object) -> None:
        raise PermissionError("not for you")

    usage, asker = HostUsage(tmp_path), Asker(notices.append)
    monkeypatch.setattr(host_usage, reader, refuse)
    first, second = (usage.settle(asker.collect(usage.look)) for _ in range(2))
    assert ALL - first.keys() - {"cpu_percent"} == READERS[reader] - {"cpu_percent"}
    assert second.keys() & READERS[reader] == set()
    assert len(notices) == 1
    assert "not for you" in notices[0]


def test_a_folder_that_is_gone_costs_the_disk_alone(tmp_path: Path) -> None:
    """A mount that was taken away leaves the other values."""
    notices: list[str] = []
    host = looked(HostUsage(tmp_path / "away"), notices.append)
    assert "memory_total_bytes" in host
    assert host.keys() & {"disk_used_bytes", "disk_total_bytes"} == set()
    assert len(notices) == 1


def test_the_folder_stays_the_same_when_the_program_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder is meant from where the sampler began."""
    (tmp_path / "runs").mkdir()
    usage = HostUsage(Path("runs"))
    monkeypatch.chdir("/")
    assert looked(usage)["disk_total_bytes"] == psutil.disk_usage(str(tmp_path)).total


def test_figures_that_a_program_asks_psutil_for_stay_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of psutil that remembers what it said last, and so would say less to somebody else."""
    for name in ("cpu_percent", "cpu_times_percent"):
        monkeypatch.setattr(psutil, name, None)
    for name in ("disk_io_counters", "net_io_counters"):
        ask = getattr(psutil, name)
        # With nowrap, which is its own default, it keeps numbers for the whole program.
        monkeypatch.setattr(
            psutil,
            name,
            lambda *, nowrap, ask=ask, **other: ask(nowrap=nowrap, **other) if not nowrap else None,
        )
    notices: list[str] = []
    looked(HostUsage(tmp_path), notices.append)
    assert notices == []


def test_transfers_never_fall() -> None:
    """A network card that is taken away takes its bytes along; what went over it stays counted."""
    transfer = Transfer()
    assert [transfer.since_the_first(now) for now in (500, 700, 100, 150)] == [0, 200, 200, 250]


def test_loopback_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host sends to itself, as to its own MLflow, did not come from another machine."""

    class Card:
        bytes_recv, bytes_sent = 10, 20

    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: {"lo": Card, "eth0": Card, "wlan0": Card})
    assert host_usage.read_network_transfer() == (20, 40)


def cgroup(folder: Path, limit: str, **files: object) -> None:
    """Make a group with a limit, as version 2 of cgroups shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"memory.max": limit, **files}.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def test_a_container_has_its_own_memory(tmp_path: Path) -> None:
    """The tightest limit of all groups above counts; what is used is what cannot be given back at once."""
    cgroup(tmp_path / "slice", "2000", memory_current=900, memory_stat="anon 500\ninactive_file 300")
    cgroup(tmp_path / "slice/job", "max")
    (tmp_path / "own").write_text("0::/slice/job\n")
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == Memory(600, 2_000)


def test_inside_a_container_the_mount_itself_is_the_group(tmp_path: Path) -> None:
    """The path that the kernel tells may be the host's, and not be there."""
    cgroup(tmp_path, "3000", memory_current=1_000, memory_stat="inactive_file 0")
    (tmp_path / "own").write_text("0::/../../pods/42\n")
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == Memory(1_000, 3_000)


def test_the_first_version_of_cgroups_sets_limits_too(tmp_path: Path) -> None:
    """Its files have other names and stand below ``memory``."""
    group = tmp_path / "memory/docker/7f"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("4000\n")
    (group / "memory.usage_in_bytes").write_text("2500\n")
    (group / "memory.stat").write_text("cache 9\ntotal_inactive_file 500\n")
    (tmp_path / "own").write_text("5:cpu,cpuacct:/\n4:memory:/docker/7f\n0::/\n")
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == Memory(2_000, 4_000)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "10000"])
def test_a_limit_above_the_hosts_memory_is_none(limit: str, tmp_path: Path) -> None:
    """Groups without a limit say so with a word, or with a number that no machine has."""
    cgroup(tmp_path, limit)
    (tmp_path / "own").write_text("0::/\n")
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == HOST


def test_without_cgroups_the_memory_is_the_hosts(tmp_path: Path) -> None:
    """macOS and Windows have none."""
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == HOST


def test_a_limit_whose_use_is_not_told_is_a_limit(tmp_path: Path) -> None:
    """What the whole host uses is not the use of a container, so only the total is known."""
    cgroup(tmp_path, "2000")
    (tmp_path / "own").write_text("0::/\n")
    assert MemoryLimit(tmp_path, tmp_path / "own").apply(HOST) == Memory(None, 2_000)
