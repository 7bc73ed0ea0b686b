"""The tracker that researchers import: every call becomes an event that is in the journal when the call returns.

All ``log_*`` calls are safe: a bad value keeps what is good of the call, is journaled with its reason and warned
about once; it raises only with ``strict``. What happens to a call's event in MLflow is in ``docs/connector.md``.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import itertools
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from lezea_mlops._clock import Deadline, now_us
from lezea_mlops.config import Settings, load_settings
from lezea_mlops.config.settings import MAX_PORT, NO_PORT, check_experiment_id
from lezea_mlops.errors import BackendUnreachableError, ConfigurationError
from lezea_mlops.events import (
    ArtifactLogged,
    BudgetSet,
    BusinessMetricsLogged,
    CheckpointLogged,
    Cleaner,
    CommentLogged,
    ConclusionLogged,
    ConstraintsLogged,
    DataScoreLogged,
    DatasetVersionLogged,
    DataSplitsLogged,
    DataUsageLogged,
    DeltaLossLogged,
    EnvironmentCaptured,
    LezeaConfigLogged,
    MetricsLogged,
    ModificationStatsLogged,
    ModificationTreeStatsLogged,
    NetworkRegistered,
    ParamsLogged,
    PopulationLogged,
    RatesSet,
    Redactor,
    ResourceCostLogged,
    ResourceLogged,
    ResourceTotals,
    ResultsLogged,
    RewardLogged,
    RunFinished,
    RunStarted,
    ScopePairs,
    as_id,
    element_count,
    number_text,
)
from lezea_mlops.insight import recommend
from lezea_mlops.journal import MAIN_WRITER, Cursor
from lezea_mlops.runtime import signals
from lezea_mlops.runtime.assembly import Parts, assemble, destinations, join, start_driver
from lezea_mlops.runtime.call import MAX_STEP, BadInput, Call, Warned
from lezea_mlops.runtime.describing import message_of
from lezea_mlops.runtime.driver import Driver
from lezea_mlops.runtime.environment import capture_environment, describe_start
from lezea_mlops.runtime.files import CannotCapture, absolute_path, render_figure
from lezea_mlops.runtime.meter import Meter
from lezea_mlops.runtime.monitoring import is_wanted
from lezea_mlops.runtime.monitoring_here import Totals
from lezea_mlops.runtime.recorder import Joining, Recorder
from lezea_mlops.runtime.remembered import remember_destinations, sync_command
from lezea_mlops.runtime.scopes import Inherited, Scope, bounded_name, scopes_here
from lezea_mlops.runtime.totals import with_totals
from lezea_mlops.runtime.trees import TreeLog

log = logging.getLogger("lezea_mlops")

F = TypeVar("F", bound=Callable[..., Any])

BudgetCallback = Callable[[dict[str, Any]], Any]

StatsEvent = type[ModificationTreeStatsLogged] | type[ModificationStatsLogged]

STATUSES = ("completed", "failed", "killed")
# Beyond about 24 days the system's own waits overflow; infinity is a number that a user may mean.
LONGEST_FLUSH_S = 20 * 24 * 3600.0
# What a driver says of when it is due lies so far ahead at most.
MAX_DUE_US = 2_000_000
# No process has this pid.
NOBODY = -1
# What ``start`` is given where nobody says anything.
DEFAULT_PORT = 8000
# How long the end of a run waits for its totals, at most.
TOTALS_TURN_S = 2.0
# The budget's branch that is all of the run.
RUN_BRANCH = "run"
# Amounts above these are mistakes of units: a thousand cores or GPUs, a petabyte, a thousand years, a zettabyte.
MAX_PERCENT = 1e5
MAX_MEMORY_MB = 2.0**30
MAX_OPERATIONS = 1e15
MAX_HOURS = 1e7
MAX_BYTES = 1e21
MAX_EUR = 1e12


class NetworkType(str, Enum):
    """What a network does in LeZeA."""

    TASKER = "tasker"
    BUILDER = "builder"
    HYBRID = "hybrid"


NETWORK_TYPES = frozenset(member.value for member in NetworkType)


def present(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


class ExperimentTracker:
    """One run of an experiment (connector spec, sections 1 to 9).

    Args:
        experiment_name: name of the experiment; runs of the same name stand together in MLflow.
        purpose: why this run is made, shown as its description.
        tags: texts by name.
        auto_start: call ``start`` now.
        async_mode: True: ``log_*`` never waits. False: it waits until MLflow has the record, at most 50 ms and not
            at all while MLflow is starting or down.
        strict: mistakes in calls raise, and ``start`` raises if a backend cannot be reached.
        resume: experiment id of a run to continue, as its next attempt.
        experiment_id: an id from outside, shared by several processes of one run.
        runs_dir: folder for run folders.
        durability: ``process``, ``interval`` or ``record``: when a line also survives a power loss.
        capture: ``copy`` or ``reference`` for logged files.
        redact: remove secrets from texts.
        budget_eur: what the run may cost; see ``set_budget``.
        settings: further settings by name; see ``docs/connector.md``.

    Attributes:
        experiment_id: UUID4 of the run.
        experiment_name: as given.
        run_dir: the run folder; ``events.jsonl`` in it is the guaranteed journal.

    Raises:
        ConfigurationError: an argument or a setting is wrong, or ``runs_dir`` cannot be written. Backends are not
            contacted here.

    Guarantees:
        When a ``log_*`` call returns, its event is in ``events.jsonl`` and survives the death of the process.
        A backend that is down, slow or missing never raises and never loses an event.
    """

    def __init__(
        self,
        experiment_name: str,
        purpose: str = "",
        tags: Mapping[str, Any] | None = None,
        auto_start: bool = False,
        async_mode: bool = False,
        *,
        strict: bool | None = None,
        resume: str | None = None,
        experiment_id: str | None = None,
        runs_dir: str | os.PathLike[str] | None = None,
        durability: str | None = None,
        capture: str | None = None,
        redact: bool | None = None,
        budget_eur: float | None = None,
        settings: Mapping[str, Any] | Settings | None = None,
    ) -> None:
        self.experiment_name = _checked_name(experiment_name)
        _check_tags(tags)
        self._settings = load_settings(
            settings, strict=strict, experiment_id=experiment_id, runs_dir=runs_dir, durability=durability,
            capture=capture, redact=redact, budget_eur=budget_eur,
        )  # fmt: skip
        parts = assemble(self._settings, None if resume is None else check_experiment_id("resume", resume))
        self._equip(parts, async_mode)
        self._purpose = purpose
        self._record_start(purpose, tags)
        # The duration that the end tells is the time between the two records.
        self._started_us = self._recorder.last_ts
        self._record_prices()
        _TRACKERS.add(self)
        if self._settings.mode != "off":
            _OPEN[self._key] = self
            _watch_the_end_of_a_child()
        if auto_start:
            self.start()

    def _equip(self, parts: Parts, async_mode: bool) -> None:
        self._recorder, self._files = parts.recorder, parts.files
        self.run_dir: Path = self._recorder.folder.path
        self.experiment_id: str = self._recorder.folder.run_id
        self._redactor = Redactor() if self._settings.redact else None
        self._cleaner = Cleaner(self._files.store_blob, self._redactor)
        self._strict, self._async_mode = self._settings.strict, async_mode
        self._warned, self._trees = Warned(), TreeLog()
        self._driver: Driver | None = None
        self._capturing: threading.Thread | None = None
        self._status = "created"
        self._owner_pid = os.getpid()
        self._key = next(_KEYS)
        self._meter = Meter(self._key, self._recorder)
        self._budget_callbacks: dict[str, BudgetCallback] = {}
        self._prometheus_url: str | None = None
        # What the run had used and cost when it ended.
        self._final: dict[str, Any] | None = None
        self._purpose = ""
        self._started_us = now_us()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a further writer of the same run, which the sender's process delivers."""
        joining = self._recorder.joining()
        return _joined, (
            self.experiment_name,
            self._purpose,
            self._settings,
            joining,
            self._async_mode,
            self._strict,
        )

    # ------------------------------------------------------------------ 1. life of the run

    def start(self, strict: bool | None = None, prometheus_port: int | None = 8000) -> None:
        """Capture environment and git, and begin to deliver (spec 1).

        With ``async_mode=False`` it waits until MLflow answered, at most 30 s; with ``strict`` it raises if it did
        not. A second call is a no-op with a warning.

        Args:
            strict: overrides the constructor's ``strict``; None leaves it.
            prometheus_port: where the driver serves metrics for Prometheus: this port or the next free one, 0 for
                any free one, None for none. Left at 8000, the setting ``prometheus_port`` counts.

        Raises:
            ConfigurationError: ``prometheus_port`` is no port.
            BackendUnreachableError: with ``strict``, a backend did not answer.
        """
        settings = self._with_port(prometheus_port)
        if self._status != "created":
            log.warning(
                "start(): the run %s is %s already; nothing was done", self.experiment_id, self._status
            )
            return
        if strict is not None:
            self._strict = bool(strict)
        self._settings = settings
        self._status = "running"
        self._capturing = threading.Thread(
            target=self._capture_environment, name="lezea-capture", daemon=True
        )
        if self._settings.mode == "off":
            return
        try:
            self._capturing.start()
        except RuntimeError as error:
            log.warning("no thread can be started (%s); environment and git are not captured", error)
        signals.watch(self._key, self._recorder.prepare_note)
        if self._recorder.wid == MAIN_WRITER:
            remember_destinations(self._recorder.folder, self._settings)
        self._driver = start_driver(self._recorder, self._settings, async_mode=self._async_mode)
        if self._driver is None:
            return
        if self._strict or not self._async_mode:
            self._wait_for_backends(self._driver)

    def end(self, status: str = "completed", reason: str | None = None) -> None:
        """Write the summary, end the run and deliver what waits (spec 1).

        One deadline (``close_timeout_s``, 10 s) holds for all of it; what is not delivered by then stays in the
        journal, and a log line says which command ships it. A second call is a no-op with a warning.

        Args:
            status: ``completed``, ``failed`` or ``killed``, or MLflow's word for it; any other text ends the run as
                failed, with that text as its reason.
            reason: why, in words.

        Raises:
            ValueError: with ``strict``, *status* was none of these; the run has ended nevertheless.
        """
        known = _known_status(status)
        if known is None and self._status in ("created", "running"):
            with self._call("end", strict=False) as call:
                call.reject("status", status, f"is none of {', '.join(STATUSES)}")
        # A word that nobody knows is no success.
        self._finish(known or "failed", reason or (None if known else f"end() was told {status!r}"), None)
        if known is None and self._strict:
            raise ValueError(f"end(): status is {status!r}, and none of {', '.join(STATUSES)}")

    def finalize_experiment(self) -> None:
        """End the run as completed: the spec's other name of ``end`` (spec 1)."""
        self.end()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was logged is delivered everywhere.

        Returns:
            False if *timeout_s* seconds passed first, or nothing delivers (before ``start``, offline).
        """
        driver = self._driver
        return driver is not None and driver.flush(Deadline.after(min(timeout_s, LONGEST_FLUSH_S)))

    def __repr__(self) -> str:
        return f"<ExperimentTracker {self.experiment_name!r} {self._status} in {self.run_dir}>"

    def __enter__(self) -> ExperimentTracker:
        if self._status == "created":
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status not in ("created", "running"):
            return
        status, reason = _judge(error)
        self._finish(status, reason, None if status == "completed" else error)

    @property
    def status(self) -> str:
        """``created``, ``running``, then ``completed``, ``failed`` or ``killed``."""
        return self._status

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's id of the run; None until MLflow has it."""
        return self._sink_state("mlflow").get("run_id")

    @property
    def mlflow_url(self) -> str | None:
        """The run's page; None until MLflow has it, and for a local store, whose page ``mlflow ui`` serves."""
        return self._sink_state("mlflow").get("url")

    def health(self) -> dict[str, Any]:
        """Return what is wrong and what waits: counts by kind, and state by destination.

        Returns:
            ``status``, ``journal`` (records, lost, path), ``counts`` of everything that was rejected, changed or
            lost, ``redacted`` (secrets that were removed, by their name or kind), ``prometheus`` (where the metrics
            are served, None: nowhere), and ``sinks``: by name, state, delivered, waiting, rejected, failures by
            reason, last error.
        """
        driver = self._driver
        sinks = driver.health() if driver is not None else {}
        self._take_notices()
        with self._recorder.lock:
            counts = dict(self._recorder.counts + self._cleaner.counts)
        return {
            "status": self._status,
            "mode": self._settings.mode,
            "driver": driver.kind if driver is not None else None,
            "journal": {
                "path": str(self._recorder.folder.journal(self._recorder.wid)),
                "records": self._recorder.seq,
                "lost": counts.get("not_written", 0),
            },
            "counts": counts,
            "redacted": self._redacted(),
            "sinks": sinks,
            "prometheus": self._prometheus_url,
        }

    # ------------------------------------------------------------------ 2. scopes

    def scope(self, level: str, id: object) -> Scope:
        """Put what is logged inside the with-block under ``<level>:<id>`` (spec 2); scopes nest.

        A new thread starts without a scope; ``bind`` carries the present one into it.
        """
        return Scope(self._key, self._cleaner.name(level), self._cleaner.name(id))

    def builder_scope(self, builder_id: object) -> Scope:
        """Scope of a builder: ``builder:<id>`` (spec 2)."""
        return self.scope("builder", builder_id)

    def tasker_scope(self, tasker_id: object) -> Scope:
        """Scope of a tasker: ``tasker:<id>`` (spec 2)."""
        return self.scope("tasker", tasker_id)

    def algorithm_scope(self, algorithm_id: object) -> Scope:
        """Scope of an algorithm: ``algorithm:<id>`` (spec 2)."""
        return self.scope("algorithm", algorithm_id)

    def network_scope(self, network_id: object) -> Scope:
        """Scope of a network: ``network:<id>`` (spec 2)."""
        return self.scope("network", network_id)

    def layer_scope(self, layer_id: object) -> Scope:
        """Scope of a layer: ``layer:<id>`` (spec 2)."""
        return self.scope("layer", layer_id)

    def bind(self, function: F) -> F:
        """Return *function*, plain or ``async``, so that it runs in the present scope, whichever thread calls it."""
        inherited = Inherited(self._key)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def bound_coroutine(*args: Any, **kwargs: Any) -> Any:
                before = inherited.enter()
                try:
                    return await function(*args, **kwargs)
                finally:
                    inherited.leave(before)

            return bound_coroutine  # type: ignore[return-value]

        @functools.wraps(function)
        def bound(*args: Any, **kwargs: Any) -> Any:
            before = inherited.enter()
            try:
                return function(*args, **kwargs)
            finally:
                inherited.leave(before)

        return bound  # type: ignore[return-value]

    # ------------------------------------------------------------------ daily life

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters by name; nested mappings keep their structure (MLflow shows them joined by dots)."""
        with self._call("log_params") as call:
            call.record(ParamsLogged(params=call.needed_mapping("params", params)))
        self._delivered()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers measured at *step*.

        Args:
            metrics: numbers by name; NaN and infinities are kept.
            step: whole number from 0; without it each name gets its running count, from 1.
        """
        with self._call("log_metrics", step=step) as call:
            number = call.step("step", step)
            good = call.needed_metrics("metrics", metrics)
            with self._recorder.lock:
                for at, part in self._by_step(call, None, good, number):
                    call.record(MetricsLogged(metrics=part, step=at), auto=number is None)
        self._delivered()

    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Record a file as it is now.

        Args:
            path: a file; it may be changed or removed after the call.
            artifact_path: folder in MLflow to put it in; None: the run's top.
        """
        with self._call("log_artifact", artifact_path=artifact_path) as call:
            captured = self._captured_file(call, "path", path)
            folder = (call.text("artifact_path", artifact_path) or "").strip("/")
            name = f"{folder}/{captured['name']}" if folder else captured["name"]
            call.record(ArtifactLogged(**captured | {"name": name}))
        self._delivered()

    def log_text(self, text: str, artifact_file: str) -> None:
        """Record *text* as a file named *artifact_file*, for instance ``notes/plan.md``."""
        with self._call("log_text", text=text) as call:
            name = self._content_name(call, artifact_file)
            content = call.text("text", text)
            if content is None:
                raise BadInput("text", text, "is None, and text was expected", TypeError)
            self._record_content(call, name, content.encode(), "text")
        self._delivered()

    def log_dict(self, dictionary: Mapping[str, Any], artifact_file: str) -> None:
        """Record a dictionary as a JSON file named *artifact_file*."""
        import json

        with self._call("log_dict", dictionary=dictionary) as call:
            name = self._content_name(call, artifact_file)
            cleaned = call.needed_mapping("dictionary", dictionary)
            content = json.dumps(cleaned, indent=2, ensure_ascii=False).encode()
            self._record_content(call, name, content, "dict")
        self._delivered()

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Record a matplotlib or plotly figure as a file; the suffix of *artifact_file* chooses the format."""
        with self._call("log_figure", artifact_file=artifact_file) as call:
            name = self._content_name(call, artifact_file)
            content = call.converted("figure", figure, lambda figure: render_figure(figure, name))
            if content is not None:
                self._record_content(call, name, content, "figure")
        self._delivered()

    # ------------------------------------------------------------------ 3. configuration

    def log_lezea_config(
        self,
        tasker_population_size: int | None = None,
        builder_population_size: int | None = None,
        algorithm_type: str | None = None,
        start_network_id: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | int | None = None,
        initialization_scheme: str | None = None,
    ) -> None:
        """Record the configuration of the evolution (spec 3; LeZeA 1.4).

        Args:
            tasker_population_size: number of taskers.
            builder_population_size: number of builders.
            algorithm_type: for instance ``"SAC"``.
            start_network_id: the network that evolution starts from.
            hyperparameters: by name, nested as you like.
            seeds: seeds by name.
            initialization_scheme: how weights are initialised.
        """
        with self._call("log_lezea_config") as call:
            if seeds is not None and not isinstance(seeds, Mapping):
                seeds = {"global": seeds}
            call.record(
                LezeaConfigLogged(
                    **present(
                        tasker_population_size=call.step("tasker_population_size", tasker_population_size),
                        builder_population_size=call.step("builder_population_size", builder_population_size),
                        algorithm_type=call.text("algorithm_type", algorithm_type),
                        start_network_id=call.text("start_network_id", start_network_id),
                        hyperparameters=call.mapping("hyperparameters", hyperparameters),
                        seeds=call.mapping("seeds", seeds),
                        initialization_scheme=call.text("initialization_scheme", initialization_scheme),
                    )
                )
            )
        self._delivered()

    def log_constraints(
        self, runtime_limit_seconds: float | None = None, step_episode_limits: Any = None
    ) -> None:
        """Record the limits of the run: seconds of run time, and steps per episode (a number or by name)."""
        with self._call("log_constraints") as call:
            limit = call.number("runtime_limit_seconds", runtime_limit_seconds)
            call.record(
                ConstraintsLogged(
                    **present(
                        runtime_limit_seconds=limit,
                        step_episode_limits=call.value("step_episode_limits", step_episode_limits),
                    )
                )
            )
        self._delivered()

    # ------------------------------------------------------------------ 4. training

    def log_training_step(
        self,
        step: int,
        metrics: Mapping[str, Any],
        data_split: str | None = None,
        *,
        sample_ids: Sequence[Any] | None = None,
        modification_path: Any = None,
        modification_statistics: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the metrics of one training step (spec 4; LeZeA 1.5).

        If ``loss`` is among them, ``delta_loss`` = previous loss − this loss is added, per scope and split; it is
        positive when the loss improved, and absent on the first.

        Args:
            step: whole number from 0, in any order.
            metrics: numbers by name.
            data_split: for instance ``train``, ``val``, ``test``; comes after the scope in the name.
            sample_ids: the samples of this step.
            modification_path: the modifications that led to the network, oldest first.
            modification_statistics: figures about them, by name.
        """
        bare = data_split is None and sample_ids is None and modification_path is None
        if bare and modification_statistics is None and type(step) is int and 0 <= step <= MAX_STEP:
            plain = self._cleaner.plain_metrics(metrics)
            if plain:
                self._record_step({"step": step, "metrics": plain}, scopes_here().get(self._key, ()))
                if self._driver is not None:
                    self._delivered()
                return
        with self._call("log_training_step") as call:
            good = call.metrics("metrics", metrics)
            split = call.text("data_split", data_split)
            number = call.step("step", step)
            extras = present(
                data_split=split,
                sample_ids=call.value("sample_ids", call.ids("sample_ids", sample_ids)),
                modification_path=call.value("modification_path", modification_path),
                modification_statistics=call.mapping("modification_statistics", modification_statistics),
            )
            with self._recorder.lock:
                for at, part in self._by_step(call, split, good, number):
                    fields = {"step": at, "metrics": part, **extras}
                    self._record_step(fields, call.scope, split, auto=number is None)
        self._delivered()

    def log_modification_tree(
        self,
        step: int,
        modifications: Sequence[Mapping[str, Any]],
        statistics: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Record the modifications that builders proposed at a step (spec 4; LeZeA 1.5).

        Args:
            step: whole number from 0.
            modifications: each a mapping; ``id``, ``parent_ids`` (several for a crossover), ``type`` or ``op``,
                ``accepted``, ``score``, ``target`` or ``network_id`` and ``params`` are understood, all else is kept.
                Your objects are not changed.
            statistics: your own figures of the tree; what is computed (size, roots, depth, acceptance by type and
                more) is added as ``computed``.

        Returns:
            The ids of the modifications, in their order; those without one were given one. For what is no
            modification there is empty text in its place, which as a parent's id means none.
        """
        ids: list[str] = []
        with self._call("log_modification_tree", step=step, statistics=statistics) as call:
            at, own = call.step("step", step), call.mapping("statistics", statistics)
            ids = self._trees.record(call, at, modifications, own)
        self._delivered()
        return ids

    def log_modification_tree_stats(self, stats: Mapping[str, Any], step: int | None = None) -> None:
        """Record statistics of the modification tree, for instance ``accept_rate`` and ``depth`` (spec 4)."""
        self._log_stats("log_modification_tree_stats", ModificationTreeStatsLogged, "modtree", stats, step)

    def log_modification_stats(self, stats: Mapping[str, Any], step: int | None = None) -> None:
        """Record counts of modifications by kind, for instance ``crossover`` and ``mutation`` (spec 4)."""
        self._log_stats("log_modification_stats", ModificationStatsLogged, "modification", stats, step)

    def log_data_splits(
        self,
        train_ids: Iterable[Any],
        val_ids: Iterable[Any] | None = None,
        test_ids: Iterable[Any] | None = None,
    ) -> None:
        """Record which samples are for training, validation and test (spec 4)."""
        with self._call("log_data_splits") as call:
            given = {"train": train_ids, "val": val_ids, "test": test_ids}
            fields: dict[str, Any] = {}
            sizes: dict[str, int] = {}
            for name, ids in given.items():
                listed = call.ids(f"{name}_ids", ids)
                cleaned = call.value(f"{name}_ids", listed)
                if cleaned is not None:
                    fields[f"{name}_ids"], sizes[name] = cleaned, _length(listed)
            call.record(DataSplitsLogged.of(fields | {"sizes": sizes} if fields else {}))
        self._delivered()

    def log_data_usage(self, sample_ids: Iterable[Any], epoch: int | None = None) -> None:
        """Record which samples an epoch used (spec 4)."""
        with self._call("log_data_usage", epoch=epoch) as call:
            if sample_ids is None:
                raise BadInput("sample_ids", None, "is None, and a list of ids was expected", TypeError)
            number = call.step("epoch", epoch)
            listed = call.ids("sample_ids", sample_ids)
            cleaned = call.value("sample_ids", listed)
            if cleaned is not None:
                fields = present(epoch=number, count=_length(listed))
                call.record(DataUsageLogged(sample_ids=cleaned, **fields))
        self._delivered()

    def log_data_score(self, sample_id: object, before_loss: float, after_loss: float) -> None:
        """Record how relevant a sample was: its loss before and after training on it (spec 4).

        ``delta`` = before − after is added, positive when the loss improved.
        """
        given: dict[str, Any] = {"sample_id": sample_id, "before_loss": before_loss, "after_loss": after_loss}
        with self._call("log_data_score", **given) as call:
            before = call.needed_number("before_loss", before_loss)
            after = call.needed_number("after_loss", after_loss)
            call.record(
                DataScoreLogged(
                    sample_id=call.needed_text("sample_id", sample_id),
                    before_loss=before,
                    after_loss=after,
                    delta=_difference(before, after),
                )
            )
        self._delivered()

    def log_delta_loss(self, epoch: int, loss: float, prev_loss: float) -> None:
        """Record how the loss of an epoch compares with the one before (spec 4).

        ``delta_loss`` = prev_loss − loss is added, positive when the loss improved.
        """
        with self._call("log_delta_loss", epoch=epoch, loss=loss, prev_loss=prev_loss) as call:
            number = call.step("epoch", epoch)
            now, before = call.needed_number("loss", loss), call.needed_number("prev_loss", prev_loss)
            delta = _difference(before, now)
            with self._recorder.lock:
                at = number if number is not None else self._next_step(call.scope, None, "delta_loss")
                call.record(
                    DeltaLossLogged(epoch=at, loss=now, prev_loss=before, delta_loss=delta),
                    auto=number is None,
                )
        self._delivered()

    # ------------------------------------------------------------------ 5. resources

    def measure(
        self, component_id: object, component_type: str | None = None, *, detail: bool = False
    ) -> AbstractContextManager[Any]:
        """Measure what a component uses inside the with-block, in the present scope (LeZeA 1.5.4.1).

        Wall and CPU time of the thread are measured exactly and recorded once a second; memory, IO and GPU time come
        from the driver's samples, by the share of time. Uses may be nested: what an inner one takes is not the outer
        one's too. With asyncio, what tasks of one thread do at once counts for the use that was entered last.

        Args:
            component_id: for instance ``"tasker#0"``.
            component_type: for instance ``"tasker"``.
            detail: read memory and IO of the process at every use, which takes about 0.1 ms.
        """
        try:
            return self._meter.measures[component_id, component_type, detail]
        except (KeyError, TypeError):
            # New, or something that cannot be a key.
            return self._new_measure(component_id, component_type, detail)

    def log_resource(
        self,
        component_id: object,
        cpu: float | None = None,
        gpu: float | None = None,
        mem: float | None = None,
    ) -> None:
        """Record what a component uses now (spec 5; LeZeA 1.5.4).

        Args:
            component_id: for instance ``"tasker#0"``.
            cpu: percent of one core.
            gpu: percent of one GPU.
            mem: memory in MB.
        """
        with self._call("log_resource", cpu=cpu, gpu=gpu, mem=mem) as call:
            fields = present(
                cpu_percent=call.quantity("cpu", cpu, MAX_PERCENT),
                memory_mb=call.quantity("mem", mem, MAX_MEMORY_MB),
                gpu_util_percent=call.quantity("gpu", gpu, MAX_PERCENT),
            )
            call.record(ResourceLogged(component_id=call.needed_text("component_id", component_id), **fields))
        self._delivered()

    def log_component_resources(
        self,
        component_id: object,
        component_type: str | None = None,
        cpu_percent: float | None = None,
        memory_mb: float | None = None,
        gpu_util_percent: float | None = None,
        io_operations: float | None = None,
    ) -> None:
        """Record what a component uses now, by kind of component (spec 5; LeZeA 1.5.4.1).

        Args:
            component_id: for instance ``"tasker#0"``.
            component_type: for instance ``"tasker"``.
            cpu_percent: percent of one core.
            memory_mb: memory in MB.
            gpu_util_percent: percent of one GPU.
            io_operations: operations since the last call for this component.
        """
        given = present(
            component_type=component_type, cpu_percent=cpu_percent, memory_mb=memory_mb,
            gpu_util_percent=gpu_util_percent, io_operations=io_operations,
        )  # fmt: skip
        with self._call("log_component_resources", **given) as call:
            fields = present(
                component_type=call.text("component_type", component_type),
                cpu_percent=call.quantity("cpu_percent", cpu_percent, MAX_PERCENT),
                memory_mb=call.quantity("memory_mb", memory_mb, MAX_MEMORY_MB),
                gpu_util_percent=call.quantity("gpu_util_percent", gpu_util_percent, MAX_PERCENT),
                io_operations=call.quantity("io_operations", io_operations, MAX_OPERATIONS),
            )
            call.record(ResourceLogged(component_id=call.needed_text("component_id", component_id), **fields))
        self._delivered()

    # ------------------------------------------------------------------ 6. checkpoints, datasets

    def log_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        *,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a checkpoint as it is now, so that it may be overwritten after the call (spec 6; LeZeA 1.5.5).

        Args:
            path: a file; copied up to ``capture_max_mb``, larger ones are recorded by reference.
            step: whole number from 0.
            role: for instance ``"best"``.
            metadata: anything about it, by name.
        """
        with self._call("log_checkpoint", step=step, role=role, metadata=metadata) as call:
            captured = self._captured_file(call, "path", path)
            fields = present(
                step=call.step("step", step),
                role=call.text("role", role),
                metadata=call.mapping("metadata", metadata),
            )
            call.record(CheckpointLogged(**captured, **fields))
        self._delivered()

    def log_dataset_version(
        self,
        dataset_name: str,
        version_tag: str | None = None,
        dataset_path: str | os.PathLike[str] | None = None,
        version_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the version of a dataset (spec 6; LeZeA 1.5.6).

        Args:
            dataset_name: for instance ``"imagenet"``.
            version_tag: for instance ``"v1.0"``.
            dataset_path: a file or folder; if it exists its content is fingerprinted.
            version_metadata: anything about it, by name.
        """
        from lezea_mlops.capture.datasets import fingerprint_dataset

        given: dict[str, Any] = {
            "version_tag": version_tag,
            "dataset_path": dataset_path,
            "version_metadata": version_metadata,
        }
        with self._call("log_dataset_version", **given) as call:
            fields = present(
                version_tag=call.text("version_tag", version_tag),
                version_metadata=call.mapping("version_metadata", version_metadata),
            )
            if dataset_path is not None:
                try:
                    fields["dataset_path"] = call.cleaner.text(os.fsdecode(dataset_path))
                    facts = fingerprint_dataset(absolute_path(dataset_path))
                    fields["fingerprint"] = call.value("dataset_path", facts)
                except (OSError, ValueError, TypeError) as error:
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    call.reject("dataset_path", dataset_path, f"cannot be fingerprinted: {error}", kind)
            call.record(
                DatasetVersionLogged(dataset_name=call.needed_text("dataset_name", dataset_name), **fields)
            )
        self._delivered()

    # ------------------------------------------------------------------ 7. results

    def log_results(
        self,
        result_dict: Mapping[str, Any] | None = None,
        tasker_rewards: Mapping[str, Any] | None = None,
        builder_rewards: Mapping[str, Any] | None = None,
        action_outputs: Any = None,
        step: int | None = None,
    ) -> None:
        """Record results of the run or of a step (spec 7; LeZeA 1.6).

        Args:
            result_dict: anything by name; numbers become metrics.
            tasker_rewards: rewards by tasker.
            builder_rewards: rewards by builder.
            action_outputs: what was done; any value.
            step: whole number from 0.
        """
        with self._call("log_results", step=step) as call:
            fields = present(
                result_dict=call.mapping("result_dict", result_dict),
                tasker_rewards=call.mapping("tasker_rewards", tasker_rewards),
                builder_rewards=call.mapping("builder_rewards", builder_rewards),
                action_outputs=call.value("action_outputs", action_outputs),
                step=call.step("step", step),
            )
            call.record(ResultsLogged(**fields if fields.keys() - {"step"} else {}))
        self._delivered()

    def log_reward(self, tasker_id: object, reward: float, step: int | None = None) -> None:
        """Record the reward of a tasker (spec 7); without *step* it gets its running count, from 1."""
        with self._call("log_reward", tasker_id=tasker_id, reward=reward, step=step) as call:
            number = call.step("step", step)
            value = call.needed_number("reward", reward)
            tasker = call.needed_text("tasker_id", tasker_id)
            with self._recorder.lock:
                at = number if number is not None else self._next_step(call.scope, "reward", tasker)
                call.record(RewardLogged(tasker_id=tasker, reward=value, step=at), auto=number is None)
        self._delivered()

    def log_reward_flow(
        self,
        source_id: object,
        target_id: object,
        source_type: str | NetworkType | None = None,
        target_type: str | NetworkType | None = None,
        reward: float | None = None,
        task_id: object | None = None,
        step: int | None = None,
    ) -> None:
        """Record a reward that flowed between builders and taskers; without *step* it gets its running count."""
        given = present(
            source_id=source_id, target_id=target_id, source_type=source_type, target_type=target_type,
            reward=reward, task_id=task_id, step=step,
        )  # fmt: skip
        with self._call("log_reward_flow", **given) as call:
            number = call.step("step", step)
            fields = present(
                source_type=call.text("source_type", source_type),
                target_type=call.text("target_type", target_type),
                task_id=call.text("task_id", task_id),
            )
            fields["source_id"] = call.needed_text("source_id", source_id)
            target = fields["target_id"] = call.needed_text("target_id", target_id)
            fields["reward"] = call.needed_number("reward", reward)
            with self._recorder.lock:
                at = number if number is not None else self._next_step(call.scope, "reward", target)
                call.record(RewardLogged.of(fields | {"step": at}), auto=number is None)
        self._delivered()

    # ------------------------------------------------------------------ populations, lineage

    def log_population_snapshot(
        self,
        tasker_count: int,
        builder_count: int,
        generation: int,
        fitness_scores: Mapping[str, float] | Sequence[float] | None = None,
        diversity_metric: float | None = None,
        step: int | None = None,
    ) -> None:
        """Record a generation of the population.

        Args:
            tasker_count: number of taskers.
            builder_count: number of builders.
            generation: whole number from 0.
            fitness_scores: fitness by individual, or a list; higher is better.
            diversity_metric: any measure of diversity.
            step: whole number from 0; None: the generation.
        """
        with self._call("log_population_snapshot") as call:
            counts = present(
                tasker_count=call.step("tasker_count", tasker_count),
                builder_count=call.step("builder_count", builder_count),
                generation=call.step("generation", generation),
                fitness_scores=call.value("fitness_scores", fitness_scores),
                diversity_metric=call.number("diversity_metric", diversity_metric),
                step=call.step("step", step),
            )
            call.record(PopulationLogged(**counts))
        self._delivered()

    def register_network(
        self,
        network_id: object,
        network_type: str | NetworkType = NetworkType.TASKER,
        parent_ids: Iterable[object] = (),
        generation: int | None = None,
        *,
        architecture: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a network and its parents, one node of the lineage.

        Args:
            network_id: unique in the experiment.
            network_type: tasker, builder or hybrid.
            parent_ids: the networks it came from; several for a crossover, none for a first one.
            generation: whole number from 0.
            architecture: any description of it.
            metadata: anything about it, by name.
        """
        given = {
            "network_type": network_type, "parent_ids": parent_ids, "generation": generation,
            "architecture": architecture, "metadata": metadata,
        }  # fmt: skip
        with self._call("register_network", **given) as call:
            kind = call.text("network_type", network_type) or NetworkType.TASKER.value
            if kind not in NETWORK_TYPES:
                call.reject(
                    "network_type", network_type, "is none of tasker, builder, hybrid; it was kept as it is"
                )
            given_parents = call.ids("parent_ids", parent_ids)
            if element_count(given_parents) is not None:
                # A large array would become a blob, and then nobody could follow the line.
                given_parents = call.converted("parent_ids", given_parents, list)
            parents = call.value("parent_ids", given_parents) or []
            fields = present(
                generation=call.step("generation", generation),
                architecture=call.value("architecture", architecture),
                metadata=call.mapping("metadata", metadata),
            )
            call.record(
                NetworkRegistered(
                    network_id=call.needed_text("network_id", network_id),
                    network_type=kind,
                    parent_ids=[parent for parent in map(as_id, parents) if parent is not None],
                    **fields,
                )
            )
        self._delivered()

    # ------------------------------------------------------------------ 8. business

    def log_resource_cost(
        self, cpu_hours: float | None = None, mem_gb: float | None = None, io_bytes: float | None = None
    ) -> None:
        """Record resources that were consumed, by a count of your own (spec 8; LeZeA 1.7).

        Within a scope it is that scope's, on top of what is measured, such as a job on another machine. Without one it
        speaks of the run: to be paid for is what was measured or what was reported, whichever is more.

        Args:
            cpu_hours: hours of one core.
            mem_gb: memory in GB; priced as so many GB for an hour.
            io_bytes: bytes read and written.
        """
        with self._call("log_resource_cost", cpu_hours=cpu_hours, mem_gb=mem_gb, io_bytes=io_bytes) as call:
            fields = present(
                cpu_hours=call.quantity("cpu_hours", cpu_hours, MAX_HOURS),
                mem_gb=call.quantity("mem_gb", mem_gb, MAX_MEMORY_MB),
                io_bytes=call.quantity("io_bytes", io_bytes, MAX_BYTES),
            )
            call.record(ResourceCostLogged(**fields))
        self._delivered()

    def set_budget(
        self, budget_eur: float, branch: str = RUN_BRANCH, callback: BudgetCallback | None = None
    ) -> None:
        """Set what the run, or a branch of it, may cost; passing 80 % and 100 % of it warns, and stops nothing.

        Each is told once: by a ``budget_reached`` event, a line of the log, and the callback.

        Args:
            budget_eur: EUR, above zero; a further call replaces it.
            branch: ``run``, or a scope such as ``builder:42``.
            callback: called with the event's fields (``branch``, ``budget_eur``, ``spent_eur``, ``share``) by the next
                call of this tracker, in its thread.
        """
        with self._call("set_budget") as call:
            name = call.needed_text("branch", branch)
            number = call.needed_number("budget_eur", budget_eur)
            if isinstance(number, str) or not 0 < number <= MAX_EUR:
                raise BadInput("budget_eur", budget_eur, f"is not above 0 and up to {MAX_EUR:g}")
            if callable(callback):
                self._budget_callbacks[name] = callback
            elif callback is not None:
                call.reject("callback", callback, "cannot be called", TypeError)
            call.record(BudgetSet(branch=name, budget_eur=number))
        self._delivered()

    def log_comment(self, text: str) -> None:
        """Record a remark; it stands in the run's description (spec 8)."""
        with self._call("log_comment") as call:
            call.record(CommentLogged(text=call.value("text", call.needed_text("text", text))))
        self._delivered()

    def log_conclusion(self, text: str) -> None:
        """Record what you conclude; it stands first in the run's description (spec 8)."""
        with self._call("log_conclusion") as call:
            call.record(ConclusionLogged(text=call.value("text", call.needed_text("text", text))))
        self._delivered()

    def log_business_metrics(self, resource_cost_eur: float | None = None, **metrics: Any) -> None:
        """Record business numbers by name, for instance ``resource_cost_eur`` in EUR (spec 8)."""
        with self._call("log_business_metrics") as call:
            eur = call.quantity("resource_cost_eur", resource_cost_eur, MAX_EUR)
            given = present(resource_cost_eur=eur) | metrics
            if given or resource_cost_eur is None:
                call.record(BusinessMetricsLogged(metrics=call.needed_mapping("metrics", given)))
        self._delivered()

    # ------------------------------------------------------------------ environment

    def log_environment_info(self, info: Mapping[str, Any] | None = None) -> None:
        """Record facts about machine, program and packages (LeZeA 1.3).

        Args:
            info: your own facts; None: they are captured now (host, packages, GPUs).
        """
        with self._call("log_environment_info") as call:
            self._record_environment(call, info)
        self._delivered()

    def log_git_commit(self, path: str | os.PathLike[str] | None = None) -> None:
        """Record commit, branch and state of a repository; None: the one around the present folder (LeZeA 1.3)."""
        with self._call("log_git_commit") as call:
            self._record_git(call, None if path is None else absolute_path(path))
        self._delivered()

    # ------------------------------------------------------------------ 9. introspection

    def get_experiment_summary(self) -> dict[str, Any]:
        """Return what fits on a page: identity, times, last metrics, best individual, totals (spec 9)."""
        self._meter.flush()
        with self._recorder.lock:
            figures = self._identity() | self._recorder.figures.summary()
        return with_totals(figures, self._usage())

    def get_experiment_data(self) -> dict[str, Any]:
        """Return all running figures: params, every metric's figures, populations, data, costs (spec 9).

        They are kept while calls pass, in bounded memory; ``partial`` tells when keys had to be let go. The full
        history is the journal's (``lezea_mlops.journal.read_run``).
        """
        self._meter.flush()
        with self._recorder.lock:
            figures = self._identity() | self._recorder.figures.as_dict()
        if usage := self._usage():
            # The tables by component are this process's, the totals those of all that was sampled.
            figures |= {part: figures[part] | usage[part] for part in ("resources", "costs")}
        return figures

    def get_recommendations(self) -> list[dict[str, Any]]:
        """Return advice with its evidence: ``rule``, ``severity``, ``message``, ``evidence`` (spec 9)."""
        return recommend(self.get_experiment_data())

    # ------------------------------------------------------------------ inside

    def _call(self, _name: str, *, strict: bool | None = None, **given: Any) -> Call:
        """Begin a call; *given* are its arguments where it may end up with nothing that can be recorded."""
        scope: ScopePairs = scopes_here().get(self._key, ())
        raises = self._strict if strict is None else strict
        return Call(_name, self._recorder, self._cleaner, scope, self._warned, raises, given)

    def _delivered(self) -> None:
        """Let the driver wait for the record where the mode asks for it, and look after itself once a second."""
        driver = self._driver
        # The clock may jump back; then it is due as well.
        if driver is not None and not 0 < driver.due_us - self._recorder.last_ts <= MAX_DUE_US:
            attending = driver.attend()
            if attending is not driver:
                # Only then: another thread may have replaced it meanwhile.
                self._driver = driver = attending
            self._meter.flush_if_due()
            if driver.notices:
                self._take_notices()

    def _record_step(
        self, fields: dict[str, Any], scope: ScopePairs, split: str | None = None, auto: bool = False
    ) -> None:
        """Record the fields of a ``TrainingStepLogged``, with ``delta_loss`` if there is one.

        The hot path: the event object itself is left out, for making it costs a tenth of the call.
        """
        recorder = self._recorder
        lock = recorder.lock
        # Called, not entered by ``with``: that alone would take twice as long as the lock itself.
        lock.acquire()
        try:
            delta = recorder.series.take_step(scope, split, fields["step"], fields["metrics"])
            if delta is not None:
                fields["delta_loss"] = delta
            recorder.write("training_step", fields, scope, auto)
        finally:
            lock.release()

    def _next_step(self, scope: ScopePairs, split: str | None, name: str) -> int:
        with self._recorder.lock:
            return self._recorder.figures.series.group(scope, split).next_step(name)

    def _by_step(
        self, call: Call, split: str | None, metrics: dict[str, Any], step: int | None
    ) -> Iterable[tuple[int, dict[str, Any]]]:
        """Return metrics by step: all at *step*, or each name at its running count."""
        if step is not None:
            return ((step, metrics),)
        if not metrics:
            return ((self._next_step(call.scope, split, "loss"), metrics),)
        parts: dict[int, dict[str, Any]] = {}
        for name, value in metrics.items():
            parts.setdefault(self._next_step(call.scope, split, name), {})[name] = value
        return tuple(parts.items())

    def _log_stats(
        self, name: str, kind: StatsEvent, prefix: str, stats: Mapping[str, Any], step: int | None
    ) -> None:
        with self._call(name, step=step) as call:
            number = call.step("step", step)
            cleaned = call.needed_mapping("stats", stats)
            with self._recorder.lock:
                group = self._recorder.figures.series.group(call.scope, prefix)
                at = number if number is not None else group.calls + 1
                call.record(kind(stats=cleaned, step=at), auto=number is None)
        self._delivered()

    def _captured_file(self, call: Call, argument: str, path: Any) -> dict[str, Any]:
        """Return the fields of a file that was captured; its path and name hold no lone surrogates."""
        try:
            place = absolute_path(path)
        except TypeError as error:
            raise BadInput(argument, path, f"is no path: {error}", TypeError) from None
        try:
            captured = self._files.file(place)
        except CannotCapture as error:
            raise BadInput(argument, str(place), str(error)) from None
        return captured | {"path": call.cleaner.name(captured["path"]), "name": call.cleaner.name(place.name)}

    @staticmethod
    def _content_name(call: Call, artifact_file: Any) -> str:
        name = call.needed_text("artifact_file", artifact_file).strip("/")
        if not name:
            raise BadInput("artifact_file", artifact_file, "names no file")
        return name

    def _record_content(self, call: Call, name: str, content: bytes, role: str) -> None:
        try:
            captured = self._files.content(content)
        except CannotCapture as error:
            raise BadInput("content", None, str(error)) from None
        call.record(ArtifactLogged(path=name, name=name, role=role, **captured))

    def _record_environment(self, call: Call, info: Mapping[str, Any] | None) -> None:
        facts = (
            capture_environment(self._cleaner, self._redactor)
            if info is None
            else call.needed_mapping("info", info)
        )
        call.record(EnvironmentCaptured(facts=facts))

    def _record_git(self, call: Call, path: Path | None) -> None:
        from lezea_mlops.capture.git import capture_git

        call.record(EnvironmentCaptured(facts={"git": call.value("path", capture_git(path))}))

    def _record_start(self, purpose: str, tags: Mapping[str, Any] | None) -> None:
        with self._call("ExperimentTracker") as call:
            fields = present(
                purpose=call.text("purpose", purpose) or None, tags=call.mapping("tags", tags)
            ) | describe_start(self._cleaner)
            call.record(RunStarted(experiment_name=self._cleaner.text(self.experiment_name), **fields))
        self._recorder.sync()

    def _capture_environment(self) -> None:
        """Record what ``start`` captures; nobody called for it, so nothing of it raises even with ``strict``."""
        with self._call("log_environment_info", strict=False) as call:
            self._record_environment(call, None)
        with self._call("log_git_commit", strict=False) as call:
            self._record_git(call, None)
        self._delivered()

    def _with_port(self, port: Any) -> Settings:
        """Return the settings with the port that ``start`` was given; left at its default, the setting counts."""
        if port is None:
            return replace(self._settings, prometheus_port=NO_PORT)
        _check_port(port)
        return self._settings if port == DEFAULT_PORT else replace(self._settings, prometheus_port=port)

    def _record_prices(self) -> None:
        """Record what costs are computed with, so that whoever reads the run computes the same."""
        rates, budget = self._settings.rates, self._settings.budget_eur
        if rates.any:
            self._recorder.record(RatesSet(rates=rates.as_dict()))
        if budget is not None:
            self._recorder.record(BudgetSet(branch=RUN_BRANCH, budget_eur=budget))

    def _new_measure(
        self, component_id: Any, component_type: Any, detail: Any
    ) -> AbstractContextManager[Any]:
        """Return the measure of a component that was not asked for yet; one of nothing where its name is none."""
        # What is measured in this block, or wrong with it, is the caller's; only the names are looked at here.
        with self._call("measure", component_type=component_type) as call:
            kind = call.text("component_type", component_type)
            name = call.needed_text("component_id", component_id)
            given = (component_id, component_type, detail)
            return self._meter.make(given, bounded_name(name), kind and bounded_name(kind), bool(detail))
        return nullcontext()

    def _take_notices(self) -> None:
        """Hear what the monitoring of the run has to tell."""
        driver = self._driver
        while driver is not None and driver.notices:
            try:
                notice = driver.notices.popleft()
            except IndexError:
                # Another thread has taken the last one.
                return
            if "prometheus" in notice:
                self._prometheus_url = notice["prometheus"]
            if "budget" in notice:
                self._tell_of_budget(notice["budget"])

    def _tell_of_budget(self, reached: Mapping[str, Any]) -> None:
        branch = reached["branch"]
        log.warning(
            "%.0f %% of the budget of %s is spent: %.6g of %.6g EUR (run %s)",
            100 * reached["share"], "the run" if branch == RUN_BRANCH else branch,
            reached["spent_eur"], reached["budget_eur"], self.experiment_id,
        )  # fmt: skip
        callback = self._budget_callbacks.get(branch)
        if callback is not None:
            # What it raises is set down like any other mistake of a call.
            with self._call("set_budget", strict=False) as call:
                call.converted("callback", dict(reached), callback)
                call.recorded = True

    def _usage(self) -> dict[str, Any] | None:
        """Return what the whole run has used and cost, as the driver adds it up; None where it does not."""
        if self._final is not None:
            return self._final
        return self._driver.usage() if self._driver is not None else None

    @property
    def _wants_totals(self) -> bool:
        """Whether anything was measured, or is to be watched."""
        return self._meter.used or is_wanted(self._settings)

    def _final_usage(self, deadline: Deadline) -> dict[str, Any] | None:
        """Have the totals of the attempt journaled, by the driver or, where it has none, here; return them."""
        self._meter.flush(last=self._wants_totals)
        turn = Deadline.after(min(TOTALS_TURN_S, deadline.left_s() / 2))
        totals = self._driver.totals(turn) if self._driver is not None else Totals(None)
        if totals.usage is None and not totals.told_by_others and self._recorder.wid == MAIN_WRITER:
            with self._recorder.lock:
                if self._wants_totals:
                    self._recorder.record(ResourceTotals(**self._recorder.figures.accounts.totals()))
        # A budget may have been passed at the very end.
        self._take_notices()
        return totals.usage

    def _wait_for_backends(self, driver: Driver) -> None:
        wrong = driver.wait_until_reached(Deadline.after(self._settings.start_timeout_s))
        if wrong and self._strict:
            raise BackendUnreachableError(
                f"strict start: {'; '.join(wrong)}. All calls are in {self.run_dir} nevertheless; start the backend, "
                "or start without strict"
            )

    def _finish(
        self, status: str, reason: str | None, error: BaseException | None, deadline: Deadline | None = None
    ) -> None:
        if os.getpid() != self._owner_pid:
            # A further writer closes its own file; only the tracker that began the run ends it.
            self._meter.flush()
            self._recorder.close()
            return
        with self._recorder.lock:
            before = self._status
            if before in ("created", "running"):
                self._status = status
                _OPEN.pop(self._key, None)
        if before not in ("created", "running"):
            log.warning("end(): the run %s is %s already; nothing was done", self.experiment_id, before)
            return
        deadline = deadline or Deadline.after(self._settings.close_timeout_s)
        usage = None
        try:
            if self._capturing is not None and self._capturing.ident is not None:
                self._capturing.join(deadline.left_s())
            usage = self._final = self._final_usage(deadline)
        finally:
            # Who presses Ctrl-C here does not want to wait; the end is as true as before.
            self._record_end(status, reason, error, usage)
        if self._driver is not None:
            self._close_driver(self._driver, deadline)
        self._recorder.close()

    def _record_end(
        self,
        status: str,
        reason: str | None,
        error: BaseException | None,
        usage: Mapping[str, Any] | None,
    ) -> None:
        self._recorder.finish_folds()
        with self._recorder.lock:
            fields = present(
                reason=None if reason is None else self._cleaner.text(reason),
                error=_described(error, self._cleaner),
                summary=self._cleaner.clean(with_totals(self._recorder.figures.summary(), usage)),
                duration_ms=(now_us() - self._started_us) // 1000,
            )  # fmt: skip
            # Last, for reason and traceback may hold secrets too.
            if redacted := self._redacted():
                fields["summary"]["redacted"] = redacted
            self._recorder.record(RunFinished(status=status, **fields))
            # The end is told. A record that comes late closes the lock, whose descriptor may then be another file's.
            signals.unwatch(self._key)
            self._recorder.late = True
            self._recorder.save_figures()
        self._recorder.sync()

    def _close_driver(self, driver: Driver, deadline: Deadline) -> None:
        closing = driver.close(deadline)
        goes_on = f" (the courier, process {closing.courier_pid}, goes on for ten minutes at most)"
        for sink, waiting in closing.left.items():
            if waiting:
                # What another process of the run delivers is on its way, and no reason to warn.
                log.log(
                    logging.INFO if closing.elsewhere else logging.WARNING,
                    "%s in %s for %s%s; ship them with: %s",
                    "1 record waits" if waiting == 1 else f"{waiting} records wait", self.run_dir, sink,
                    goes_on if closing.courier_pid else "", sync_command(self._recorder.folder),
                )  # fmt: skip

    def _redacted(self) -> dict[str, int]:
        """Return how many secrets were removed, by name or kind."""
        return {} if self._redactor is None else dict(sorted(self._redactor.found.items()))

    def _sink_state(self, name: str) -> Mapping[str, Any]:
        """Return what a sink remembers of the run, as whoever delivers it stored it last."""
        if self._settings.mode == "off":
            return {}
        destination = destinations(self._settings)[name]
        return Cursor(self._recorder.folder.cursor(destination)).state.sink

    def _identity(self) -> dict[str, Any]:
        return {
            "experiment_id": self.experiment_id,
            "experiment_name": self.experiment_name,
            "purpose": self._purpose,
            "status": self._status,
            "attempt": self._recorder.attempt,
            "duration_s": (now_us() - self._started_us) / 1e6,
        }

    def _after_fork_in_child(self) -> None:
        # The driver's threads stayed in the parent; it ships what this process writes, and ends the run.
        self._driver, self._owner_pid = None, NOBODY
        self._warned = Warned()
        self._meter.forget()


def _joined(
    name: str, purpose: str, settings: Settings, joining: Joining, async_mode: bool, strict: bool
) -> ExperimentTracker:
    """Return a tracker of this process for the run of another, whose end is the other's business."""
    tracker = ExperimentTracker.__new__(ExperimentTracker)
    tracker.experiment_name, tracker._settings = name, settings
    tracker._equip(join(settings, joining), async_mode)
    tracker._purpose, tracker._strict = purpose, strict
    # Not the sender's pid, which another container, or a copy in the sender itself, has too.
    tracker._status, tracker._owner_pid = "running", NOBODY
    _TRACKERS.add(tracker)
    _watch_the_end_of_a_child()
    # A task's copy is let go of without a word; what it measured in its last second is not lost by that.
    weakref.finalize(tracker, _leave, tracker._meter, tracker._recorder)
    return tracker


def _leave(meter: Meter, recorder: Recorder) -> None:
    """Record what a further writer measured, and close its file."""
    meter.flush()
    recorder.close()


_KEYS = itertools.count(1)
_TRACKERS: weakref.WeakSet[ExperimentTracker] = weakref.WeakSet()
# Processes that end what is open in them; a forked child of one is another.
_WATCHED_CHILDREN: set[int] = set()
# A run whose tracker the program let go of, as a local variable, is open all the same and has to be ended.
_OPEN: dict[int, ExperimentTracker] = {}


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(
            f'experiment_name is {name!r}; it must be text that is not empty, such as "Demo"'
        )
    return name


def _check_tags(tags: Any) -> None:
    if tags is not None and not isinstance(tags, Mapping):
        raise ConfigurationError(
            f'tags is {tags!r}; it must be texts by name, such as {{"team": "evolution"}}'
        )


def _check_port(port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= MAX_PORT:
        raise ConfigurationError(
            f"prometheus_port is {port!r}; it must be a whole number from 0 (any free port) to {MAX_PORT}, or None for "
            "off"
        )


def _known_status(word: Any) -> str | None:
    """Return one of our statuses for *word*, however it is spelled; None if it is none of them or of MLflow's."""
    text = str(word).strip().lower()
    text = "completed" if text == "finished" else text
    return text if text in STATUSES else None


def _judge(error: BaseException | None) -> tuple[str, str | None]:
    """Return status and reason of a with-block that ended by *error*."""
    if error is None or isinstance(error, GeneratorExit):
        return "completed", None
    if isinstance(error, KeyboardInterrupt) or _is_cancellation(error):
        return "killed", type(error).__name__
    if isinstance(error, SystemExit):
        failed = error.code not in (None, 0)
        return ("failed" if failed else "completed"), f"SystemExit({error.code!r})"
    return "failed", message_of(error)


def _is_cancellation(error: BaseException) -> bool:
    """Tell whether *error* is asyncio's word to a task that is to stop, as it gives it when Ctrl-C is pressed."""
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def _described(error: BaseException | None, cleaner: Cleaner) -> dict[str, str] | None:
    if error is None:
        return None
    return {
        "type": type(error).__name__,
        "message": cleaner.text(message_of(error).partition(": ")[2]),
        "traceback": cleaner.text("".join(traceback.format_exception(error))),
    }


def _difference(before: int | float | str, after: int | float | str) -> int | float | str:
    """Return before − after; NaN where a side is not finite."""
    if isinstance(before, str) or isinstance(after, str):
        return "NaN"
    if isinstance(before, int) and isinstance(after, int) and abs(before - after) < 2**63:
        return before - after
    return number_text(float(before) - float(after))


def _length(ids: Any) -> int:
    count = element_count(ids)
    return len(ids) if count is None else count


def _end_at_exit() -> None:
    """End what was forgotten, at interpreter exit; an uncaught exception was recorded by the interpreter."""
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    _end_open_trackers(None if interactive else getattr(sys, "last_value", None))


def _end_with_child() -> None:
    """End what was forgotten in a child of ``multiprocessing``, which runs nothing else when it ends."""
    error = sys.exc_info()[1]
    _end_open_trackers(None if isinstance(error, SystemExit) else error)


def _watch_the_end_of_a_child() -> None:
    """Have ``multiprocessing`` end what is open here, if this process is a child of it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None and os.getpid() not in _WATCHED_CHILDREN:
        from multiprocessing.util import Finalize

        Finalize(None, _end_with_child, exitpriority=100)
        _WATCHED_CHILDREN.add(os.getpid())


def _end_open_trackers(error: BaseException | None) -> None:
    ours = [tracker for tracker in list(_OPEN.values()) if tracker._owner_pid == os.getpid()]
    for tracker in list(_TRACKERS):
        if tracker._owner_pid != os.getpid():
            # A further writer need not be ended; what it measured in its last second is not lost by that.
            tracker._meter.flush()
    # One for all of them: a program with fifty runs and a server that hangs shall end as soon as one with one.
    deadline = Deadline.after(max((tracker._settings.close_timeout_s for tracker in ours), default=0.0))
    for tracker in ours:
        status, reason = _judge(error)
        tracker._finish(status, reason or "interpreter exit", error, deadline)


def _after_fork_in_child() -> None:
    _OPEN.clear()
    for tracker in list(_TRACKERS):
        tracker._after_fork_in_child()


atexit.register(_end_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
