"""The requests that bring metrics, params, tags, files and datasets to one run, in sizes that MLflow takes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lezea_mlops.journal import BlobStore, RunFolder, place_under_name
from lezea_mlops.sinks.base import Rejected
from lezea_mlops.sinks.mlflow.names import file_part
from lezea_mlops.sinks.mlflow.params import MAX_TAG, shortened
from lezea_mlops.sinks.mlflow.pieces import BlobFile, Dataset, TextFile

METRICS_PER_REQUEST = 1_000
ENTRIES_PER_REQUEST = 100
# MLflow takes 1,000,000.
BYTES_PER_REQUEST = 900_000
# Beside the texts of an entry: names of fields, and a metric's value, time and step.
BYTES_AROUND = 150
MAX_KNOWN_NAMES = 10_000
_READ_BYTES = 1024 * 1024


class Sender:
    """Sends to one run.

    Args:
        client: an ``MlflowClient``.
        run_id: MLflow's id of the run.
        folder: the run folder, with the captured files.
    """

    def __init__(self, client: Any, run_id: str, folder: RunFolder) -> None:
        self._client = client
        self._run_id = run_id
        self._folder = folder
        # What stands in MLflow's folders: path (of a folder with its slash) → names, and whether they are folders.
        self._entries: dict[str, dict[str, bool]] = {}
        self._known_names = 0

    def metrics(self, metrics: Sequence[Any]) -> None:
        """Send metrics."""
        sized = [(metric, _size_of_name(metric.key)) for metric in metrics]
        for part in _parts(sized, METRICS_PER_REQUEST):
            self._client.log_batch(self._run_id, metrics=part)

    def params(self, params: Mapping[str, str]) -> None:
        """Send params that the run does not have yet."""
        from mlflow.entities import Param

        sized = [(Param(name, value), _size(name, value)) for name, value in params.items()]
        for part in _parts(sized, ENTRIES_PER_REQUEST):
            self._client.log_batch(self._run_id, params=part)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Send tags; of what is too long for one, the whole goes to a file."""
        from mlflow.entities import RunTag

        whole: list[TextFile] = []
        short = {
            name: shortened(value, f"values/tags/{file_part(name)}", MAX_TAG, whole)
            for name, value in tags.items()
        }
        self.texts({text.path: text.content for text in whole})
        sized = [(RunTag(name, value), _size(name, value)) for name, value in short.items()]
        for part in _parts(sized, ENTRIES_PER_REQUEST):
            self._client.log_batch(self._run_id, tags=part)

    def texts(self, texts: Mapping[str, str]) -> None:
        """Send small files, by path."""
        for path, content in texts.items():
            self._client.log_text(self._run_id, content, path)

    def files(self, files: Sequence[BlobFile]) -> None:
        """Send captured files.

        Raises:
            Rejected: the content is not there any more or changed since the call, or a file and a folder would have
                the same name.
        """
        for file in files:
            if self._was_collected(file):
                continue
            content = self._content_of(file)
            self._check_place(file.path)
            folder, _, name = file.path.rpartition("/")
            with tempfile.TemporaryDirectory(prefix=".upload-", dir=self._folder.path) as place:
                named = place_under_name(content, Path(place), name)
                self._client.log_artifact(self._run_id, str(named), folder or None)

    def datasets(self, datasets: Sequence[Dataset]) -> None:
        """Send datasets as inputs of the run; the same again is one."""
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput, InputTag

        for dataset in datasets:
            entity = MlflowDataset(
                name=dataset.name, digest=dataset.digest, source_type="local",
                source=json.dumps({"uri": dataset.source}), profile=dataset.metadata,
            )  # fmt: skip
            tag = InputTag("mlflow.data.context", dataset.context)
            self._client.log_inputs(self._run_id, datasets=[DatasetInput(entity, [tag])])

    def status(self, status: str, end_time_ms: int | None) -> None:
        """Set the status, and the end if it is one."""
        if end_time_ms is None:
            self._client.update_run(self._run_id, status=status)
            return
        from mlflow.entities import RunStatus

        # ``set_terminated`` prints, and ends what the user's own asynchronous calls do with the same server.
        store = self._client._tracking_client.store
        store.update_run_info(self._run_id, RunStatus.from_string(status), end_time_ms, None)

    def _was_collected(self, file: BlobFile) -> bool:
        """Tell whether the captured content is gone, as ``lezea gc`` leaves it, because MLflow has the file."""
        if file.sha256 is None or BlobStore(self._folder.blobs).path(file.sha256).exists():
            return False
        folder, slash, name = file.path.rpartition("/")
        found = self._client.list_artifacts(self._run_id, folder or None)
        return any(item.path == f"{folder}{slash}{name}" and not item.is_dir for item in found)

    def _content_of(self, file: BlobFile) -> Path:
        if file.sha256 is not None:
            path = BlobStore(self._folder.blobs).path(file.sha256)
            if not path.exists():
                raise Rejected(f"the captured content of {file.path} ({path}) is gone")
            return path
        path = Path(str(file.source))
        try:
            status = path.stat()
            if path.is_dir():
                raise Rejected(f"{path}, which was logged by reference, is a folder")
            changed = (
                file.size not in (None, status.st_size)
                or file.mtime_ns not in (None, status.st_mtime_ns)
                or file.checksum not in (None, _hash(path) if file.checksum else None)
            )
        except OSError as error:
            raise Rejected(f"{path}, which was logged by reference, cannot be read: {error}") from error
        if changed:
            raise Rejected(
                f"{path}, which was logged by reference, changed between the call and the delivery"
            )
        return path

    def _check_place(self, path: str) -> None:
        """Refuse a file where a folder stands, or below a file: no store could hold both.

        Raises:
            Rejected: it is so.
        """
        folder = ""
        *folders, name = path.split("/")
        for part in folders:
            if not self._found_or_noted(folder, part, is_folder=True):
                raise Rejected(f"{path} cannot stand below {folder}{part}, which is a file in MLflow")
            folder += f"{part}/"
        if not self._found_or_noted(folder, name, is_folder=False):
            raise Rejected(f"{path} is a folder in MLflow, and no file can have its name")

    def _found_or_noted(self, folder: str, name: str, *, is_folder: bool) -> bool:
        """Note that *name* will stand in *folder*; False if something of the other kind stands there."""
        entries = self._entries_of(folder)
        if name in entries:
            return entries[name] == is_folder
        if self._known_names < MAX_KNOWN_NAMES:
            self._known_names += 1
            entries[name] = is_folder
            if is_folder:
                self._entries[f"{folder}{name}/"] = {}
        return True

    def _entries_of(self, folder: str) -> dict[str, bool]:
        entries = self._entries.get(folder)
        if entries is None:
            found = self._client.list_artifacts(self._run_id, folder.rstrip("/") or None)
            entries = {item.path.rpartition("/")[2]: bool(item.is_dir) for item in found}
            if self._known_names < MAX_KNOWN_NAMES:
                self._known_names += len(entries)
                self._entries[folder] = entries
        return entries


def _size(*texts: str) -> int:
    return sum(len(json.dumps(text)) for text in texts) + BYTES_AROUND


# The names of a run's metrics come again and again.
_size_of_name = lru_cache(maxsize=4_096)(_size)


def _parts(sized: Sequence[tuple[Any, int]], most: int) -> Iterator[list[Any]]:
    """Yield the items in lists of at most *most*, none with more bytes than a request may have."""
    part: list[Any] = []
    room = BYTES_PER_REQUEST
    for item, size in sized:
        if part and (len(part) == most or size > room):
            yield part
            part, room = [], BYTES_PER_REQUEST
        part.append(item)
        room -= size
    if part:
        yield part


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
