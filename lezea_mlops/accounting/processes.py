"""What the processes of a run used: counters and samples of each, and the windows that were measured in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import BoundedTable, stored_step, stored_text
from lezea_mlops.accounting.families import ProcessKey, Span, Told, used_by_all
from lezea_mlops.accounting.gpus import Devices, Gpu, read_gpus
from lezea_mlops.accounting.integrals import Knots, seconds_between
from lezea_mlops.accounting.quantities import BYTES_PER_GB, Quantities, amount, short_text, stored_amount
from lezea_mlops.accounting.windows import FIRST_GPU, MAX_ROWS, MAX_WINDOWS, Book, Window

MAX_PROCESSES = 512
_COUNTERS = (
    "exact_cpu_s", "cpu_s", "children_cpu_s", "read_bytes", "write_bytes", "read_operations", "write_operations",
)  # fmt: skip


class Counter:
    """A number that only grows, until whoever counts begins anew."""

    __slots__ = ("_before", "_last", "_ts")

    def __init__(self) -> None:
        self._before = self._last = 0.0
        self._ts: int | None = None

    @property
    def total(self) -> float:
        """All that was counted."""
        return self._before + self._last

    def take(self, ts: int, value: float | None) -> float:
        """Take what a counter shows at *ts*, and return by how much it grew."""
        total = self.total
        newer = self._ts is None or ts > self._ts
        if value is not None:
            if value >= self._last:
                self._last = value
            elif newer:
                self._before, self._last = total, value
            self._ts = ts if self._ts is None or newer else self._ts
        return self.total - total

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [self._before, self._last, self._ts]

    @classmethod
    def restored(cls, state: Any) -> Counter:
        """Return a counter that goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        before, last, ts = state
        counter = cls()
        counter._before, counter._last = stored_amount(before), stored_amount(last)
        counter._ts = None if ts is None else stored_step(ts)
        return counter


