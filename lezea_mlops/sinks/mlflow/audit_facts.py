"""Params and their revisions, tags, datasets and the status: what is said once of a run, or said anew."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, Finding
from lezea_mlops.sinks.mlflow.audit_files import WantedFiles, wanted_text
from lezea_mlops.sinks.mlflow.audit_survey import Claim, Stored, Survey, brief
from lezea_mlops.sinks.mlflow.marks import (
    CAPPED_TAG,
    CAPPED_TEXT,
    OUTCOME_TAGS,
    SUPERSEDED_TAG,
    StatusOrder,
    status_order,
    told_of,
)
from lezea_mlops.sinks.mlflow.names import file_part, fit
from lezea_mlops.sinks.mlflow.params import MAX_TAG, ParamHistory, shortened
from lezea_mlops.sinks.mlflow.pieces import TextFile, Translation
from lezea_mlops.sinks.mlflow.runs import ORDER_TAG

# People write the description; what records say of it is only a proposal.
NOTE_TAG = "mlflow.note.content"


class WantedTags:
    """Tags that must be there: of each writer the last value, or the first where a tag is set once."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[str, tuple[str, Envelope]]] = {}
        self._open: set[str] = set()

    def want(self, name: str, value: str, record: Envelope) -> None:
        """Expect a tag."""
        self._wanted.setdefault(fit(name), {})[record.wid] = (value, record)

    def want_first(self, name: str, value: str, record: Envelope) -> None:
        """Expect a tag that never changes."""
        self._wanted.setdefault(fit(name), {}).setdefault(record.wid, (value, record))

    def leave_open(self, name: str) -> None:
        """Take any value: a record that may or may not have arrived brings another."""
        self._open.add(fit(name))

    def findings(self, stored: Stored, files: WantedFiles, counts: AuditCounts) -> Iterator[Finding]:
        """Yield what is missing, and what has another value."""
        for name, by_writer in sorted(self._wanted.items()):
            if name == NOTE_TAG:
                continue
            counts.checked += 1
            values = {wid: _sent(name, value, record, files) for wid, (value, record) in by_writer.items()}
            wid = max(by_writer, key=lambda wid: wid == "main")
            seq, expected, found = by_writer[wid][1].seq, brief(values[wid]), stored.tags.get(name)
            if found is None:
                yield Finding("missing", f"tag {name}", wid, seq, expected, mendable=True)
            elif name not in self._open and found not in values.values():
                yield Finding("altered", f"tag {name}", wid, seq, expected, brief(found), mendable=True)


