"""What Prometheus sees of one run: fed with records as they come, asked by scrapes at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import INDIVIDUAL_LEVELS, Envelope, read_modification
from lezea_mlops.journal import COURIER_WRITER
from lezea_mlops.sinks.prometheus.families import Exposition
from lezea_mlops.sinks.prometheus.labels import DistinctCount, finite, label_text, number_of, text_of
from lezea_mlops.sinks.prometheus.last_values import LastValues
from lezea_mlops.sinks.prometheus.machines import Machines
from lezea_mlops.sinks.prometheus.outside import Outside, OutsideSeries

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_EVENT_TYPES = 60
MAX_MODIFICATION_TYPES = 20
_US_PER_S = 1e6
_OTHER, _UNTYPED = "other", "untyped"
_COUNTED = ("type", "op", "accepted")
_VERDICTS = {True: "accepted", False: "rejected", None: "open"}

Payload = Mapping[str, Any]
Rows = dict[tuple[str, ...], "float | None"]


class LiveView:
    """The newest figures of one run, in bounded memory; safe to be fed and asked by different threads.

    Args:
        run_id: the experiment id.
        outside: returns what others know of the run; asked at every scrape, in the thread of the scrape.
    """

    def __init__(self, run_id: str, outside: Callable[[], Outside] = Outside) -> None:
        self.run_id = run_id
        self._ask_outside = outside
        self._lock = threading.Lock()
        self._seen: BoundedTable[str, int] = BoundedTable(int)
        self._left_out = DistinctCount()
        self._values = LastValues(self._left_out)
        self._machines = Machines(self._left_out)
        self._outside = OutsideSeries(self._left_out)
        self._run = _RunFacts()
        self._events: dict[str, int] = {}
        self._modifications: dict[tuple[str, str], int] = {}
        self._population: dict[str, Rows] = {}
        self._handlers: dict[str, Callable[[Envelope, Payload], None]] = {
            "run_started": self._run.started,
            "run_finished": self._run.finished,
            "training_step": self._training_step,
            "metric": self._metric,
            "delta_loss": lambda record, p: self._take(record, {"delta_loss": p.get("delta_loss")}),
            "reward": self._reward,
            "fold": self._fold,
            "result": lambda record, p: self._take(record, p.get("result_dict"), "results"),
            "modification_tree_stats": lambda record, p: self._take(record, p.get("stats"), "modtree"),
            "modification_stats": lambda record, p: self._take(record, p.get("stats"), "modification"),
            "modification_tree": self._modification_tree,
            "population": self._population_snapshot,
            "resource": self._resource,
            "resource_use": self._resource_use,
            "rates": lambda record, p: self._outside.prices_changed(),
        }

    def observe(self, record: Envelope) -> None:
        """Take one record; one that came before is passed over, and nothing in it can make this raise."""
        with self._lock:
            wid, seq, kind = record.wid, record.seq, record.type
            if seq <= self._seen[wid]:
                return
            self._seen[wid] = seq
            count = self._events.get(kind)
            if count is None:
                kind = self._admitted_type(kind)
                count = self._events.get(kind, 0)
            self._events[kind] = count + 1
            # What the driver samples and adds up by itself would make a run that hangs look alive.
            if wid != COURIER_WRITER and "sample" not in record.payload:
                self._run.last_event_us = max(self._run.last_event_us, record.ts)
            handle = self._handlers.get(record.type)
            if handle is not None:
                handle(record, record.payload)

    def collect(self) -> Iterator[Metric]:
        """Yield the run's series as families of ``prometheus_client``, at most ``MAX_SERIES`` series."""
        outside = self._ask_outside()
        shown = Exposition(self.run_id)
        with self._lock:
            self._show(outside, shown)
        yield from shown.families()

    def _show(self, outside: Outside, shown: Exposition) -> None:
        self._run.show(shown)
        for kind, count in self._events.items():
            shown.add("lezea_events_total", float(count), kind)
        shown.add("lezea_nonfinite_values_total", float(self._values.nonfinite))
        shown.add("lezea_loss_nonfinite", float(self._values.loss_is_nonfinite()))
        self._show_modifications(shown)
        for name, rows in self._population.items():
            for labels, value in rows.items():
                shown.add(name, value, *labels)
        self._machines.show(shown)
        self._outside.show(outside, shown)
        # What there may be most of gets what room is left.
        self._values.show(shown)
        shown.show_dropped(self._left_out.series)

    def _show_modifications(self, shown: Exposition) -> None:
        of_verdict = dict.fromkeys(_VERDICTS.values(), 0)
        for (kind, verdict), count in self._modifications.items():
            of_verdict[verdict] += count
            shown.add("lezea_modifications_total", float(count), kind, verdict)
        if decided := of_verdict["accepted"] + of_verdict["rejected"]:
            shown.add("lezea_modifications_accepted_ratio", of_verdict["accepted"] / decided)

    def _admitted_type(self, kind: str) -> str:
        """Return under which name events of a new type are counted."""
        label = label_text(kind)
        if label in self._events or len(self._events) < MAX_EVENT_TYPES:
            return label
        self._left_out.add(("type", label))
        return _OTHER

    # ------------------------------------------------------------------ metrics

    def _take(self, record: Envelope, values: Any, *folder: str, individual: bool = False) -> None:
        """Take numbers by name, behind the record's writer and scopes and *folder*."""
        parts = [] if record.wid == "main" else [record.wid]
        individual = individual or bool(parts)
        for level, identity in record.scope:
            parts.append(f"{level}:{identity}")
            individual = individual or level in INDIVIDUAL_LEVELS
        parts += filter(None, folder)
        self._values.take("/".join([*parts, ""]), values, individual=individual)

    def _training_step(self, record: Envelope, p: Payload) -> None:
        split = text_of(p.get("data_split"))
        self._run.stepped(record, p.get("step"))
        self._take(record, p.get("metrics"), split)
        if "delta_loss" in p:
            self._take(record, {"delta_loss": p["delta_loss"]}, split)
        if "modification_statistics" in p:
            self._take(record, p["modification_statistics"], "modification")

    def _metric(self, record: Envelope, p: Payload) -> None:
        context = p.get("ctx")
        phase = text_of(context.get("phase")) if isinstance(context, Mapping) else ""
        self._take(record, {text_of(p["key"]): p.get("value")} if "key" in p else p.get("metrics"), phase)

    def _reward(self, record: Envelope, p: Payload) -> None:
        target = text_of(p.get("tasker_id")) or text_of(p.get("target_id"))
        self._take(record, {target: p.get("reward")}, "reward", individual=True)

    def _fold(self, record: Envelope, p: Payload) -> None:
        folder = ("population", text_of(p.get("level")), text_of(p.get("split")), text_of(p.get("metric")))
        # They stand for individuals, and take the place of nothing else.
        figures = {name: p.get(name) for name in ("mean", "min", "max", "count")}
        self._take(record, figures, *folder, individual=True)

    # ------------------------------------------------------------------ evolution and resources

    def _modification_tree(self, record: Envelope, p: Payload) -> None:
        modifications = p.get("modifications")
        for logged in modifications if isinstance(modifications, list) else ():
            modification = read_modification(_what_is_counted(logged), "")
            verdict = _VERDICTS[modification.accepted]
            key = (label_text(modification.type or _UNTYPED), verdict)
            if key not in self._modifications:
                key = self._admitted_modification(*key)
            self._modifications[key] = self._modifications.get(key, 0) + 1

    def _admitted_modification(self, kind: str, verdict: str) -> tuple[str, str]:
        kinds = {kind for kind, _ in self._modifications}
        if kind in kinds or len(kinds) < MAX_MODIFICATION_TYPES:
            return kind, verdict
        self._left_out.add(("modification", kind, verdict))
        return _OTHER, verdict

    def _population_snapshot(self, record: Envelope, p: Payload) -> None:
        networks: Rows = {
            ("tasker",): finite(p.get("tasker_count")),
            ("builder",): finite(p.get("builder_count")),
        }
        self._population = {
            "lezea_population_networks": networks,
            "lezea_population_generation": {(): finite(p.get("generation"))},
        }
        scores = p.get("fitness_scores")
        if isinstance(scores, Mapping):
            scores = [] if "$blob" in scores else list(scores.values())
        numbers = (
            [n for score in scores if (n := finite(score)) is not None] if isinstance(scores, list) else []
        )
        if numbers:
            mean = sum(numbers) / len(numbers)
            fitness: Rows = {("max",): max(numbers), ("mean",): mean, ("min",): min(numbers)}
            self._population["lezea_population_fitness"] = fitness

    def _resource(self, record: Envelope, p: Payload) -> None:
        sample = p.get("sample")
        if isinstance(sample, Mapping):
            self._machines.take(sample)
        else:
            self._outside.component_appeared(p.get("component_id"))

    def _resource_use(self, record: Envelope, p: Payload) -> None:
        uses = p.get("uses")
        for use in uses if isinstance(uses, list) else ():
            if isinstance(use, Mapping):
                self._outside.component_appeared(use.get("component_id"))


