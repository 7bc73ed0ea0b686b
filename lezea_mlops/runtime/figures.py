"""All running figures of a run together, kept while events pass; the same code reads a journal back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable, stored_count, stored_text
from lezea_mlops.accounting import Accounts
from lezea_mlops.events import Envelope, ScopePairs, as_number
from lezea_mlops.evolution import ModificationCounts, PopulationHistory
from lezea_mlops.insight import DataUsage, SeriesTable
from lezea_mlops.runtime.totals import brief_totals

Fields = Mapping[str, Any]

# Of a value that is kept as it was logged, such as a parameter: so many values inside it, and so long a text.
MAX_VALUES_KEPT = 1_000
MAX_TEXT_KEPT = 10_000

STATE_VERSION = 2
_FACTS = frozenset({"config", "last_checkpoint", "conclusion", "results", "dataset"})
# What a part of a state raises where it is not what was stored.
_DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class RunFigures:
    """Streaming aggregates over a run's events, in bounded memory: at most *limit* keys a table.

    Attributes:
        series: figures of every metric.
        accounts: what was used, and what it cost.
        incomplete: events of this run were not observed, see ``mark_partial``.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._events: dict[str, int] = {}
        self.series = SeriesTable(limit)
        self._data = DataUsage(limit)
        self.accounts = Accounts(limit)
        self._modifications = ModificationCounts(limit)
        self._population = PopulationHistory(limit)
        self._params: BoundedTable[str, list[Any]] = BoundedTable(lambda: [None], limit)
        self._facts: dict[str, Any] = {}
        self._cut = False
        self.incomplete = False
        self._handlers: dict[str, Callable[[Fields, ScopePairs, int], None]] = {
            "run_started": lambda fields, scope, ts: self._restart(),
            "training_step": self._training_step,
            "metric": self._metrics,
            "delta_loss": self._delta_loss,
            "reward": self._reward,
            "param": self._parameters,
            "lezea_config": self._config,
            "constraints": self._config,
            "data_splits": lambda fields, scope, ts: self._data.observe_splits(fields),
            "data_usage": lambda fields, scope, ts: self._data.observe_usage(fields),
            "data_score": lambda fields, scope, ts: self._data.observe_score(fields),
            "modification_tree": lambda fields, scope, ts: self._modifications.observe(fields, scope),
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
            self.accounts.observe(type_name, fields, scope, ts)
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

    def mark_partial(self) -> None:
        """Say that events of this run were not observed, for good."""
        self.incomplete = True

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restored``; nothing in it changes when more events are observed."""
        return {
            "v": STATE_VERSION,
            "events": dict(self._events),
            "params": self._params.state(lambda value: value[0]),
            # The configuration is the one fact that grows; the others are replaced whole.
            "facts": {name: dict(fact) for name, fact in self._facts.items()},
            "cut": self._cut,
            "incomplete": self.incomplete,
            **{name: part.state() for name, part in self._parts().items()},
        }

    @classmethod
    def restored(cls, state: Any, limit: int = MAX_KEYS) -> RunFigures:
        """Return figures that go on from a state as if there had been no pause.

        Raises:
            ValueError: it is damaged, or of a version that this one does not know.
        """
        version = state.get("v") if isinstance(state, Mapping) else None
        if version != STATE_VERSION or type(version) is not int:
            raise ValueError(
                f"expected the state of figures of version {STATE_VERSION}, found {version!r:.80}"
            )
        figures = cls(limit)
        restore: dict[str, Callable[[Any], None]] = {
            name: part.restore for name, part in figures._parts().items()
        }
        restore |= {
            "events": figures._restore_events,
            "params": figures._restore_params,
            "facts": figures._restore_facts,
        }
        for name, restore_part in restore.items():
            try:
                restore_part(state[name])
            except _DAMAGED as error:
                raise ValueError(
                    f"the state of {name} is damaged: {type(error).__name__}: {error}"
                ) from error
        figures._cut, figures.incomplete = state.get("cut") is True, state.get("incomplete") is True
        return figures

    def _parts(self) -> dict[str, Any]:
        return {
            "series": self.series, "data": self._data, "accounts": self.accounts,
            "modifications": self._modifications, "population": self._population,
        }  # fmt: skip

    def _restore_events(self, state: Any) -> None:
        self._events = {name: stored_count(count) for name, count in state.items()}

    def _restore_params(self, state: Any) -> None:
        self._params.restore(state, stored_text, lambda value: [value])

    def _restore_facts(self, state: Any) -> None:
        if strange := state.keys() - _FACTS:
            raise ValueError(f"there are no facts of the name {min(strange)!r:.80}")
        self._facts = {name: dict(fact) for name, fact in state.items()}

    def _restart(self) -> None:
        self.series.restart()
        self.accounts.restart()

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name.

        ``partial`` tells that a table had to let keys go, a value was cut, or events were not observed.
        """
        return self._with_accounts({"resources": self.accounts.as_dict(), "costs": self.accounts.costs()})

    def _with_accounts(self, accounts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        tables = {
            "modifications": self._modifications.as_dict(),
            "population": self._population.as_dict(),
            "data": self._data.as_dict(),
            **accounts,
        }
        partial = [table.pop("partial") for table in tables.values()]
        return {
            "events": dict(self.events),
            "params": {name: value[0] for name, value in self._params.items()},
            "metrics": self.series.as_dict(),
            **tables,
            **self._facts,
            "partial": bool(
                self.series.evicted or self._params.evicted or self._cut or self.incomplete or any(partial)
            ),
        }

    def summary(self) -> dict[str, Any]:
        """Return the figures that fit on a page: last values, totals, the best individual."""
        # Without the tables by component, which may have thousands of rows.
        everything = self._with_accounts(self.accounts.totals_only())
        metrics = everything["metrics"]
        return {
            "events": everything["events"],
            "last_step": self.series.last_step(),
            "metrics": {name: m["last"] for name, m in metrics.items() if "last" in m},
            "modifications": {name: everything["modifications"][name] for name in ("proposed", "accepted")},
            "population": everything["population"],
            **brief_totals(everything),
            **self._facts,
            "partial": everything["partial"],
        }

    def _training_step(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        split = fields.get("data_split")
        self.series.take_step(
            scope, split if isinstance(split, str) else None, _step(fields), _numbers(fields, "metrics")
        )

    def _metrics(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        self.series.group(scope, None).observe(_step(fields), _numbers(fields, "metrics"))

    def _stats(self, scope: ScopePairs, prefix: str, fields: Fields) -> None:
        group = self.series.group(scope, prefix)
        group.calls += 1
        group.observe(_step(fields), _numbers(fields, "stats"))

    def _delta_loss(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        delta = fields.get("delta_loss")
        if as_number(delta) is not None:
            self.series.group(scope, None).observe(_step(fields, "epoch"), {"delta_loss": delta})

    def _reward(self, fields: Fields, scope: ScopePairs, ts: int) -> None:
        target = fields.get("tasker_id") or fields.get("target_id")
        if as_number(fields.get("reward")) is not None:
            self.series.group(scope, "reward").observe(_step(fields), {str(target): fields["reward"]})

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


def _step(fields: Fields, name: str = "step") -> int:
    """Return a step; 0 where the field is none."""
    step = fields.get(name)
    return step if isinstance(step, int) else 0


def _numbers(fields: Fields, name: str) -> dict[str, Any]:
    """Return those values of a field that are numbers, or texts of such."""
    return {key: value for key, value in _object(fields, name).items() if as_number(value) is not None}


def _object(fields: Fields, name: str) -> Mapping[str, Any]:
    """Return a field that is an object; an empty one where it is none, or was too large for its line."""
    value = fields.get(name)
    return value if isinstance(value, Mapping) and not ("$blob" in value and "size" in value) else {}
