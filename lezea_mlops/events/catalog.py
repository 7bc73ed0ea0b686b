"""The closed set of events: one frozen class per thing that can happen, and the table of their names.

Fields carry the argument names of the connector spec. Numbers that are not finite are the texts "NaN",
"Infinity", "-Infinity". ``scope`` is added to any event that was logged inside scopes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lezea_mlops.events.base import Event
from lezea_mlops.events.expenses import (
    BudgetReached,
    BudgetSet,
    BusinessMetricsLogged,
    RatesSet,
    ResourceCostLogged,
    ResourceLogged,
    ResourcesUsed,
    ResourceTotals,
)
from lezea_mlops.events.scoped import EventInScope, JsonObject, Number


class RunStarted(EventInScope):
    """An attempt of the run began."""

    type: ClassVar[str] = "run_started"
    __slots__ = ()
    experiment_name: str
    purpose: str | None = None
    tags: JsonObject | None = None
    source: JsonObject | None = None
    env: JsonObject | None = None


class RunFinished(EventInScope):
    """An attempt ended: completed, failed or killed; ``inferred`` (at ``ended_at``, UTC µs) by somebody else."""

    type: ClassVar[str] = "run_finished"
    __slots__ = ()
    status: str
    reason: str | None = None
    error: JsonObject | None = None
    summary: JsonObject | None = None
    duration_ms: int | None = None
    inferred: bool | None = None
    ended_at: int | None = None


class ParamsLogged(EventInScope):
    """Parameters were set, by name."""

    type: ClassVar[str] = "param"
    __slots__ = ()
    params: JsonObject


class MetricsLogged(EventInScope):
    """Numbers were measured at a step."""

    type: ClassVar[str] = "metric"
    __slots__ = ()
    metrics: Mapping[str, Number]
    step: int


class DeltaLossLogged(EventInScope):
    """The loss of an epoch was compared with the one before: ``delta_loss`` = previous − this."""

    type: ClassVar[str] = "delta_loss"
    __slots__ = ()
    epoch: int
    loss: Number
    prev_loss: Number
    delta_loss: Number


class LezeaConfigLogged(EventInScope):
    """The configuration of an evolutionary run (spec 1.4)."""

    type: ClassVar[str] = "lezea_config"
    __slots__ = ()
    tasker_population_size: int | None = None
    builder_population_size: int | None = None
    algorithm_type: str | None = None
    start_network_id: str | None = None
    hyperparameters: JsonObject | None = None
    seeds: JsonObject | None = None
    initialization_scheme: str | None = None


class ConstraintsLogged(EventInScope):
    """Limits of the run: seconds of run time, and steps per episode."""

    type: ClassVar[str] = "constraints"
    __slots__ = ()
    runtime_limit_seconds: Number | None = None
    step_episode_limits: Any = None


class TrainingStepLogged(EventInScope):
    """Metrics of one training step (spec 1.5)."""

    type: ClassVar[str] = "training_step"
    __slots__ = ()
    step: int
    metrics: Mapping[str, Number]
    delta_loss: Number | None = None
    data_split: str | None = None
    sample_ids: Sequence[Any] | None = None
    modification_path: Any = None
    modification_statistics: JsonObject | None = None


class ModificationTreeLogged(EventInScope):
    """Modifications that builders proposed at a step; large trees arrive in parts 1 to ``parts``.
    ``repeat`` counts from 2 when the same scope logs a further tree at the same step."""

    type: ClassVar[str] = "modification_tree"
    __slots__ = ()
    step: int
    modifications: Sequence[JsonObject]
    statistics: JsonObject | None = None
    part: int | None = None
    parts: int | None = None
    repeat: int | None = None


class ModificationTreeStatsLogged(EventInScope):
    """Statistics of the modification tree as a whole, for instance its depth and acceptance rate."""

    type: ClassVar[str] = "modification_tree_stats"
    __slots__ = ()
    stats: JsonObject
    step: int


class ModificationStatsLogged(EventInScope):
    """Counts of modifications by kind, for instance crossovers and mutations."""

    type: ClassVar[str] = "modification_stats"
    __slots__ = ()
    stats: JsonObject
    step: int


class DataSplitsLogged(EventInScope):
    """Which samples are for training, validation and test."""

    type: ClassVar[str] = "data_splits"
    __slots__ = ()
    train_ids: Any
    val_ids: Any = None
    test_ids: Any = None
    sizes: Mapping[str, int] | None = None


class DataUsageLogged(EventInScope):
    """Which samples an epoch used."""

    type: ClassVar[str] = "data_usage"
    __slots__ = ()
    sample_ids: Any
    epoch: int | None = None
    count: int | None = None


class DataScoreLogged(EventInScope):
    """How relevant a sample was: ``delta`` = loss before − loss after."""

    type: ClassVar[str] = "data_score"
    __slots__ = ()
    sample_id: str
    before_loss: Number
    after_loss: Number
    delta: Number


class _FileLogged(EventInScope):
    """A file, captured by content hash (``blob``) or by ``reference``."""

    __slots__ = ()
    path: str
    name: str
    size: int
    blob: str | None = None
    sha256: str | None = None
    reference: JsonObject | None = None
    role: str | None = None
    metadata: JsonObject | None = None


class CheckpointLogged(_FileLogged):
    """A checkpoint as it was at the call."""

    type: ClassVar[str] = "checkpoint"
    __slots__ = ()
    step: int | None = None


class ArtifactLogged(_FileLogged):
    """A file, a text, a dictionary or a figure as it was at the call; ``name`` is where it is to stand."""

    type: ClassVar[str] = "artifact"
    __slots__ = ()


class DatasetVersionLogged(EventInScope):
    """The version of a dataset, with the fingerprint of its files if a path was given."""

    type: ClassVar[str] = "dataset_version"
    __slots__ = ()
    dataset_name: str
    version_tag: str | None = None
    dataset_path: str | None = None
    fingerprint: JsonObject | None = None
    version_metadata: JsonObject | None = None


class ResultsLogged(EventInScope):
    """Results of the run or of a step (spec 1.6)."""

    type: ClassVar[str] = "result"
    __slots__ = ()
    result_dict: JsonObject | None = None
    tasker_rewards: JsonObject | None = None
    builder_rewards: JsonObject | None = None
    action_outputs: Any = None
    step: int | None = None


class RewardLogged(EventInScope):
    """A tasker's reward, or a reward that flowed from a source to a target."""

    type: ClassVar[str] = "reward"
    __slots__ = ()
    reward: Number
    step: int
    tasker_id: str | None = None
    source_id: str | None = None
    target_id: str | None = None
    source_type: str | None = None
    target_type: str | None = None
    task_id: str | None = None