class Facts:
    """Compares what is no metric and no file of a record's own."""

    def __init__(self, stored: Stored, survey: Survey, files: WantedFiles, counts: AuditCounts) -> None:
        self._stored = stored
        self._survey = survey
        self._files = files
        self._counts = counts
        self._tags = WantedTags()
        self._history = ParamHistory(
            {key: base for key, claims in survey.claims.items() if (base := self._base(key, claims)) is not None},
            stored.tags,
        )  # fmt: skip
        self._found: list[Finding] = []
        self._datasets = stored.datasets()
        self._wanted_datasets: set[tuple[str, str]] = set()
        self._superseded: tuple[int, Envelope] | None = None
        # The newest word on the status, and the newest of those that may not have arrived.
        self._status: tuple[StatusOrder, Envelope, Translation] | None = None
        self._open_order: StatusOrder = []
        self._outcomes: set[str] = set()

    def altered_params(self) -> Iterator[Finding]:
        """Yield the params whose value no writer gave first; MLflow lets nobody set them right."""
        for key, claims in sorted(self._survey.claims.items()):
            found = self._stored.params.get(key)
            if found is not None and found not in {claim.value for claim in claims}:
                first = _first_owed(claims)
                yield Finding(
                    "altered", f"param {key}", first.wid, first.seq, brief(first.value), brief(found)
                )

    def take(self, record: Envelope, owed: bool, brought: Translation) -> None:
        """Look at one record."""
        self._take_status(record, owed, brought)
        self._take_told(record, owed, brought)
        for name, value in brought.tags.items():
            is_outcome = brought.status is not None and name in OUTCOME_TAGS
            if not is_outcome and (not owed or self._survey.standing.is_newest(record, brought, name)):
                self._want_tag(name, value, record, owed)
        if record.att > 1 and brought.step is not None:
            self._take_step(record, owed, brought.step)
        if owed and brought.params:
            self._take_params(record, brought)
        for dataset in brought.datasets if owed else ():
            self._take_dataset(record, dataset.name, dataset.digest)

    def findings(self) -> Iterator[Finding]:
        """Yield the differences; call it when all records were seen."""
        yield from self._found
        if self._superseded is not None:
            step, record = self._superseded
            self._tags.want(SUPERSEDED_TAG, str(step), record)
        if self._status is not None and self._status[0] > self._open_order:
            yield from self._status_findings(*self._status)
        yield from self._tags.findings(self._stored, self._files, self._counts)

    def _base(self, key: str, claims: list[Claim]) -> str | None:
        """Return the value that later ones are to be judged by; None if the param is missing."""
        found = self._stored.params.get(key)
        if found is None or found in {claim.value for claim in claims}:
            return found
        return _first_owed(claims).value

    def _want_tag(self, name: str, value: str, record: Envelope, owed: bool) -> None:
        if owed:
            self._tags.want(name, value, record)
        else:
            self._tags.leave_open(name)

    def _take_status(self, record: Envelope, owed: bool, brought: Translation) -> None:
        if brought.status is None:
            return
        order = status_order(record, brought.status)
        if not owed:
            self._open_order = max(order, self._open_order)
            return
        self._outcomes |= brought.tags.keys() & set(OUTCOME_TAGS)
        if self._status is None or order >= self._status[0]:
            self._status = (order, record, brought)

    def _take_told(self, record: Envelope, owed: bool, brought: Translation) -> None:
        for point in brought.points:
            key = fit(point.key)
            told = told_of(key, point) if self._stored.shows(point, key) else [(CAPPED_TAG, CAPPED_TEXT)]
            for name, text in told:
                if owed:
                    self._tags.want_first(name, text, record)
                else:
                    self._tags.leave_open(name)

    def _take_step(self, record: Envelope, owed: bool, step: int) -> None:
        if not owed:
            self._tags.leave_open(SUPERSEDED_TAG)
        elif self._superseded is None or step < self._superseded[0]:
            self._superseded = (step, record)

    def _take_params(self, record: Envelope, brought: Translation) -> None:
        """Ask what delivering the params again would add: nothing, or it is missing."""
        self._counts.checked += len(brought.params)
        change = self._history.apply(record, brought.params)
        for key, value in change.new.items():
            self._found.append(
                Finding("missing", f"param {key}", record.wid, record.seq, brief(value), mendable=True)
            )
        for name, value in change.tags.items():
            self._tags.want(name, value, record)
        for text in change.texts:
            self._want_text(text, record)

    def _take_dataset(self, record: Envelope, name: str, digest: str) -> None:
        self._counts.checked += 1
        wanted = (name, digest)
        if wanted not in self._datasets and wanted not in self._wanted_datasets:
            self._wanted_datasets.add(wanted)
            what = f"dataset {name} (digest {digest})"
            self._found.append(Finding("missing", what, record.wid, record.seq, digest, mendable=True))

    def _want_text(self, text: TextFile, record: Envelope) -> None:
        self._files.want(wanted_text(text), record)

    def _status_findings(
        self, order: StatusOrder, record: Envelope, brought: Translation
    ) -> Iterator[Finding]:
        self._counts.checked += 1
        self._tags.want(ORDER_TAG, json.dumps(order), record)
        found = self._stored.run.info.status
        if found != brought.status:
            yield Finding("altered", "status", record.wid, record.seq, brought.status, found, mendable=True)
        for name in OUTCOME_TAGS:
            if name in brought.tags:
                self._tags.want(name, brought.tags[name], record)
            elif name in self._outcomes and (stale := self._stored.tags.get(name)):
                what = f"tag {name}"
                yield Finding("altered", what, record.wid, record.seq, "", brief(stale), mendable=True)


def _first_owed(claims: list[Claim]) -> Claim:
    return next((claim for claim in claims if claim.owed), claims[0])


def _sent(name: str, value: str, record: Envelope, files: WantedFiles) -> str:
    """Return a tag's value as it is sent; of one that is too long, the whole is a file."""
    whole: list[TextFile] = []
    sent = shortened(value, f"values/tags/{file_part(name)}", MAX_TAG, whole)
    for text in whole:
        files.want(wanted_text(text), record)
    return sent
