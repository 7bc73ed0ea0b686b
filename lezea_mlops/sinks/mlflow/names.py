"""Names for MLflow: whatever a user calls a metric, MLflow takes it, and the name comes back.

MLflow allows ``/``, letters, digits, ``_``, ``.``, ``-``, space and ``:`` in at most 250 characters, and refuses
what a path would normalise away (``a//b``, ``/a``, ``a/``, ``..``). Anything else becomes ``_xHEX_``, the escape
of ISO 9075-14 and of .NET's XmlConvert: ``tasker#0`` is shown as ``tasker_x23_0``. A literal ``_x`` that could be
taken for an escape has its underscore escaped. Names longer than 250 become head and digest, and a tag holds the
whole name.
"""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 250
_EMPTY = "_x_"
_REFUSED = re.compile(r"[^/\w.\- :]|_(?=x[0-9A-F]*_)")
_ESCAPE = re.compile(r"_x([0-9A-F]*)_")
_DIGEST_CHARACTERS = 16


def escape(name: str) -> str:
    """Return *name* in characters that MLflow takes; different names stay different. Length is not looked at."""
    if not name:
        return _EMPTY
    escaped = _REFUSED.sub(lambda found: _hex(found[0]), name)
    return "/".join(_path_part(part, index) for index, part in enumerate(_guarded_slashes(escaped)))


def _hex(character: str) -> str:
    return f"_x{ord(character):X}_"


def _guarded_slashes(name: str) -> list[str]:
    """Split at slashes that stand between two parts; a leading, trailing or doubled slash is escaped."""
    parts: list[str] = [""]
    for piece in re.split(r"(/)", name):
        if piece != "/":
            parts[-1] += piece
        elif parts[-1] == "":
            parts[-1] = _hex("/")
        else:
            parts.append("")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()
        parts[-1] += _hex("/")
    return parts


def _path_part(part: str, index: int) -> str:
    if part in (".", "..") or (index == 0 and part.startswith("..")):
        return _hex(".") + part[1:]
    return part


def unescape(name: str) -> str:
    """Return the name that ``escape`` was given."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", name)


def fit(escaped: str, limit: int = MAX_NAME) -> str:
    """Return *escaped* if it is short enough, else its head and a digest of all of it."""
    if len(escaped) <= limit:
        return escaped
    digest = hashlib.sha256(escaped.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    head = escaped[: limit - _DIGEST_CHARACTERS - 1].rstrip("/. ")
    return f"{head}-{digest}"


def metric_key(scope: list[list[str]], folder: str, name: str, wid: str) -> str:
    """Return the escaped name of a metric: ``<scope>/<folder>/<name>``, behind the writer if that is not ``main``.

    Args:
        scope: [level, id] pairs, outermost first.
        folder: escaped already; empty for none.
        name: as the user gave it.
        wid: the writer.
    """
    parts = [f"{one_part(level)}:{one_part(identity)}" for level, identity in scope]
    if wid != "main":
        parts.insert(0, one_part(wid))
    if folder:
        parts.append(folder)
    return "/".join([*parts, escape(name)])


def one_part(text: str) -> str:
    """Return *text* escaped so that it is one part of a name: its slashes cannot be taken for nesting."""
    return escape(text).replace("/", _hex("/"))


def file_part(text: str) -> str:
    """Return *text* as the name of a file or folder, short enough for any file system."""
    part = one_part(text).replace(":", _hex(":"))
    return part if len(part.encode()) <= 200 else fit(part, 40)
