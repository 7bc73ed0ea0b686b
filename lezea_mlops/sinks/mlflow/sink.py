"""Delivers a run's records to MLflow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from lezea_mlops.events import MAX_NAMES_APART, Envelope
from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import (
    AuditCounts,
    AuditedJournal,
    Finding,
    Rejected,
    Run,
    Unavailable,
    without_credentials,
)
from lezea_mlops.sinks.mlflow.connection import RunGone, connect, probe, translated_errors
from lezea_mlops.sinks.mlflow.marks import (
    CAPPED_TAG,
    CAPPED_TEXT,
    OUTCOME_TAGS,
    SUPERSEDED_TAG,
    Standing,
    StatusOrder,
    read_order,
    said_of_the_past,
    status_order,
    told_of,
)
from lezea_mlops.sinks.mlflow.names import fit
from lezea_mlops.sinks.mlflow.notes import Notes
from lezea_mlops.sinks.mlflow.params import ParamHistory
from lezea_mlops.sinks.mlflow.pieces import Translation, end_ms, time_ms
from lezea_mlops.sinks.mlflow.runs import ORDER_TAG, find_run, make_run, read_run
from lezea_mlops.sinks.mlflow.sending import Sender
from lezea_mlops.sinks.mlflow.translation import translate

# A request to a server that died takes MLflow minutes; it is asked again after this time without an answer.
PROBE_AFTER_S = 0.2


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
        self._recreate = False
        self._sender: Sender | None = None
        self._names: dict[str, None] = {}
        self._notes = Notes()
        self._standing = Standing()
        self._told: set[str] = set()
        self._params = ParamHistory({}, {})
        self._status_order: StatusOrder = []
        self._superseded_from = math.inf
        self._answered_s = -math.inf

    # ------------------------------------------------------------------ contract

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Connect, and find the run if it is there already.

        A state with ``recreate`` asks for a new run in place of one that was deleted.
        """
        self._client = connect(self.destination)
        self._run = run
        self._recreate = bool(state.get("recreate"))
        self._names = dict.fromkeys(state.get("names", ()))
        self._notes = Notes(state.get("notes", ()))
        self._standing = Standing(state.get("standing"))
        with translated_errors(self.destination):
            run_id = state.get("run_id")
            found = read_run(self._client, run_id, run.run_id) if run_id else self._find()
            self._remember(found)
        self._answered_s = time.monotonic()

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take *records*: metrics in batches, then files, the status last."""
        if time.monotonic() - self._answered_s > PROBE_AFTER_S:
            probe(self.destination)
        names, standing = dict(self._names), self._standing.stored()
        try:
            with translated_errors(self.destination):
                self._deliver(records)
        except (Rejected, RunGone):
            # What MLflow has by now is asked of itself; and "invalid parameter" is its word of a deleted run too.
            self._names, self._standing = names, Standing(standing)
            with translated_errors(self.destination):
                self._remember_again()
            raise
        self._answered_s = time.monotonic()

    def state(self) -> Mapping[str, Any]:
        """Return MLflow's ids, the admitted metric names, the notes, and which records said last what stands."""
        return {
            "run_id": self._run_id,
            "experiment_id": self._experiment_id,
            "url": self._url(),
            "names": list(self._names),
            "notes": self._notes.stored(),
            "standing": self._standing.stored(),
        }

    def close(self) -> None:
        """Nothing is held: MLflow keeps its connections itself."""

    def audit(
        self, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
    ) -> Iterator[Finding]:
        """Compare what MLflow holds of *run* with the journal."""
        # Here, since the comparison rests on this module's words.
        from lezea_mlops.sinks.mlflow.audit import audited

        return audited(self.destination, run, state, journal, counts)

    # ------------------------------------------------------------------ the run

    def _find(self) -> Any:
        assert self._run is not None
        return find_run(self._client, self._run.run_id, even_if_deleted=not self._recreate)

    def _remember(self, run: Any) -> None:
        """Take what is there already from MLflow's own answer; None: no run yet."""
        self._run_id = self._experiment_id = self._sender = None
        if run is None:
            return
        assert self._run is not None
        self._run_id, self._experiment_id = run.info.run_id, run.info.experiment_id
        self._sender = Sender(self._client, run.info.run_id, RunFolder(self._run.folder))
        self._params = ParamHistory(run.data.params, run.data.tags)
        self._status_order = read_order(run.data.tags.get(ORDER_TAG))
        superseded_from = run.data.tags.get(SUPERSEDED_TAG, "")
        self._superseded_from = int(superseded_from) if superseded_from.isdecimal() else math.inf
        self._told = {name for name in run.data.tags if name.startswith("lezea.")}
        self._names |= dict.fromkeys(run.data.metrics)

    def _remember_again(self) -> None:
        if self._run_id is not None and self._run is not None:
            self._remember(read_run(self._client, self._run_id, self._run.run_id))

    def _find_or_make_run(self, records: Sequence[Envelope]) -> None:
        assert self._run is not None
        found = self._find()
        if found is None:
            started = next((r for r in records if r.type == "run_started" and r.wid == "main"), None)
            if started is None:
                raise Unavailable(
                    f"the run {self._run.run_id} is not in MLflow yet; its writer main has to come first",
                    "waiting",
                )
            found = make_run(self._client, started, self._run.run_id, self._artifact_location)
        self._remember(found)

    def _url(self) -> str | None:
        if self._run_id is None or urlsplit(self.destination).scheme not in ("http", "https"):
            return None
        address = without_credentials(self.destination)
        return f"{address}/#/experiments/{self._experiment_id}/runs/{self._run_id}"

    # ------------------------------------------------------------------ records

    def _deliver(self, records: Sequence[Envelope]) -> None:
        if self._sender is None:
            self._find_or_make_run(records)
        sender = self._sender
        assert sender is not None
        metrics: list[Any] = []
        tags: dict[str, str] = {}
        texts: dict[str, str] = {}
        status: tuple[StatusOrder, Envelope, str] | None = None
        for record in records:
            translation = self._standing.take(record, translate(record))
            self._note(record, translation, tags)
            if (word := translation.status) is not None:
                order, newest = status_order(record, word), status[0] if status else self._status_order
                if order < newest:
                    translation = said_of_the_past(record, translation, newest)
                else:
                    status = (order, record, word)
                    # What is not said of this attempt any more must not stay from the one before.
                    tags |= {name: "" for name in OUTCOME_TAGS if name in tags or name in self._told}
            tags |= translation.tags
            texts |= {text.path: text.content for text in translation.texts}
            metrics += self._metrics(record, translation, tags)
            if record.att > 1 and translation.step is not None and translation.step < self._superseded_from:
                # MLflow keeps the points of all attempts; from here on there may be several.
                self._superseded_from = translation.step
                tags[SUPERSEDED_TAG] = str(translation.step)
            if translation.params:
                change = self._params.apply(record, translation.params)
                sender.params(change.new)
                tags |= change.tags
                texts |= {text.path: text.content for text in change.texts}
            sender.files(translation.blobs)
            sender.datasets(translation.datasets)
        sender.metrics(metrics)
        sender.texts(texts)
        self._send_tags(sender, tags)
        if status is not None:
            self._send_status(sender, *status)

    def _metrics(self, record: Envelope, translation: Translation, tags: dict[str, str]) -> Iterable[Any]:
        from mlflow.entities import Metric

        at_ms = time_ms(record)
        for point in translation.points:
            key, value = fit(point.key), point.value
            if not self._admitted(key, point.individual, tags):
                continue
            if key != point.key or math.isinf(value):
                for name, text in told_of(key, point):
                    self._tell(tags, name, text)
                value = math.nan if math.isinf(value) else value
            yield Metric(key, value, at_ms, point.step)

    def _admitted(self, key: str, individual: bool, tags: dict[str, str]) -> bool:
        """Tell whether a name may be shown: those of individuals only while there are fewer than 1,000 names."""
        if key in self._names:
            return True
        if len(self._names) < MAX_NAMES_APART:
            self._names[key] = None
            return True
        if individual:
            self._tell(tags, CAPPED_TAG, CAPPED_TEXT)
            return False
        return True

    def _tell(self, tags: dict[str, str], name: str, text: str) -> None:
        """Set a tag once and never change it."""
        name = fit(name)
        if name not in self._told:
            tags.setdefault(name, text)

    def _note(self, record: Envelope, translation: Translation, tags: dict[str, str]) -> None:
        if translation.note is not None:
            self._notes.add(record, *translation.note)
            tags["mlflow.note.content"] = self._notes.markdown()

    def _send_tags(self, sender: Sender, tags: Mapping[str, str]) -> None:
        sender.tags({fit(name): value for name, value in tags.items()})
        # Only what MLflow has was told; what a failure kept from it comes again.
        self._told.update(name for name in map(fit, tags) if name.startswith("lezea."))

    def _send_status(self, sender: Sender, order: StatusOrder, record: Envelope, status: str) -> None:
        sender.status(status, None if status == "RUNNING" else end_ms(record))
        sender.tags({ORDER_TAG: json.dumps(order)})
        self._status_order = order