class Process:
    """One process in one attempt: what it used, how that grew, and the windows that wait for it to be known."""

    def __init__(self) -> None:
        self.peak_memory_bytes = 0.0
        self.measured_s = 0.0
        self.used = Quantities()
        self.children_gb_s = 0.0
        self.windows: list[Window] = []
        self.dropped = False
        self._counters = {name: Counter() for name in _COUNTERS}
        self._knots = Knots()
        self._names: list[str] = []
        self._ts: int | None = None
        self._span: Span | None = None
        self._memory: tuple[float | None, float | None] = (None, None)
        self._gpus: dict[str, Gpu] = {}

    @property
    def sampled(self) -> bool:
        """Whether there was a sample of it."""
        return self.used.samples > 0

    def own_cpu_s(self) -> float:
        """Return the CPU seconds of the process without its children."""
        return max(self._counters["exact_cpu_s"].total, self._counters["cpu_s"].total)

    def children_cpu_s(self) -> float:
        """Return the CPU seconds of its children."""
        return self._counters["children_cpu_s"].total

    def told(self) -> Told:
        """Return what is known of it by now."""
        used = Quantities()
        used.add(self.used)
        used.cpu_s = self.own_cpu_s() + self.children_cpu_s()
        used.gb_s += self.children_gb_s
        used.wall_s = max(used.wall_s, self.measured_s)
        return Told(self._span or (0, 0), used, self.own_cpu_s(), self.used.gb_s)

    def _reach(self, from_us: int, to_us: int) -> None:
        first, last = self._span or (from_us, to_us)
        self._span = min(first, from_us), max(last, to_us)

    def measure(self, ts: int, cpu_s: float | None) -> None:
        """Take the exact CPU time that a window of measured uses tells."""
        self._reach(ts, ts)
        self._counters["exact_cpu_s"].take(ts, cpu_s)

    def sample(self, ts: int, fields: Mapping[str, Any], owner: str, devices: Devices) -> None:
        """Take one sample at *ts* (UTC microseconds)."""
        self._reach(ts, ts)
        told = fields.get("process")
        told = told if isinstance(told, Mapping) else {}
        grew = {
            name: c.take(ts, amount(told.get(name))) for name, c in self._counters.items() if name in told
        }
        seconds = seconds_between(self._ts, ts)
        own_gb_s, children_gb_s = self._integrate_memory(told, seconds)
        growth = [
            own_gb_s + children_gb_s,
            grew.get("read_bytes", 0.0) + grew.get("write_bytes", 0.0),
            grew.get("read_operations", 0.0) + grew.get("write_operations", 0.0),
            0.0,
        ]
        gpus = read_gpus(fields, owner)
        self._integrate_gpus(gpus, ts, seconds, owner, devices, growth)
        self.used.samples += 1
        self.used.wall_s += seconds
        self.used.gb_s += own_gb_s
        self.children_gb_s += children_gb_s
        self.used.io_bytes += growth[1]
        self.used.io_operations += growth[2]
        self.used.energy_j += growth[3]
        self._knots.grow(ts, growth)
        self._ts, self._gpus = ts, gpus

    def _integrate_memory(self, told: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        now = amount(told.get("memory_bytes")), amount(told.get("children_memory_bytes"))
        self.peak_memory_bytes = max(self.peak_memory_bytes, (now[0] or 0.0) + (now[1] or 0.0))
        own, children = (
            0.0 if a is None or b is None else seconds * (a + b) / 2 / BYTES_PER_GB
            for a, b in zip(self._memory, now, strict=True)
        )
        self._memory = now
        return own, children

    def _integrate_gpus(
        self, gpus: dict[str, Gpu], ts: int, seconds: float, owner: str, devices: Devices, growth: list[float]
    ) -> None:
        growth += [0.0] * (3 * len(self._names))
        for device, gpu in gpus.items():
            before = self._gpus.get(device)
            if before is None or self._ts is None or not seconds or before.held is gpu.held is False:
                continue
            free_s = seconds * devices.free_share(device, self._ts, ts, owner)
            used_s = free_s * (before.used + gpu.used) / 2
            known = before.held is not None and gpu.held is not None
            held_s = free_s * ((before.held is True) + (gpu.held is True)) / 2
            name = devices.name(gpu.name)
            if name not in self._names:
                self._names.append(name)
                growth += [0.0, 0.0, 0.0]
            at = FIRST_GPU + 3 * self._names.index(name)
            seconds_of = (used_s, held_s, held_s if known else used_s)
            for number, value in enumerate(seconds_of):
                growth[at + number] += value
            self.used.add_gpu(name, *seconds_of)
            if before.watts is not None and gpu.watts is not None:
                growth[3] += free_s * (before.watts + gpu.watts) / 2

    def window(self, from_us: int, to_us: int, wall_s: float, parts: int) -> Window:
        """Return the window of these moments, made now if it is new; a part of it has arrived."""
        self._reach(from_us, to_us)
        for window in reversed(self.windows):
            if (window.from_us, window.to_us) == (from_us, to_us) and window.missing > 0:
                break
        else:
            window = Window(from_us, to_us, wall_s, parts)
            self.windows.append(window)
        window.missing -= 1
        return window

    def settle(self, book: Book) -> None:
        """Book what is known by now of the windows that wait."""
        last = self._knots.last_us
        if last is None:
            return
        waiting = []
        for window in self.windows:
            if window.missing <= 0 and window.from_us < last:
                window.settle(self._knots.between(window.from_us, window.to_us), self._names, book)
                if window.to_us < last:
                    continue
            waiting.append(window)
        self.windows = waiting

    def bound(self) -> None:
        """Let no more windows and rows wait than is bearable."""
        while len(self.windows) > MAX_WINDOWS or sum(len(window.rows) for window in self.windows) > MAX_ROWS:
            whole = [window for window in self.windows if window.missing <= 0 and not window.booked()]
            if len(whole) > 1:
                whole[0].merge(whole[1])
                self.windows.remove(whole[1])
            else:
                del self.windows[0]
                self.dropped = True

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restored``."""
        return {
            "used": self.used.state(), "children_gb_s": self.children_gb_s, "peak": self.peak_memory_bytes,
            "measured_s": self.measured_s, "dropped": self.dropped, "ts": self._ts, "memory": list(self._memory),
            "span": None if self._span is None else list(self._span),
            "counters": {name: counter.state() for name, counter in self._counters.items()},
            "knots": self._knots.state(), "names": list(self._names),
            "gpus": {device: list(gpu) for device, gpu in self._gpus.items()},
            "windows": [window.state() for window in self.windows],
        }  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Process:
        """Return a process that goes on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        process = cls()
        process.used.put_back(state["used"])
        process.children_gb_s = stored_amount(state["children_gb_s"])
        process.peak_memory_bytes = stored_amount(state["peak"])
        process.measured_s = stored_amount(state["measured_s"])
        process.dropped = state["dropped"] is True
        process._ts = None if state["ts"] is None else stored_step(state["ts"])
        if state["span"] is not None:
            process._reach(*map(stored_step, state["span"]))
        own, children = map(_stored_or_none, state["memory"])
        process._memory = own, children
        process._counters = {name: Counter.restored(state["counters"][name]) for name in _COUNTERS}
        process._knots = Knots.restored(state["knots"])
        process._names = [stored_text(name) for name in state["names"]]
        process._gpus = {stored_text(device): _stored_gpu(gpu) for device, gpu in state["gpus"].items()}
        process.windows = [Window.restored(window) for window in state["windows"]]
        return process


def _stored_or_none(value: Any) -> float | None:
    return None if value is None else stored_amount(value)


def _stored_gpu(state: Any) -> Gpu:
    name, used, held, watts = state
    known = held if held is True or held is False else None
    return Gpu(stored_text(name), stored_amount(used), known, _stored_or_none(watts))


class Processes:
    """All processes of a run; at most 512 are told apart, what the others used is in the sum."""

    def __init__(self) -> None:
        self._table: BoundedTable[ProcessKey, Process] = BoundedTable(Process, MAX_PROCESSES)
        self._gone = Quantities()
        self._peak_memory_bytes = 0.0
        self._devices = Devices()

    @property
    def partial(self) -> bool:
        """Whether something of a process is not attributed because too much of it waited, or it had to go."""
        return bool(self._table.evicted) or any(p.dropped and p.sampled for _key, p in self._table.items())

    def sample(self, sample: Mapping[str, Any], ts: int, attempt: int, book: Book) -> None:
        """Take one sample; what it tells of measured uses is handed to *book*."""
        key = process_key(sample, attempt)
        if key is None:
            return
        process = self._of(key)
        process.sample(ts, sample, key[0], self._devices)
        process.settle(book)
        self._peak_memory_bytes = max(self._peak_memory_bytes, process.peak_memory_bytes)

    def of(self, fields: Any, attempt: int) -> Process | None:
        """Return the process that ``writer`` and ``pid`` of *fields* name; None if they name none."""
        key = process_key(fields, attempt)
        return None if key is None else self._of(key)

    def _of(self, key: ProcessKey) -> Process:
        if key not in self._table and len(self._table) >= MAX_PROCESSES:
            process = self._table.pop_oldest()
            self._gone.add(process.told().used)
        return self._table[key]

    def total(self) -> Quantities:
        """Return what all processes used, each counted once whoever tells of it."""
        total = used_by_all((key, process.told()) for key, process in self._table.items())
        total.add(self._gone)
        return total

    def peak_memory_mb(self) -> float:
        """Return the most memory that one process with its children had."""
        return self._peak_memory_bytes / 2**20

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        table = self._table.state(Process.state)
        table["keys"] = [list(key) for key in table["keys"]]
        return {
            "table": table, "gone": self._gone.state(), "peak": self._peak_memory_bytes,
            "devices": self._devices.state(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._table.restore(state["table"], _stored_key, Process.restored)
        self._gone.put_back(state["gone"])
        self._peak_memory_bytes = stored_amount(state["peak"])
        self._devices.restore(state["devices"])


def process_key(fields: Any, attempt: int) -> ProcessKey | None:
    """Return which process *fields* name; None if they name none."""
    if not isinstance(fields, Mapping):
        return None
    writer, pid = short_text(fields.get("writer")), fields.get("pid")
    return None if writer is None else (writer, pid if type(pid) is int and abs(pid) < 2**63 else 0, attempt)


def _stored_key(state: Any) -> ProcessKey:
    writer, pid, attempt = state
    return stored_text(writer), stored_step(pid), stored_step(attempt)