class _RunFacts:
    """What a run says of itself, by its newest attempt."""

    def __init__(self) -> None:
        self.last_event_us = 0
        self._attempt = 0
        self._running = False
        self._started_us: int | None = None
        self._step: float | None = None
        self._labels = ("", "", "")

    def started(self, record: Envelope, p: Payload) -> None:
        if record.att < self._attempt:
            return
        env = p.get("env")
        host = env.get("hostname") if isinstance(env, Mapping) else None
        self._attempt, self._running, self._started_us, self._step = record.att, True, record.ts, None
        self._labels = (label_text(p.get("experiment_name")), label_text(record.att), label_text(host))

    def finished(self, record: Envelope, p: Payload) -> None:
        if record.att >= self._attempt:
            self._running = False

    def stepped(self, record: Envelope, step: Any) -> None:
        number = number_of(step)
        if number is not None and record.att >= self._attempt and (self._step is None or number > self._step):
            self._step = number

    def show(self, shown: Exposition) -> None:
        shown.add("lezea_run_running", float(self._running))
        if self._started_us is not None:
            shown.add("lezea_run_info", 1.0, *self._labels)
            shown.add("lezea_run_started_timestamp_seconds", _seconds(self._started_us))
        if self.last_event_us:
            shown.add("lezea_run_last_event_timestamp_seconds", _seconds(self.last_event_us))
        shown.add("lezea_training_step", self._step)


def _seconds(us: int) -> float | None:
    number = finite(us)
    return None if number is None else number / _US_PER_S


def _what_is_counted(logged: Any) -> dict[str, Any]:
    """Return what a modification is counted by; the rest of it may be large."""
    return {name: logged[name] for name in _COUNTED if name in logged} if isinstance(logged, Mapping) else {}
