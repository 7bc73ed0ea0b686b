"""Delivers a run's records to MLflow."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lezea_mlops.events import Envelope
from lezea_mlops.journal import BlobStore, RunFolder, place_under_name
from lezea_mlops.sinks.base import Rejected, Run, Unavailable
from lezea_mlops.sinks.mlflow.connection import RunGone, connect, probe, translated_errors
from lezea_mlops.sinks.mlflow.names import escape, fit
from lezea_mlops.sinks.mlflow.notes import Notes
from lezea_mlops.sinks.mlflow.params import MAX_TAG, ParamHistory, shortened
from lezea_mlops.sinks.mlflow.translation import BlobFile, Dataset, TextFile, Translation, translate

log = logging.getLogger("lezea_mlops")

RUN_TAG = "lezea.experiment_id"
ORDER_TAG = "lezea.status_order"
CAPPED_TAG = "lezea.metric_names_capped"
MAX_METRIC_NAMES = 1_000
METRICS_PER_REQUEST = 1_000
ENTRIES_PER_REQUEST = 50
PROBE_AFTER_S = 1.0


class MlflowSink:
    """One run in MLflow, found by its tag ``lezea.experiment_id`` or made by the records of the writer ``main``.

    Args:
        uri: of a SQL store or a server.
        artifact_location: where a new experiment keeps files; None lets the server decide.
    """

    name = "mlflow"

    def __init__(self, uri: str, artifact_location: str | None = None) -> None:
        self.destination = uri
        self._artifact_location = artifact_location
        self._client: Any = None
        self._run: Run | None = None
        self._run_id: str | None = None
        self._experiment_id: str | None = None
        self._names: dict[str, None] = {}
        self._notes = Notes()
        self._told: set[str] = set()
        self._params = ParamHistory({}, {})
        self._status_order: list[Any] = []
        self._answered_s = -math.inf

    # ------------------------------------------------------------------ contract

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Connect, and find the run if it is there already."""
        self._client = connect(self.destination)
        self._run = run
        self._answered_s = time.monotonic()
        self._names = dict.fromkeys(state.get("names", ()))
        self._notes = Notes(state.get("notes", ()))
        with translated_errors(self.destination):
            self._run_id = state.get("run_id") or self._find_run(run.run_id)
            if self._run_id is not None:
                self._remember_run()

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take *records*: metrics in batches, then files, the status last."""
        if time.monotonic() - self._answered_s > PROBE_AFTER_S:
            probe(self.destination)
        with translated_errors(self.destination):
            try:
                self._deliver(records)
            except Rejected:
                # MLflow says "invalid parameter" of a deleted run too.
                self._remember_run()
                raise
        self._answered_s = time.monotonic()

    def state(self) -> Mapping[str, Any]:
        """Return MLflow's ids, the admitted metric names and the notes of the description."""
        return {
            "run_id": self._run_id,
            "experiment_id": self._experiment_id,
            "url": self._url(),
            "names": list(self._names),
            "notes": self._notes.stored(),
        }

    def close(self) -> None:
        """Nothing is held: MLflow keeps its connections itself."""

    # ------------------------------------------------------------------ the run

    def _find_run(self, experiment_id: str) -> str | None:
        """Look for the run by its tag in every experiment."""
        token = None
        while True:
            experiments = self._client.search_experiments(page_token=token)
            ids = [experiment.experiment_id for experiment in experiments]
            if ids:
                found = self._client.search_runs(
                    ids,
                    f"tags.`{RUN_TAG}` = '{experiment_id}'",
                    max_results=1,
                    order_by=["attribute.start_time ASC"],
                )
                if found:
                    return str(found[0].info.run_id)
            token = experiments.token
            if not token:
                return None

    def _remember_run(self) -> None:
        """Read back from MLflow what is there already.

        Raises:
            RunGone: a person deleted the run.
        """
        if self._run_id is None:
            return
        run = self._client.get_run(self._run_id)
        if run.info.lifecycle_stage != "active":
            raise RunGone(
                f"the run {self._run_id} was deleted in MLflow; restore it there, or make a new one with: "
                f"lezea sync --recreate {self._run.run_id if self._run else ''}"
            )
        self._experiment_id = run.info.experiment_id
        self._params = ParamHistory(run.data.params, run.data.tags)
        self._status_order = json.loads(run.data.tags.get(ORDER_TAG, "[]"))
        self._told = {name for name in run.data.tags if name.startswith("lezea.")}

    def _make_run(self, started: Envelope) -> None:
        """Make the run as its first record tells it."""
        name = str(started.payload.get("experiment_name"))
        self._experiment_id = self._find_or_make_experiment(name[:500])
        run = self._client.create_run(
            self._experiment_id,
            start_time=started.ts // 1000,
            tags={RUN_TAG: started.run_id},
            run_name=f"{name[:200]}-{started.run_id[:8]}",
        )
        self._run_id = run.info.run_id

    def _find_or_make_experiment(self, name: str) -> str:
        """Return the id of the experiment *name*; where several make it at once, all get the same."""
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=self._artifact_location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise Unavailable(
                f"the experiment {name!r} was deleted in MLflow; restore it there, or use another experiment_name",
                "removed",
            )
        return str(experiment.experiment_id)

    def _url(self) -> str | None:
        if self._run_id is None or urlsplit(self.destination).scheme not in ("http", "https"):
            return None
        return f"{self.destination.rstrip('/')}/#/experiments/{self._experiment_id}/runs/{self._run_id}"

    # ------------------------------------------------------------------ records

    def _deliver(self, records: Sequence[Envelope]) -> None:
        if self._run_id is None:
            self._find_or_make_run(records)
        metrics: list[Any] = []
        tags: dict[str, str] = {}
        status: tuple[Envelope, str] | None = None
        texts: dict[str, str] = {}
        for record in records:
            translation = translate(record)
            metrics += self._metrics(record, translation, tags)
            texts |= {text.path: text.content for text in translation.texts}
            self._send_params(record, translation, tags, texts)
            self._send_files(translation.blobs)
            self._send_datasets(translation.datasets)
            if record.wid == "main" or translation.status is not None:
                tags |= translation.tags
                self._note(record, translation, tags)
                status = (record, translation.status) if translation.status else status
        self._send_metrics(metrics)
        self._send_texts(texts)
        self._send_tags(tags)
        if status is not None:
            self._send_status(*status)

    def _find_or_make_run(self, records: Sequence[Envelope]) -> None:
        assert self._run is not None
        started = next((r for r in records if r.type == "run_started" and r.wid == "main"), None)
        self._run_id = self._find_run(self._run.run_id)
        if self._run_id is None:
            if started is None:
                raise Unavailable(
                    f"the run {self._run.run_id} is not in MLflow yet; its writer main has to come first",
                    "waiting",
                )
            self._make_run(started)
        self._remember_run()

    def _metrics(self, record: Envelope, translation: Translation, tags: dict[str, str]) -> Iterable[Any]:
        from mlflow.entities import Metric

        for point in translation.points:
            key = fit(point.key)
            if not self._admitted(key, point.individual, tags):
                continue
            if key != point.key:
                self._tell(tags, f"lezea.name.{key[-16:]}", point.key)
            value = point.value
            if math.isinf(value):
                sign = "Infinity" if value > 0 else "-Infinity"
                self._tell(
                    tags, f"lezea.nonfinite.{point.key}", f"{sign}, first at step {point.step}; shown as NaN"
                )
                value = math.nan
            yield Metric(key, value, record.ts // 1000, point.step)

    def _admitted(self, key: str, individual: bool, tags: dict[str, str]) -> bool:
        """Tell whether a name may be shown: those of individuals only while there are fewer than 1,000 names."""
        if key in self._names:
            return True
        if len(self._names) < MAX_METRIC_NAMES:
            self._names[key] = None
            return True
        if individual:
            self._tell(
                tags, CAPPED_TAG,
                f"more than {MAX_METRIC_NAMES} metric names: further builders' and taskers' own metrics are only in "
                "the journal; population snapshots show them together",
            )  # fmt: skip
            return False
        return True

    def _tell(self, tags: dict[str, str], name: str, text: str) -> None:
        """Set a tag once and never change it."""
        name = fit(name)
        if name not in self._told:
            self._told.add(name)
            tags[name] = text

    def _note(self, record: Envelope, translation: Translation, tags: dict[str, str]) -> None:
        if translation.note is not None:
            self._notes.add(record, *translation.note)
            tags["mlflow.note.content"] = self._notes.markdown()

    # ------------------------------------------------------------------ requests

    def _send_metrics(self, metrics: Sequence[Any]) -> None:
        for start in range(0, len(metrics), METRICS_PER_REQUEST):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def _send_params(
        self, record: Envelope, translation: Translation, tags: dict[str, str], texts: dict[str, str]
    ) -> None:
        from mlflow.entities import Param

        if not translation.params:
            return
        change = self._params.apply(record, translation.params)
        tags |= change.tags
        texts |= {text.path: text.content for text in change.texts}
        new = [Param(name, value) for name, value in change.new.items()]
        for start in range(0, len(new), ENTRIES_PER_REQUEST):
            self._client.log_batch(self._run_id, params=new[start : start + ENTRIES_PER_REQUEST])

    def _send_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        whole: list[TextFile] = []
        entries = []
        for name, value in tags.items():
            key = fit(name if name.startswith(("mlflow.", "lezea.")) else escape(name))
            entries.append(RunTag(key, shortened(value, f"values/tags/{key}.txt", MAX_TAG, whole)))
        for start in range(0, len(entries), ENTRIES_PER_REQUEST):
            self._client.log_batch(self._run_id, tags=entries[start : start + ENTRIES_PER_REQUEST])
        self._send_texts({text.path: text.content for text in whole})

    def _send_texts(self, texts: Mapping[str, str]) -> None:
        for path, content in texts.items():
            self._client.log_text(self._run_id, content, path)

    def _send_files(self, files: Sequence[BlobFile]) -> None:
        for file in files:
            content = self._content_of(file)
            folder, _, name = file.path.rpartition("/")
            with tempfile.TemporaryDirectory(prefix=".upload-", dir=self._folder()) as place:
                named = place_under_name(content, Path(place), name)
                self._client.log_artifact(self._run_id, str(named), folder or None)

    def _content_of(self, file: BlobFile) -> Path:
        """Return where the content of a captured file stands.

        Raises:
            Rejected: it is not there any more, or changed since the call.
        """
        if file.sha256 is not None:
            path = BlobStore(RunFolder(self._folder()).blobs).path(file.sha256)
            if not path.exists():
                raise Rejected(f"the captured content of {file.path} ({path}) is gone")
            return path
        path = Path(str(file.source))
        try:
            status = path.stat()
        except OSError as error:
            raise Rejected(f"{path}, which was logged by reference, cannot be read: {error}") from error
        expected = (file.size, (file.reference or {}).get("mtime_ns"))
        if (status.st_size, status.st_mtime_ns) != expected:
            raise Rejected(
                f"{path}, which was logged by reference, changed between the call and the delivery"
            )
        return path

    def _send_datasets(self, datasets: Sequence[Dataset]) -> None:
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        for dataset in datasets:
            entity = MlflowDataset(
                name=fit(dataset.name, 500), digest=dataset.digest[:36], source_type="local",
                source=json.dumps({"uri": dataset.source}), profile=json.dumps(dataset.metadata),
            )  # fmt: skip
            tag = InputTag("mlflow.data.context", str(dataset.metadata.get("version_tag") or "dataset")[:500])
            self._client.log_inputs(self._run_id, datasets=[DatasetInput(entity, [tag])])

    def _send_status(self, record: Envelope, status: str) -> None:
        """Set the run's status if *record* is newer than the one that set it; a real end beats an inferred one."""
        rank = 0 if status == "RUNNING" else 1 if record.payload.get("inferred") else 2
        order = [record.att, rank, record.ts, record.wid, record.seq]
        if order < self._status_order:
            return
        if status == "RUNNING":
            self._client.update_run(self._run_id, status=status)
        else:
            self._client.set_terminated(self._run_id, status=status, end_time=record.ts // 1000)
        self._client.set_tag(self._run_id, ORDER_TAG, json.dumps(order))
        self._status_order = order

    def _folder(self) -> Path:
        assert self._run is not None
        return self._run.folder
