"""What a process and its children use, read from real processes."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.capture.asking import Asker
from lezea_mlops.capture.couriers import COURIER_MARK
from lezea_mlops.capture.process_usage import ENOUGH_TO_BE_ITSELF_S, SHARE_OF_A_CORE
from lezea_mlops.capture.usage import UsageSampler

# Does as it is told, and has children that do so too; the last line is what the kernel says of its ended children.
FAMILY = """
import json, os, resource, subprocess, sys, time

def burn():
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass

def tell(child, *order):
    child.stdin.write(json.dumps(order) + "\\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())

def end(child, how):
    child.kill() if how == "kill" else child.stdin.close()
    if how == "forget":
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        forgotten.append(child)
    else:
        child.wait()

children, forgotten = [], []
for line in sys.stdin:
    kind, *rest = json.loads(line)
    answer = None
    if kind in ("start", "courier"):
        command = [sys.executable, "-S", "-E", "-c", sys.argv[1], sys.argv[1]]
        if kind == "courier":
            command[1:4] = ["-I", "-c", *rest]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        answer = children[-1].pid
    elif kind == "burn":
        burn()
    elif kind == "become":
        print("null", flush=True)
        os.execv(sys.executable, [sys.executable, "-I", "-c", *rest, sys.argv[1]])
    elif kind == "used":
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = used.ru_utime + used.ru_stime
    elif children and kind == "child":
        answer = tell(children[rest[0] % len(children)], *rest[1:])
    elif children and kind in ("end", "kill", "forget"):
        end(children.pop(rest[0] % len(children)), kind)
    print(json.dumps(answer), flush=True)
for child in children:
    end(child, "end")
"""
# The same, started as a courier is.
COURIER = f"# {COURIER_MARK}\n{FAMILY}"
# The kernel rounds each of the two times of a process down to a hundredth of a second.
ROUNDING_S = 0.02
PATIENCE_S = 60.0


class Family:
    """A process that is told to start children, to work, and to end them."""

    def __init__(self) -> None:
        command = [sys.executable, "-S", "-E", "-c", FAMILY, FAMILY]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.tell("burn")

    def tell(self, *order: Any) -> Any:
        """Give an order, wait until it is done, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """End it with all of its children."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def family() -> Iterator[Family]:
    """A process without children."""
    process = Family()
    yield process
    process.end()


class Clock:
    """A clock on which as much time passes between two looks as anybody could want."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1_000.0
        return self.now_s


def sampler_of(pid: int, folder: Path, **arguments: Any) -> UsageSampler:
    """Return a sampler that looks at everything each time, on a machine that may stand still for a while."""
    arguments.setdefault("asker", Asker(arguments.get("notice", [].append), PATIENCE_S))
    return UsageSampler(pid, "main", folder, 5.0, clock=Clock(), **arguments)


def processes(sampler: UsageSampler) -> dict[str, Any]:
    """Take a sample, and return what it says of the processes."""
    return dict(sampler.sample()["sample"]["process"])


def test_the_first_sample_has_counters_of_zero_and_no_rates(family: Family, tmp_path: Path) -> None:
    """What was used before does not count, and there is no time that a percentage could be of."""
    sampler = sampler_of(family.pid, tmp_path)
    fields = sampler.sample()
    process = fields["sample"]["process"]
    assert process["cpu_s"] == process["children_cpu_s"] == 0.0
    assert {process[name] for name in process if name.startswith(("read", "write"))} <= {0}
    assert fields.keys() & {"cpu_percent", "io_operations"} == set()
    assert process["threads"] == 1
    assert fields["memory_mb"] == pytest.approx(process["memory_bytes"] / 2**20, abs=0.001)


def test_the_fields_are_those_of_a_resource_record(family: Family, tmp_path: Path) -> None:
    """Component, writer, pid and period stand in each sample, and all of it is JSON."""
    fields = UsageSampler(family.pid, "rank1", tmp_path, 2.0).sample()
    assert (fields["component_id"], fields["component_type"]) == ("process:rank1", "process")
    sample = fields["sample"]
    assert (sample["writer"], sample["pid"], sample["period_s"]) == ("rank1", family.pid, 2.0)
    assert json.loads(json.dumps(fields)) == fields
    assert UsageSampler(family.pid, "main", tmp_path, 2.0).sample()["component_id"] == "process"


def test_work_of_the_process_is_its_own(family: Family, tmp_path: Path) -> None:
    """Its processor time grows by what it burned, and the percentage is that of the time between."""
    now_s = 0.0
    sampler = UsageSampler(family.pid, "main", tmp_path, 5.0, clock=lambda: now_s)
    sampler.sample()
    family.tell("burn")
    now_s = 10.0
    fields = sampler.sample()
    process = fields["sample"]["process"]
    assert process["cpu_s"] >= 0.05 - ROUNDING_S
    assert process["children_cpu_s"] == 0.0
    assert fields["cpu_percent"] == pytest.approx(100 * process["cpu_s"] / 10.0)


def test_children_and_theirs_are_found(family: Family, tmp_path: Path) -> None:
    """They are counted, with their memory and their work, at every depth."""
    sampler = sampler_of(family.pid, tmp_path)
    sampler.sample()
    family.tell("start")
    family.tell("child", 0, "start")
    family.tell("child", 0, "child", 0, "burn")
    process = processes(sampler)
    assert process["children"] == 2
    assert process["children_cpu_s"] >= 0.05 - ROUNDING_S
    assert process["children_memory_bytes"] > 2**20


def test_what_children_used_before_the_first_sample_does_not_count(family: Family, tmp_path: Path) -> None:
    """Neither while they live nor when their parent gets their use at their end."""
    family.tell("start")
    for _ in range(4):
        family.tell("child", 0, "burn")
    sampler = sampler_of(family.pid, tmp_path)
    assert processes(sampler)["children_cpu_s"] == 0.0
    family.tell("end", 0)
    assert processes(sampler)["children_cpu_s"] < 0.1


def test_a_child_that_nobody_saw_alive_counts(family: Family, tmp_path: Path) -> None:
    """It begins and ends between two samples; its use comes with its end."""
    sampler = sampler_of(family.pid, tmp_path)
    sampler.sample()
    family.tell("start")
    family.tell("child", 0, "burn")
    family.tell("end", 0)
    process = processes(sampler)
    assert process["children"] == 0
    assert process["children_cpu_s"] >= 0.05 - ROUNDING_S


def test_an_excluded_child_is_not_there(family: Family, tmp_path: Path) -> None:
    """The courier and what it starts are no part of training, alive or ended."""
    courier = family.tell("start")
    sampler = sampler_of(family.pid, tmp_path, excluded=[courier])
    family.tell("child", 0, "start")
    family.tell("child", 0, "child", 0, "burn")
    family.tell("child", 0, "burn")
    for _ in range(2):
        process = processes(sampler)
        assert (process["children"], process["children_memory_bytes"], process["children_cpu_s"]) == (
            0,
            0,
            0.0,
        )
    family.tell("end", 0)
    assert processes(sampler)["children_cpu_s"] <= 3 * ROUNDING_S


def test_couriers_of_other_runs_are_not_there(family: Family, tmp_path: Path) -> None:
    """One lives before the first sample and one comes later; what both use counts neither alive nor ended, not even
    what nobody saw of it; a child that comes then counts."""
    family.tell("courier", COURIER, FAMILY)
    family.tell("child", 0, "burn")
    sampler = sampler_of(family.pid, tmp_path)
    samples = [processes(sampler)]
    family.tell("courier", COURIER, FAMILY)
    for which in (0, 1, 1):
        family.tell("child", which, "burn")
        samples.append(processes(sampler))
    for which in (1, 0):
        family.tell("child", which, "burn")
        family.tell("end", which)
        samples.append(processes(sampler))
    names = ("children", "children_memory_bytes", "children_cpu_s")
    assert [sample[name] for sample in samples for name in names] == [0] * 3 * len(samples)
    family.tell("start")
    family.tell("child", 0, "burn")
    assert processes(sampler)["children_cpu_s"] >= 0.05 - ROUNDING_S


def test_a_child_is_known_as_a_courier_once_it_is_one(family: Family, tmp_path: Path) -> None:
    """Between its beginning and that of its program it looks like any child; next to nothing counts by that."""
    sampler = sampler_of(family.pid, tmp_path)
    sampler.sample()
    family.tell("start")
    before = processes(sampler)
    assert before["children"] == 1
    family.tell("child", 0, "become", COURIER)
    samples = []
    for _ in range(2):
        family.tell("child", 0, "burn")
        samples.append(processes(sampler))
    family.tell("end", 0)
    samples.append(processes(sampler))
    assert {sample["children"] for sample in samples} == {0}
    assert {sample["children_cpu_s"] for sample in samples} == {before["children_cpu_s"]}
    assert before["children_cpu_s"] < ENOUGH_TO_BE_ITSELF_S


def test_a_child_that_nobody_waited_for_is_none(family: Family, tmp_path: Path) -> None:
    """It has ended, and only its use is left: that counts once, before and after its parent takes note."""
    sampler = sampler_of(family.pid, tmp_path)
    sampler.sample()
    family.tell("start")
    family.tell("child", 0, "burn")
    family.tell("forget", 0)
    process = processes(sampler)
    assert (process["children"], process["children_memory_bytes"]) == (0, 0)
    assert process["children_cpu_s"] >= 0.05 - ROUNDING_S


def test_a_childs_pid_that_came_back_is_no_child(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the new process does is none of ours."""
    child = family.tell("start")
    now_s = 0.0
    sampler = UsageSampler(family.pid, "main", tmp_path, 5.0, clock=lambda: now_s)
    assert processes(sampler)["children"] == 1
    identity = psutil.Process._get_ident
    monkeypatch.setattr(
        psutil.Process,
        "_get_ident",
        lambda process: (child, 7.0) if process.pid == child else identity(process),
    )
    monkeypatch.setattr(psutil.Process, "children", lambda _process, recursive: [])
    now_s = 1_000.0
    family.tell("child", 0, "burn")
    process = processes(sampler)
    assert (process["children"], process["children_cpu_s"]) == (0, 0.0)


def test_the_use_of_an_orphan_stays(family: Family, tmp_path: Path) -> None:
    """A grandchild whose parent was killed belongs to the system; what it had used is not taken back."""
    sampler = sampler_of(family.pid, tmp_path)
    family.tell("start")
    family.tell("child", 0, "start")
    sampler.sample()
    family.tell("child", 0, "child", 0, "burn")
    seen = processes(sampler)["children_cpu_s"]
    family.tell("kill", 0)
    assert seen >= 0.05 - ROUNDING_S
    assert [processes(sampler)["children_cpu_s"] >= seen for _ in range(3)] == [True] * 3


def test_a_process_that_has_ended_has_no_sample(tmp_path: Path) -> None:
    """Nor has one that was never there."""
    family = Family()
    sampler = sampler_of(family.pid, tmp_path)
    assert sampler.sample()
    family.end()
    assert [sampler.sample(), sampler_of(family.pid, tmp_path).sample()] == [{}, {}]
    sampler.close()


def test_a_pid_that_came_back_is_another_process(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler means the process that it began with."""
    sampler = sampler_of(family.pid, tmp_path)
    assert sampler.sample()
    began = psutil.Process._get_ident

    def reborn(process: psutil.Process) -> Any:
        return began(process)[0], 7.0

    monkeypatch.setattr(psutil.Process, "_get_ident", reborn)
    assert sampler.sample() == {}


@pytest.mark.parametrize(
    "error", [psutil.AccessDenied(1), NotImplementedError("not on this system"), OSError("?")]
)
@pytest.mark.parametrize(
    ("call", "missing"),
    [
        ("cpu_times", {"cpu_s"}),
        ("memory_info", {"memory_bytes"}),
        ("num_threads", {"threads"}),
        ("io_counters", {"read_bytes", "write_bytes", "read_operations", "write_operations"}),
        ("children", {"children", "children_cpu_s", "children_memory_bytes"}),
    ],
)
def test_a_value_of_the_process_fails_alone(
    call: str,
    missing: set[str],
    error: Exception,
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What may not be read is absent and told once; the other values come."""
    whole = processes(sampler_of(family.pid, tmp_path)).keys()

    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr(psutil.Process, call, refuse)
    notices: list[str] = []
    sampler = sampler_of(family.pid, tmp_path, notice=notices.append)
    for _ in range(3):
        assert whole - processes(sampler).keys() == missing
    assert len(notices) == 1


def test_a_child_that_may_not_be_read_costs_itself_alone(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One child belongs to somebody else, one has a defect: the third is counted, and so is what is known of all."""
    denied, odd, _ = (family.tell("start") for _ in range(3))
    read = psutil.Process.memory_info

    @functools.wraps(read)
    def partly(process: psutil.Process) -> Any:
        if process.pid == denied:
            raise psutil.AccessDenied(process.pid)
        if process.pid == odd:
            raise ZeroDivisionError("odd")
        return read(process)

    monkeypatch.setattr(psutil.Process, "memory_info", partly)
    notices: list[str] = []
    process = processes(sampler_of(family.pid, tmp_path, notice=notices.append))
    assert process["children"] == 3
    assert 0 < process["children_memory_bytes"] < 2 * process["memory_bytes"]
    assert len(notices) == 1


def test_without_transfers_there_are_none(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS does not tell them; that is its normal state."""
    monkeypatch.delattr(psutil.Process, "io_counters")
    notices: list[str] = []
    fields = sampler_of(family.pid, tmp_path, notice=notices.append).sample()
    assert not [name for name in fields["sample"]["process"] if name.startswith(("read", "write"))]
    assert "cpu_s" in fields["sample"]["process"]
    assert notices == []


def test_without_psutil_one_notice_says_so(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation does not end the sampler."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    notices: list[str] = []
    sampler = sampler_of(family.pid, tmp_path, notice=notices.append)
    for _ in range(2):
        assert sampler.sample()["sample"].keys() == {"writer", "pid", "period_s"}
    assert any("psutil" in notice for notice in notices)
    assert len(notices) == len(set(notices))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a question to psutil take 10 ms of the processor, on a clock where nothing else takes any."""
    used_s = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: used_s)

    def make(name: str) -> None:
        ask = getattr(psutil.Process, name)

        @functools.wraps(ask)
        def slowly(process: psutil.Process, **arguments: Any) -> Any:
            nonlocal used_s
            used_s += 0.01
            return ask(process, **arguments)

        monkeypatch.setattr(psutil.Process, name, slowly)

    return make


def test_a_search_that_takes_long_is_made_less_often(
    slow: Callable[[str], None], family: Family, tmp_path: Path
) -> None:
    """On a host with thousands of processes children are found later; those that are known are read all the same."""
    slow("children")
    now_s = 0.0
    sampler = UsageSampler(family.pid, "main", tmp_path, 5.0, clock=lambda: now_s)
    family.tell("start")
    sampler.sample()
    family.tell("start")
    family.tell("child", 0, "burn")
    now_s = 0.01 / SHARE_OF_A_CORE - 1
    process = processes(sampler)
    assert process["children"] == 1
    assert process["children_cpu_s"] >= 0.05 - ROUNDING_S
    now_s += 1
    assert processes(sampler)["children"] == 2


def test_children_that_take_long_to_read_are_read_less_often(
    slow: Callable[[str], None], family: Family, tmp_path: Path
) -> None:
    """What was read last stands until then, and the process itself is in every sample."""
    slow("status")
    now_s = 0.0
    sampler = UsageSampler(family.pid, "main", tmp_path, 5.0, clock=lambda: now_s)
    family.tell("start")
    sampler.sample()
    family.tell("child", 0, "burn")
    family.tell("burn")
    now_s = 0.01 / SHARE_OF_A_CORE - 1
    process = processes(sampler)
    assert (process["children"], process["children_cpu_s"]) == (1, 0.0)
    assert process["cpu_s"] >= 0.05 - ROUNDING_S
    now_s += 1
    process = processes(sampler)
    assert process["children_cpu_s"] >= 0.05 - ROUNDING_S
    assert 0.05 - ROUNDING_S <= process["cpu_s"] < 2 * 0.05


def test_sampling_leaves_the_program_as_it_was(tmp_path: Path) -> None:
    """Random numbers, current folder, environment and psutil's own percentages are those of the program."""
    before = random.getstate(), os.getcwd(), dict(os.environ)
    sampler = sampler_of(os.getpid(), tmp_path)
    sampler.sample()
    sampler.sample()
    sampler.close()
    assert (random.getstate(), os.getcwd(), dict(os.environ)) == before


def test_a_jump_of_the_wall_clock_changes_nothing(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither percentages nor identities are made of the time of day."""
    sampler = sampler_of(family.pid, tmp_path)
    family.tell("start")
    sampler.sample()
    monkeypatch.setattr(time, "time", lambda: 17.0)
    fields = sampler.sample()
    assert fields["cpu_percent"] >= 0
    assert fields["sample"]["process"]["children"] == 1


acts = st.lists(
    st.tuples(st.sampled_from(["start", "nest", "burn", "burn", "end", "sample"]), st.integers(0, 3)),
    max_size=10,
)


@settings(max_examples=10, deadline=None)
@given(acts)
def test_no_counter_falls_and_no_work_counts_twice(history: list[tuple[str, int]]) -> None:
    """Children start, work, have children and end in any order: in the end the sum is what the kernel says."""
    family = Family()
    try:
        sampler = sampler_of(family.pid, Path.cwd())
        samples = [processes(sampler)]
        begun = 0
        for kind, which in history:
            begun += kind in ("start", "nest")
            if kind == "sample":
                samples.append(processes(sampler))
            elif kind == "nest":
                family.tell("child", which, "start")
            elif kind == "burn":
                family.tell("child", which, "child", 0, "burn")
                family.tell("child", which, "burn")
            else:
                family.tell(kind, which)
        for _ in range(begun):
            family.tell("end", 0)
        samples += [processes(sampler), processes(sampler)]
        used_s = family.tell("used")
    finally:
        family.end()
    counters = ("cpu_s", "children_cpu_s", "read_bytes", "write_bytes", "read_operations", "write_operations")
    for before, after in itertools.pairwise(samples):
        assert [name for name in counters if after[name] < before[name]] == []
    assert samples[-1]["children_cpu_s"] == pytest.approx(used_s, abs=ROUNDING_S * (begun + 1))
