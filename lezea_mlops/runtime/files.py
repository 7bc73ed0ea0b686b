"""Files, texts and figures captured at the call, as the fields of an event."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lezea_mlops.journal import BlobStore, Captured

BYTES_PER_MB = 1024 * 1024


class CannotCapture(Exception):
    """A file cannot be captured; the text says why."""


class FileCapture:
    """Captures files by content (``copy``) or, where that is too much, by ``reference``."""

    def __init__(self, blobs: BlobStore, mode: str, max_copy_mb: float) -> None:
        self._blobs = blobs
        self._copies = mode == "copy"
        self._max_copy_bytes = int(max_copy_mb * BYTES_PER_MB)
        self._stores = True

    def without_storing(self) -> FileCapture:
        """Return a capture that looks at files and stores nothing."""
        self._stores = False
        return self

    def store_blob(self, content: bytes) -> dict[str, Any]:
        """Store *content* and return its pointer.

        Raises:
            OSError: the file system refuses.
        """
        if not self._stores:
            return {"$blob": None, "size": len(content)}
        captured = self._blobs.put_bytes(content)
        return {"$blob": captured.sha256, "size": captured.size}

    def file(self, path: Path) -> dict[str, Any]:
        """Capture a file, given by its absolute path, as it is now.

        Returns:
            Fields ``path``, ``size`` in bytes, and either ``blob`` and ``sha256`` or ``reference``.

        Raises:
            CannotCapture: it is missing, no plain file, or cannot be read.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            raise CannotCapture("does not exist") from None
        except (OSError, ValueError) as error:
            raise CannotCapture(f"cannot be captured: {_said(error)}") from error
        if stat.S_ISDIR(status.st_mode):
            raise CannotCapture("is a folder; log its files one by one, or pack it into one file")
        if not stat.S_ISREG(status.st_mode):
            raise CannotCapture("is no plain file")
        try:
            captured = self._captured(path)
        except OSError as error:
            raise CannotCapture(f"cannot be captured: {_said(error)}") from error
        fields: dict[str, Any] = {"path": str(path), "size": status.st_size}
        if captured is not None:
            return fields | {"size": captured.size, "blob": captured.sha256, "sha256": captured.sha256}
        return fields | {"reference": {"mtime_ns": status.st_mtime_ns, "inode": status.st_ino}}

    def _captured(self, path: Path) -> Captured | None:
        if self._copies and self._stores:
            return self._blobs.put_file(path, self._max_copy_bytes)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, "permission denied", str(path))
        return None

    def content(self, content: bytes) -> dict[str, Any]:
        """Capture bytes, as ``file`` does.

        Raises:
            CannotCapture: the file system refuses.
        """
        try:
            pointer = self.store_blob(content)
        except OSError as error:
            raise CannotCapture(f"cannot be stored: {_said(error)}") from error
        return {"size": pointer["size"], "blob": pointer["$blob"], "sha256": pointer["$blob"]}


def absolute_path(path: Any) -> Path:
    """Return what a user gave as a path, with ``~`` resolved where there is such a home.

    Raises:
        TypeError: it is no path.
    """
    given = Path(os.fsdecode(path))
    try:
        return given.expanduser().absolute()
    except RuntimeError:
        # There is no such user; a file may have that name nevertheless.
        return given.absolute()


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def render_figure(figure: Any, name: str) -> bytes:
    """Draw a matplotlib or plotly figure in the format of the file name *name* (``.png`` if it has none).

    Raises:
        TypeError: it is no figure that can be drawn.
    """
    form = name.rpartition(".")[2].lower() if "." in name else "png"
    save: Callable[..., Any] | None = getattr(figure, "savefig", None)
    if callable(save):
        drawn = io.BytesIO()
        save(drawn, format=form)
        return drawn.getvalue()
    if form in ("html", "htm") and callable(getattr(figure, "to_html", None)):
        return str(figure.to_html()).encode()
    if callable(getattr(figure, "to_image", None)):
        return bytes(figure.to_image(format=form))
    raise TypeError(
        f"a {type(figure).__name__} is no figure: it has neither savefig (matplotlib) nor to_html and to_image (plotly)"
    )
