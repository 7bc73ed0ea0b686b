"""The trackers that the benchmarks compare, each behind the same few calls, and how each gets a process of its own.

A library is imported by ``prepare`` and not before, so that a missing one is a row of a table and no error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Log = Callable[[int, "dict[str, float]"], object]

LOSS, ACCURACY = "loss", "acc"
# No tracker speaks to its makers; nothing here changes how fast one is.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


def metrics_of(step: int) -> dict[str, float]:
    """Return the two metrics of a step."""
    return {LOSS: 1.0 / (step + 1), ACCURACY: step * 1e-6}


def prepared_store(folder: Path) -> Path:
    """Return a SQLite store in *folder* whose tables are made, which takes seconds; ``PREPARED_STORE`` is copied.

    Another process makes them, so that this one imports nothing for it.
    """
    path = folder / "mlflow.db"
    if made := os.environ.get("PREPARED_STORE"):
        shutil.copyfile(made, path)
        return path
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ | QUIET)
    return path


class Nothing:
    """A tracker that does nothing: what is measured of it is the noise of the measurement."""

    title = "nobody"
    # Seconds that its helpers may use after a kill to write what they hold.
    grace_s = 0.0

    def prepare(self, folder: Path) -> None:
        """Import the library, and make what all runs share."""
        self.shared = folder

    def start(self, folder: Path) -> Log:
        """Begin a run that keeps what it has in *folder*, and return the function that logs a step."""
        return lambda step, metrics: None

    def end(self) -> None:
        """End the run."""

    def steps(self, folder: Path) -> set[int]:
        """Return the steps of which both metrics can be read back with the tracker's own reader."""
        return set()


class Lezea(Nothing):
    """This package, delivering to MLflow."""

    def __init__(self, courier: str) -> None:
        self.title = f"lezea_mlops, {courier}"
        self._courier = courier

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self._store = prepared_store(folder)
        from lezea_mlops import journal, tracker

        self._journal, self._tracker = journal, tracker
        if self._courier == "thread":
            # So that it delivers at once, in every run.
            import mlflow.tracking  # noqa: F401

    def start(self, folder: Path) -> Log:
        settings = {"courier": self._courier, "mlflow_tracking_uri": f"sqlite:///{self._store}"}
        self._run = self._tracker.ExperimentTracker(
            "benchmark", async_mode=True, runs_dir=folder, settings=settings
        )
        self._run.start(prometheus_port=None)
        return self._run.log_training_step

    def end(self) -> None:
        self._run.end()

    def steps(self, folder: Path) -> set[int]:
        (run_dir,) = folder.iterdir()
        return {
            record.event.step
            for record in self._journal.read_run(run_dir)
            if record.type == "training_step" and {LOSS, ACCURACY} <= record.event.metrics.keys()
        }


class Mlflow(Nothing):
    """MLflow's own call with a local SQLite store."""

    def __init__(self, title: str, **options: Any) -> None:
        self.title = title
        self._options = options

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        import mlflow

        self._mlflow = mlflow
        self._store = prepared_store(folder)

    def start(self, folder: Path) -> Log:
        mlflow, options = self._mlflow, self._options
        shutil.copyfile(self._store, folder / "run.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/run.db")
        mlflow.set_experiment("benchmark")
        mlflow.start_run()
        return lambda step, metrics: mlflow.log_metrics(metrics, step=step, **options)

    def end(self) -> None:
        self._mlflow.flush_async_logging()
        self._mlflow.end_run()

    def steps(self, folder: Path) -> set[int]:
        client = self._mlflow.MlflowClient(f"sqlite:///{folder}/run.db")
        experiment = client.get_experiment_by_name("benchmark")
        (run,) = client.search_runs([experiment.experiment_id])
        loss, accuracy = (client.get_metric_history(run.info.run_id, key) for key in (LOSS, ACCURACY))
        return {point.step for point in loss} & {point.step for point in accuracy}


class Wandb(Nothing):
    """Weights & Biases, offline."""

    title = "Weights & Biases, offline"
    grace_s = 3.0

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        for name in ("CACHE", "CONFIG", "DATA"):
            os.environ[f"WANDB_{name}_DIR"] = str(folder)
        import wandb

        self._wandb = wandb

    def start(self, folder: Path) -> Log:
        self._run = run = self._wandb.init(mode="offline", dir=str(folder), project="benchmark")
        return lambda step, metrics: run.log(metrics, step=step)

    def end(self) -> None:
        self._run.finish()

    def steps(self, folder: Path) -> set[int]:
        from wandb.proto import wandb_internal_pb2

        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        found = set()
        for content in datastore_records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if {LOSS, ACCURACY} <= items.keys():
                found.add(int(items["_step"]) if "_step" in items else record.history.step.num)
        return found


