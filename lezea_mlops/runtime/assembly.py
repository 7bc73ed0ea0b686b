"""The one place that knows which sinks there are and which driver goes with which mode."""

from __future__ import annotations

import functools
import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from lezea_mlops.config import Settings
from lezea_mlops.errors import ConfigurationError, JournalBusyError, JournalError
from lezea_mlops.journal import MAIN_WRITER, BlobStore, RunFolder, recorded_run_id
from lezea_mlops.runtime.courier_driver import CourierDriver
from lezea_mlops.runtime.driver import Driver, ThreadDriver
from lezea_mlops.runtime.ends import LeftBehind, write_ends_before_resuming
from lezea_mlops.runtime.files import FileCapture
from lezea_mlops.runtime.monitoring import is_wanted
from lezea_mlops.runtime.recorder import Joining, OffRecorder, Recorder
from lezea_mlops.runtime.spawning import CannotSpawn
from lezea_mlops.runtime.undelivered import UndeliveredDriver
from lezea_mlops.sinks.base import Sink, destination_named

log = logging.getLogger("lezea_mlops")

# What makes files of a run that has ended; named, because these stand in a layer above.
FINISHERS: tuple[str, ...] = ("lezea_mlops.reports.tree_page:make",)
_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")


@dataclass(frozen=True)
class Parts:
    """What a tracker is put together from."""

    recorder: Recorder
    files: FileCapture


def destinations(settings: Settings) -> dict[str, str]:
    """Return the names of the cursors by sink, in the order of ``build_sinks``, without loading a sink."""
    names = {"mlflow": destination_named("mlflow", settings.mlflow_tracking_uri)}
    if settings.mongo_uri is not None:
        from lezea_mlops.sinks.mongodb import address_of

        names["mongodb"] = destination_named("mongodb", address_of(settings.mongo_uri))
    return names


def build_sinks(settings: Settings) -> list[Sink]:
    """Return the sinks that the settings ask for; none of them connects yet."""
    # Imported here: a run that delivers nothing need not load what speaks to servers.
    from lezea_mlops.sinks.mlflow import MlflowSink

    sinks: list[Sink] = [MlflowSink(settings.mlflow_tracking_uri, settings.mlflow_artifact_location)]
    if settings.mongo_uri is not None:
        from lezea_mlops.sinks.mongodb import MongoSink

        sinks.append(MongoSink(settings.mongo_uri))
    return sinks


def start_driver(recorder: Recorder, settings: Settings, *, async_mode: bool) -> Driver | None:
    """Return the driver of the mode, started; None where the journal waits for ``lezea sync``."""
    if settings.mode != "online":
        return _monitored_alone(recorder, settings)

    def thread_driver() -> ThreadDriver:
        return ThreadDriver(
            recorder, build_sinks(settings), waits=not async_mode, finishers=FINISHERS, settings=settings
        )

    if settings.courier == "process":
        courier = CourierDriver(
            recorder, settings, destinations(settings), waits=not async_mode, instead=thread_driver,
            finishers=FINISHERS,
        )  # fmt: skip
        try:
            courier.start()
        except CannotSpawn as error:
            log.warning("no courier process can be started (%s); a thread of this process delivers", error)
        else:
            return courier
    driver = thread_driver()
    driver.start()
    return driver


def _monitored_alone(recorder: Recorder, settings: Settings) -> Driver | None:
    """Return the driver of a run that nothing is delivered of; None where it is not monitored either."""
    if not is_wanted(settings):
        return None
    driver = UndeliveredDriver(recorder, settings)
    driver.start()
    return driver


def assemble(settings: Settings, resume: str | None) -> Parts:
    """Make or open the run folder, and what writes to it.

    Raises:
        ConfigurationError: the folder cannot be used, or the run to resume is not there.
    """
    folder = RunFolder(settings.runs_dir / (resume or settings.experiment_id or new_experiment_id()))
    files = FileCapture(BlobStore(folder.blobs), settings.capture, settings.capture_max_mb)
    if settings.mode == "off":
        return Parts(OffRecorder(folder), files.without_storing())
    if resume is not None and not folder.journals():
        raise ConfigurationError(
            f"resume is {resume!r}, and {folder.path} holds no journal; check the id and runs_dir "
            f"(or LEZEA_RUNS_DIR), which is {settings.runs_dir}"
        )
    if resume is not None and (recorded := recorded_run_id(folder)) not in (None, folder.run_id):
        raise ConfigurationError(
            f"resume is {resume!r}, and the records in {folder.path} are those of the run {recorded}: the folder was "
            f"copied or renamed. Rename it to {recorded} to continue that run, or start a new one"
        )
    try:
        folder.create()
        wid = writer_name(is_shared=resume is not None or settings.experiment_id is not None)
        before = LeftBehind.read(folder) if wid == MAIN_WRITER else None
        recorder = Recorder(folder, wid, settings.durability, files.store_blob)
    except JournalBusyError as error:
        raise ConfigurationError(str(error)) from error
    except (OSError, JournalError) as error:
        raise ConfigurationError(
            f"runs_dir is {str(settings.runs_dir)!r}, and nothing can be written there ({error}); "
            "pass runs_dir=… or set LEZEA_RUNS_DIR to a folder that this user may write"
        ) from error
    if before is not None:
        write_ends_before_resuming(folder, before)
    return Parts(recorder, files)


def join(settings: Settings, joining: Joining) -> Parts:
    """Return the parts of a further writer of a run that another process began."""
    folder = RunFolder(joining.run_dir)
    files = FileCapture(BlobStore(folder.blobs), settings.capture, settings.capture_max_mb)
    if settings.mode == "off":
        return Parts(OffRecorder(folder), files.without_storing())
    return Parts(Recorder(folder, joining.wid, settings.durability, files.store_blob, joining), files)


def new_experiment_id() -> str:
    """Return a UUID4 from the system's randomness: seeding ``random`` must not repeat it."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))


def writer_name(*, is_shared: bool) -> str:
    """Return this process's writer: ``main``, or ``rank<N>`` for the further ranks of a shared run.

    The variables are read at each call: a launcher's own code may set them long after the import.
    """
    name = next((name for name in _RANK_VARIABLES if os.environ.get(name, "").isdecimal()), None)
    rank = 0 if name is None else int(os.environ[name])
    if name is None or rank == 0:
        return MAIN_WRITER
    if not is_shared:
        _warn_of_lone_rank(name, rank)
        return MAIN_WRITER
    return f"rank{rank}"


@functools.cache
def _warn_of_lone_rank(variable: str, rank: int) -> None:
    """Say, once in a process, that a rank of a larger job makes a run of its own."""
    log.warning(
        "%s is %d, and no experiment_id is shared with the other ranks: this process makes a run of its own. For one "
        "run of all ranks, give each of them the same experiment_id=… or LEZEA_EXPERIMENT_ID",
        variable, rank,
    )  # fmt: skip


def runs_in(runs_dir: Path) -> list[RunFolder]:
    """Return the run folders below *runs_dir*, oldest first."""
    if not runs_dir.is_dir():
        return []
    found = [RunFolder(path) for path in runs_dir.iterdir() if path.is_dir()]
    with_journal = [folder for folder in found if folder.journals()]
    return sorted(with_journal, key=lambda folder: folder.path.stat().st_mtime_ns)