class PopulationLogged(EventInScope):
    """A generation of the population: sizes, fitness by individual, diversity."""

    type: ClassVar[str] = "population"
    __slots__ = ()
    tasker_count: int
    builder_count: int
    generation: int
    fitness_scores: Any = None
    diversity_metric: Number | None = None
    step: int | None = None


class NetworkRegistered(EventInScope):
    """A network and its parents: one node of the lineage."""

    type: ClassVar[str] = "network"
    __slots__ = ()
    network_id: str
    network_type: str
    parent_ids: Sequence[str]
    generation: int | None = None
    architecture: Any = None
    metadata: JsonObject | None = None


class CommentLogged(EventInScope):
    """A remark of the researcher."""

    type: ClassVar[str] = "comment"
    __slots__ = ()
    text: str


class ConclusionLogged(EventInScope):
    """What the researcher concludes from the run."""

    type: ClassVar[str] = "conclusion"
    __slots__ = ()
    text: str


class EnvironmentCaptured(EventInScope):
    """Facts about the machine, the program, its packages and its repository."""

    type: ClassVar[str] = "environment"
    __slots__ = ()
    facts: JsonObject


class StatusChanged(EventInScope):
    """What the run is doing now, in the words of the XTrack protocol."""

    type: ClassVar[str] = "status"
    __slots__ = ()
    status: str
    msg: str | None = None


class LogLine(EventInScope):
    """A line of the program's log."""

    type: ClassVar[str] = "log"
    __slots__ = ()
    level: str
    msg: str


class FoldLogged(EventInScope):
    """The values that many individuals of a ``level`` logged of one metric at one step, as one."""

    type: ClassVar[str] = "fold"
    __slots__ = ()
    level: str
    metric: str
    step: int
    count: int
    mean: Number
    min: Number
    max: Number
    best_id: str
    split: str | None = None


class RejectedInput(EventInScope):
    """What a call brought that could not be taken, and why; ``rest`` is its good part, where nothing else holds it."""

    type: ClassVar[str] = "rejected_input"
    __slots__ = ()
    call: str
    argument: str
    value: str
    reason: str
    rest: JsonObject | None = None


class Gap(EventInScope):
    """Records that could not be written: ``count`` of them, numbered ``first_seq`` to ``last_seq``."""

    type: ClassVar[str] = "gap"
    __slots__ = ()
    count: int
    first_seq: int
    last_seq: int
    reason: str


CLASS_OF_TYPE: dict[str, type[Event]] = {
    cls.type: cls
    for cls in (
        RunStarted, RunFinished, ParamsLogged, MetricsLogged, DeltaLossLogged, LezeaConfigLogged,
        ConstraintsLogged, TrainingStepLogged, ModificationTreeLogged, ModificationTreeStatsLogged,
        ModificationStatsLogged, DataSplitsLogged, DataUsageLogged, DataScoreLogged, ResourceLogged,
        CheckpointLogged, ArtifactLogged, DatasetVersionLogged, ResultsLogged, RewardLogged,
        PopulationLogged, NetworkRegistered, ResourceCostLogged, BusinessMetricsLogged, CommentLogged,
        ConclusionLogged, EnvironmentCaptured, StatusChanged, LogLine, FoldLogged, RejectedInput, Gap,
        ResourcesUsed, ResourceTotals, RatesSet, BudgetSet, BudgetReached,
    )
}  # fmt: skip

# Names that other programs of the protocol use for the same events.
ALIASES = {"run_start": "run_started", "run_end": "run_finished", "metric_batch": "metric"}