class Trackio(Nothing):
    """trackio, local."""

    title = "trackio"
    grace_s = 1.0

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        # It reads this when it is imported.
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        import trackio

        self._trackio = trackio

    def start(self, folder: Path) -> Log:
        run = self._trackio.init(project=folder.name, name="run", embed=False)
        self._run = run
        return lambda step, metrics: run.log(metrics, step=step)

    def end(self) -> None:
        self._run.finish()

    def steps(self, folder: Path) -> set[int]:
        from trackio.sqlite_storage import SQLiteStorage

        rows = SQLiteStorage.get_logs(folder.name, "run")
        return {row["step"] for row in rows if {LOSS, ACCURACY} <= row.keys()}


class TensorBoardX(Nothing):
    """TensorBoardX, one call per metric."""

    title = "TensorBoardX"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        import tensorboardX

        self._library = tensorboardX

    def start(self, folder: Path) -> Log:
        self._writer = self._library.SummaryWriter(str(folder))
        add = self._writer.add_scalar

        def log(step: int, metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                add(name, value, step)

        return log

    def end(self) -> None:
        self._writer.close()

    def steps(self, folder: Path) -> set[int]:
        from tensorboardX.proto import event_pb2

        found: dict[str, set[int]] = {LOSS: set(), ACCURACY: set()}
        for path in folder.glob("events*"):
            for content in tfrecords(path.read_bytes()):
                event = event_pb2.Event.FromString(content)
                for value in event.summary.value:
                    found.setdefault(value.tag, set()).add(event.step)
        return found[LOSS] & found[ACCURACY]


def tfrecords(content: bytes) -> Iterator[bytes]:
    """Yield the whole records of a TFRecord file: length, its checksum, the record, its checksum."""
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        begin, at = at + 12, at + length + 16
        if at <= len(content):
            yield content[begin : begin + length]


def datastore_records(content: bytes) -> Iterator[bytes]:
    """Yield the whole records of a wandb file, which is a LevelDB log: blocks of 32 KiB, records in parts."""
    block, header, at = 32_768, 7, 7
    whole, first, last = 1, 2, 4
    parts: list[bytes] = []
    while at + header <= len(content):
        if block - at % block < header:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        begin, at = at + header, at + header + length
        if kind == 0 or at > len(content):
            return
        if kind in (whole, first):
            parts = []
        parts.append(content[begin:at])
        if kind in (whole, last):
            yield b"".join(parts)


TRACKERS: dict[str, Callable[[], Nothing]] = {
    "nobody": Nothing,
    "lezea": lambda: Lezea("process"),
    "lezea-thread": lambda: Lezea("thread"),
    "mlflow": lambda: Mlflow("MLflow, synchronous"),
    "mlflow-async": lambda: Mlflow("MLflow, `synchronous=False`", synchronous=False),
    "wandb": Wandb,
    "trackio": Trackio,
    "tensorboardx": TensorBoardX,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every program that compares trackers."""
    parser.add_argument("--trackers", nargs="+", choices=list(TRACKERS), default=list(TRACKERS))
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH",
        help="the interpreter of one tracker, where its library is installed; default: this one",
    )  # fmt: skip
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)


def measured_alone(arguments: argparse.Namespace, name: str, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run this program again for one tracker, in a process of its own; return its figures or ``error``."""
    interpreter = dict(pair.split("=", 1) for pair in arguments.python).get(name, sys.executable)
    with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        command = [
            interpreter, sys.argv[0], *sys.argv[1:], *extra,
            "--only", name, "--result", str(result), "--folder", folder,
        ]  # fmt: skip
        with log.open("wb") as output:
            subprocess.run(
                command,
                check=False,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=os.environ | QUIET,
            )
        if result.exists():
            return dict(json.loads(result.read_text()))
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        return {"error": f"failed: {last[-200:].replace('|', '/')}"}


def tell(arguments: argparse.Namespace, measure: Callable[[Nothing, Path], dict[str, Any]]) -> None:
    """Measure the one tracker that ``measured_alone`` named, and leave its figures where it looks for them."""
    tracker = TRACKERS[arguments.only]()
    folder = Path(arguments.folder)
    try:
        tracker.prepare(folder)
        figures = measure(tracker, folder)
    except ModuleNotFoundError as error:
        figures = {"error": f"{error.name} is not installed"}
    arguments.result.write_text(json.dumps(figures))


def row(
    name: str, figures: dict[str, Any], cells: Callable[[dict[str, Any]], Sequence[str]], columns: int
) -> str:
    """Return one tracker's line of a table; where there are no figures, why."""
    shown = [figures["error"], *[""] * (columns - 1)] if "error" in figures else cells(figures)
    return f"| {TRACKERS[name]().title} | {' | '.join(shown)} |"
