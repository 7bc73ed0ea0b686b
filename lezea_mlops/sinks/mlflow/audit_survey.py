"""What an audit asks of MLflow, and its first look at the journal: how much of what there is, and who said it."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import Rejected, Run, Unavailable
from lezea_mlops.sinks.mlflow.connection import connect, translated_errors
from lezea_mlops.sinks.mlflow.marks import Standing, StatusOrder, status_order
from lezea_mlops.sinks.mlflow.names import file_part, fit
from lezea_mlops.sinks.mlflow.params import MAX_PARAM, shortened
from lezea_mlops.sinks.mlflow.pieces import Point, Translation
from lezea_mlops.sinks.mlflow.runs import active_runs, read_run

# MLflow's own size of a page.
POINTS_PER_PAGE = 25_000
MAX_SHOWN = 200

# Step, time in milliseconds, value; None stands for NaN, which does not equal itself.
Stamp = tuple[int, int, float | None]


@contextlib.contextmanager
def asking(uri: str) -> Iterator[None]:
    """Turn whatever MLflow answers instead of what was asked for into ``Unavailable``."""
    try:
        with translated_errors(uri):
            yield
    except Rejected as error:
        raise Unavailable(f"an audit's question was refused: {error}", "error") from error


class Stored:
    """What MLflow holds of one run.

    Attributes:
        run: MLflow's run as it was at the start; None if there is none.
        other_runs: ids of further runs that claim to be this one.
        names: the metric names of individuals that are shown.
    """

    def __init__(self, uri: str, run: Run, state: Mapping[str, Any]) -> None:
        self._uri = uri
        self._client = connect(uri)
        self.folder: Path = run.folder
        self.names = frozenset(state.get("names", ()))
        run_id = state.get("run_id")
        with asking(uri):
            active = active_runs(self._client, run.run_id)
            run_id = run_id or next((found.info.run_id for found in active), None)
            self.run: Any = read_run(self._client, run_id, run.run_id) if run_id else None
        self.run_id = str(run_id)
        self.other_runs = [found.info.run_id for found in active if found.info.run_id != run_id]
        self.params: Mapping[str, str] = self.run.data.params if self.run else {}
        self.tags: Mapping[str, str] = self.run.data.tags if self.run else {}

    def points(self, key: str) -> Iterator[Stamp]:
        """Yield every point of a metric, page by page: all of them at once may not fit into memory."""
        store, token = self._client._tracking_client.store, None
        while True:
            with asking(self._uri):
                page = store.get_metric_history(
                    run_id=self.run_id, metric_key=key, max_results=POINTS_PER_PAGE, page_token=token
                )
            for point in page:
                yield stamp(point.step, point.timestamp, point.value)
            token = page.token
            if not token:
                return

    def files(self, folder: str) -> dict[str, int | None]:
        """Return size by name of the files in a folder of the artifacts; None where the store does not tell."""
        with asking(self._uri):
            found = self._client.list_artifacts(self.run_id, folder or None)
        return {item.path.rpartition("/")[2]: item.file_size for item in found if not item.is_dir}

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file's content."""
        with tempfile.TemporaryDirectory(prefix="lezea-audit-") as place, asking(self._uri):
            content = Path(self._client.download_artifacts(self.run_id, path, place))
            return hashlib.sha256(content.read_bytes()).hexdigest()

    def datasets(self) -> set[tuple[str, str]]:
        """Return name and digest of the datasets."""
        inputs = self.run.inputs.dataset_inputs if self.run.inputs else []
        return {(each.dataset.name, each.dataset.digest) for each in inputs}

    def shows(self, point: Point, key: str) -> bool:
        """Tell whether a metric's name is one of those that are shown."""
        return not point.individual or key in self.names


def stamp(step: int, time_ms: int, value: float) -> Stamp:
    """Return a point as MLflow tells it apart from others of its name; it stores infinity as NaN for us."""
    return step, time_ms, value if value - value == 0 else None


def brief(text: str) -> str:
    """Return the beginning of a text, enough to recognise it."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text)} characters)"


@dataclass(frozen=True)
class Share:
    """Some of the metrics, or of one metric those steps that leave a certain rest."""

    keys: frozenset[str]
    part: int = 0
    parts: int = 1


def share_out(counts: Mapping[str, int], most: int) -> list[Share]:
    """Divide metrics, of which the number of points is known, into shares of *most* points."""
    shares = []
    keys: list[str] = []
    room = most
    for key, count in sorted(counts.items()):
        if count > most:
            parts = -(-count // most)
            shares += [Share(frozenset([key]), part, parts) for part in range(parts)]
            continue
        if count > room:
            shares.append(Share(frozenset(keys)))
            keys, room = [], most
        keys.append(key)
        room -= count
    return [*shares, Share(frozenset(keys))] if keys else shares


@dataclass(frozen=True)
class Claim:
    """A value that a writer gave to a param first."""

    value: str
    wid: str
    seq: int
    owed: bool


class Survey:
    """The first reading of the journal.

    Attributes:
        files: how many files the records bring.
        withheld: points of individuals whose names are not shown.
        claims: by param, the values with which it may stand in MLflow.
        newest: by writer, the order of its newest start or end.
        standing: the newest records of those that are owed.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._points: Counter[str] = Counter()
        self._claimed: set[tuple[str, str]] = set()
        self.files = 0
        self.withheld = 0
        self.claims: dict[str, list[Claim]] = {}
        self.newest: dict[str, StatusOrder] = {}
        self.standing = Standing()

    def take(self, record: Envelope, owed: bool, brought: Translation) -> None:
        """Count what one record brings."""
        for point in brought.points:
            key = fit(point.key)
            if self._stored.shows(point, key):
                self._points[key] += 1
            else:
                self.withheld += owed
        self.files += len(brought.texts) + len(brought.blobs)
        for name, value in brought.params.items():
            self._claim(fit(name), shortened_param(name, value), record, owed)
        if owed:
            self.standing.take(record, brought)
        if brought.status is not None:
            order = status_order(record, brought.status)
            self.newest[record.wid] = max(order, self.newest.get(record.wid, order))

    def metric_shares(self, most: int) -> list[Share]:
        """Divide the metrics so that no share has more than *most* points, as far as steps are spread evenly."""
        return share_out(self._points, most)

    def _claim(self, key: str, value: str, record: Envelope, owed: bool) -> None:
        # The param keeps the first value that arrived, whichever writer's it was.
        if (record.wid, key) not in self._claimed:
            self.claims.setdefault(key, []).append(Claim(value, record.wid, record.seq, owed))
            if owed:
                self._claimed.add((record.wid, key))


def shortened_param(name: str, value: str) -> str:
    """Return a param's value as MLflow shows it."""
    return shortened(value, f"values/params/{file_part(fit(name))}", MAX_PARAM, [])
