"""All running figures of a run together, kept while events pass; the same code reads a journal back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.accounting import CostTotals, ResourceTotals
from lezea_mlops.events import Envelope, ScopePairs, as_number
from lezea_mlops.evolution import ModificationCounts, PopulationHistory
from lezea_mlops.insight import DataUsage, SeriesTable

Fields = Mapping[str, Any]

# Of a value that is kept as it was logged, such as a parameter: so many values inside it, and so long a text.
MAX_VALUES_KEPT = 1_000
MAX_TEXT_KEPT = 10_000


class RunFigures:
    """Streaming aggregates over a run's events, in bounded memory.

    Attributes:
        series: figures of every metric.
    """

    def __init__(self) -> None:
        self._events: dict[str, int] = {}
        self.series = SeriesTable()
        self._data = DataUsage()
        self._resources = ResourceTotals()
        self._costs = CostTotals()
        self._modifications = ModificationCounts()
        self._population = PopulationHistory()
        self._params: BoundedTable[str, list[Any]] = BoundedTable(lambda: [None])
        self._facts: dict[str, Any] = {}
        self._cut = False
        self._handlers: dict[str, Callable[[Fields, ScopePairs, int], None]] = {
            "run_started": lambda fields, scope, ts: self.series.restart(),
            "training_step": self._training_step,
            "metric": self._metrics,
            "delta_loss": lambda fields, scope, ts: self._one(
                scope, fields.get("epoch"), "delta_loss", fields
            ),
            "reward": self._reward,
            "param": self._parameters,
            "lezea_config": self._config,
            "constraints": self._config,
            "data_splits": lambda fields, scope, ts: self._data.observe_splits(fields),
            "data_usage": lambda fields, scope, ts: self._data.observe_usage(fields),
            "data_score": lambda fields, scope, ts: self._data.observe_score(fields),
            "resource": lambda fields, scope, ts: self._resources.observe(ts, fields),
            "resource_cost": lambda fields, scope, ts: self._costs.observe_cost(fields),
            "business": lambda fields, scope, ts: self._costs.observe_business(fields),
            "modification_tree": lambda fields, scope, ts: self._modifications.observe(fields),
            "modification_tree_stats": lambda fields, scope, ts: self._stats(scope, "modtree", fields),
            "modification_stats": lambda fields, scope, ts: self._stats(scope, "modification", fields),
            "population": lambda fields, scope, ts: self._population.observe(fields),
            "network": lambda fields, scope, ts: self._population.observe_network(fields),
            "checkpoint": lambda fields, scope, ts: self._remember(
                "last_checkpoint", fields, ("path", "step", "size")
            ),
            "conclusion": lambda fields, scope, ts: self._remember("conclusion", fields, ("text",)),
            "result": lambda fields, scope, ts: self._remember("results", fields, ("result_dict", "step")),
            "dataset_version": lambda fields, scope, ts: self._remember(
                "dataset", fields, ("dataset_name", "version_tag")
            ),
        }

    def observe(self, type_name: str, fields: Fields, scope: ScopePairs, ts: int) -> None:
        """Take one event, logged at *ts* (UTC microseconds)."""
        if type_name != "training_step":
            self._events[type_name] = self._events.get(type_name, 0) + 1
        handle = self._handlers.get(type_name)
        if handle is not None:
            handle(fields, scope, ts)

    @property
    def events(self) -> dict[str, int]:
        """How many events of each type there were."""
        return self._events | ({"training_step": self.series.steps} if self.series.steps else {})

    def read(self, records: Iterable[Envelope]) -> RunFigures:
        """Take the records of a journal, and return itself."""
        for record in records:
            scope = tuple((level, identity) for level, identity in record.scope)
            self.observe(record.type, record.payload, scope, record.ts)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name; ``partial`` tells that a table had to let keys go, or a value was cut."""
        tables = {
            "modifications": self._modifications.as_dict(),
            "population": self._population.as_dict(),
            "data": self._data.as_dict(),
            "resources": self._resources.as_dict(),
            "costs": self._costs.as_dict(),
        }
        partial = [table.pop("partial") for table in tables.values()]
        return {
            "events": dict(self.events),
            "params": {name: value[0] for name, value in self._params.items()},
            "metrics": self.series.as_dict(),
            **tables,
            **self._facts,
            "partial": bool(self.series.evicted or self._params.evicted or self._cut or any(partial)),
        }

    def summary(self) -> dict[str, Any]:
        """Return the figures that fit on a page: last values, totals, the best individual."""
        everything = self.as_dict()
        metrics = everything["metrics"]
        return {
            "events": everything["events"],
            "last_step": max(
                (m["last_step"] for m in metrics.values() if m["last_step"] is not None), default=None
            ),
            "metrics": {name: m["last"] for name, m in metrics.items() if "last" in m},
            "modifications": {name: everything["modifications"][name] for name in ("proposed", "accepted")},
            "population": everything["population"],
            "resources": everything["resources"]["total"],
            "costs": everything["costs"],
            **self._facts,
            "partial": everything["partial"],
        }

    def _training_step(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        self.series.take_step(
            scope, fields.get("data_split"), fields.get("step", 0), _object(fields, "metrics")
        )

    def _metrics(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        self.series.group(scope, None).observe(fields.get("step", 0), _object(fields, "metrics"))

    def _stats(self, scope: ScopePairs, prefix: str, fields: Fields) -> None:
        numbers = {n: v for n, v in _object(fields, "stats").items() if as_number(v) is not None}
        group = self.series.group(scope, prefix)
        group.calls += 1
        group.observe(fields.get("step", 0), numbers)

    def _one(self, scope: ScopePairs, step: Any, name: str, fields: Fields) -> None:
        if name in fields:
            self.series.group(scope, None).observe(step or 0, {name: fields[name]})

    def _reward(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        target = fields.get("tasker_id") or fields.get("target_id")
        self.series.group(scope, "reward").observe(fields.get("step", 0), {str(target): fields.get("reward")})

    def _parameters(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        for name, value in _object(fields, "params").items():
            self._params[name][0] = self._brief(value)

    def _config(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        config = self._facts.setdefault("config", {})
        own = {name: value for name, value in fields.items() if name not in ("run_id", "scope")}
        config.update({name: self._brief(value) for name, value in own.items()})

    def _remember(self, name: str, fields: Fields, wanted: tuple[str, ...]) -> None:
        self._facts[name] = {field: self._brief(fields[field]) for field in wanted if field in fields}

    def _brief(self, value: Any) -> Any:
        """Return a copy of a cleaned value that holds no more than is bearable to keep."""
        brief = _Brief()
        kept = brief.copy(value)
        self._cut = self._cut or brief.cut
        return kept


class _Brief:
    """Copies one value while there is room; ``cut`` tells that something was left out."""

    def __init__(self) -> None:
        self.cut = False
        self._room = MAX_VALUES_KEPT

    def copy(self, value: Any) -> Any:
        """Return *value*, or as much of it as there is room for."""
        self._room -= 1
        if isinstance(value, str) and len(value) > MAX_TEXT_KEPT:
            self.cut = True
            return value[:MAX_TEXT_KEPT] + "…"
        if isinstance(value, Mapping):
            return {name: self.copy(item) for name, item in self._fitting(value.items())}
        if isinstance(value, list):
            return [self.copy(item) for item in self._fitting(value)]
        return value

    def _fitting(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if self._room <= 0:
                self.cut = True
                return
            yield item


def _object(fields: Fields, name: str) -> Mapping[str, Any]:
    """Return a field that is an object; an empty one where it is none, or was too large for its line."""
    value = fields.get(name)
    return value if isinstance(value, Mapping) and not ("$blob" in value and "size" in value) else {}
