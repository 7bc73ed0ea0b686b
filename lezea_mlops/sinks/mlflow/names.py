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
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER

# Who speaks for the run as a whole; metrics, files and status of other writers stand apart.
SPEAKERS = (MAIN_WRITER, COURIER_WRITER)
MAX_NAME = 250
MAX_FILE_NAME_BYTES = 200
MAX_PATH_BYTES = 1_000
_REFUSED = re.compile(r"[^/\w.\- :]")
_DIGEST_CHARACTERS = 16

# While a name is worked on, a NUL stands on each side of an escape's digits; a NUL of the name's own is escaped
# first. Only when all escapes are known can be told which underscores look like the beginning of one.
_MARK = re.compile("\0([0-9A-F]*)\0")
_LOOKS_ESCAPED = re.compile("_(?=x[0-9A-F]*[_\0])")
_ESCAPE = re.compile(r"_x([0-9A-F]*)_")
_NOTHING = "\0\0"


def escape(name: str) -> str:
    """Return *name* in characters that MLflow takes; different names stay different. Length is not looked at."""
    return _settled(_marked(name))


def unescape(name: str) -> str:
    """Return the name that ``escape`` was given."""
    return _ESCAPE.sub(_unescaped, name)


def one_part(text: str) -> str:
    """Return *text* escaped so that it is one part of a name: its slashes cannot be taken for nesting."""
    return _settled(_marked_part(text))


def dotted(parts: Sequence[str], *, dots_escaped: bool = False) -> str:
    """Return escaped *parts* joined by dots; with *dots_escaped* no dot of theirs can be taken for a joint."""
    marked = map(_marked, parts)
    return ".".join(_settled(part.replace(".", _mark(".")) if dots_escaped else part) for part in marked)


def user_tag(name: str) -> str:
    """Return the name of a user's tag; those that begin with ``lezea.`` are ours, so the dot of theirs is escaped."""
    marked = _marked(name)
    if marked.startswith("lezea."):
        marked = marked.replace(".", _mark("."), 1)
    return _settled(marked)


def fit(escaped: str, limit: int = MAX_NAME) -> str:
    """Return *escaped* if it is short enough, else its head and a digest of all of it."""
    if len(escaped) <= limit:
        return escaped
    digest = hashlib.sha256(escaped.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    head = escaped[: limit - _DIGEST_CHARACTERS - 1].rstrip("/. ")
    return f"{head}-{digest}"


def metric_key(scope: Iterable[tuple[str, str]], folder: Iterable[str], name: str, wid: str) -> str:
    """Return the escaped name of a metric: ``<scope>/<folder>/<name>``, behind a writer that is none of ``SPEAKERS``.

    A part before the last that holds a colon is a scope, and nothing else: ``a:b/c`` as a user's own name is shown
    as ``a_x3A_b/c``.

    Args:
        scope: (level, id) pairs, outermost first.
        folder: the parts between scope and name.
        name: as the user gave it.
        wid: the writer.
    """
    return _metric_key(tuple(scope), tuple(folder), name, wid)


# The names of a run come again and again.
@lru_cache(maxsize=4_096)
def _metric_key(scope: tuple[tuple[str, str], ...], folder: tuple[str, ...], name: str, wid: str) -> str:
    inner = "/".join([*map(_marked_part, folder), _marked(name)])
    first, slash, rest = inner.partition("/")
    parts = [_without_colons(first) + slash + rest if slash else inner]
    parts[:0] = [
        f"{_without_colons(_marked_part(level))}:{_marked_part(identity)}" for level, identity in scope
    ]
    if wid not in SPEAKERS:
        parts.insert(0, _without_colons(_marked_part(wid)))
    return _settled("/".join(parts))


def file_part(text: str) -> str:
    """Return *text* as the name of a file or folder, short enough for any file system."""
    part = _settled(_without_colons(_marked_part(text)))
    return part if len(part.encode()) <= MAX_FILE_NAME_BYTES else fit(part, 40)


def file_path(name: str, reserved: Iterable[str] = ()) -> str:
    """Return a name given by a user as a path that stays inside the artifacts, whatever it says.

    Args:
        name: slashes and backslashes divide it.
        reserved: names that a file at the top may not have; its first letter is escaped then.
    """
    parts = [file_part(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(parts) == 1 and parts[0] in reserved:
        return _settled(_mark(parts[0][0]) + parts[0][1:])
    path = "/".join(parts) or "unnamed"
    return path if len(path.encode()) <= MAX_PATH_BYTES else fit(one_part(path), 40)


def _marked(name: str) -> str:
    if not name:
        return _NOTHING
    marked = _REFUSED.sub(lambda found: _mark(found[0]), name)
    return "/".join(_path_part(part, index) for index, part in enumerate(_guarded_slashes(marked)))


def _marked_part(text: str) -> str:
    return _marked(text).replace("/", _mark("/"))


def _without_colons(marked: str) -> str:
    return marked.replace(":", _mark(":"))


def _mark(character: str) -> str:
    return f"\0{ord(character):X}\0"


def _settled(marked: str) -> str:
    return _MARK.sub(r"_x\1_", _LOOKS_ESCAPED.sub(_mark("_"), marked))


def _unescaped(found: re.Match[str]) -> str:
    code = int(found[1] or "0", 16)
    if not found[1]:
        return ""
    return chr(code) if code <= 0x10FFFF else found[0]


def _guarded_slashes(name: str) -> list[str]:
    """Split at slashes that stand between two parts; a leading, trailing or doubled slash is escaped."""
    parts: list[str] = [""]
    for piece in re.split(r"(/)", name):
        if piece != "/":
            parts[-1] += piece
        elif parts[-1] == "":
            parts[-1] = _mark("/")
        else:
            parts.append("")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()
        parts[-1] += _mark("/")
    return parts


def _path_part(part: str, index: int) -> str:
    if part in (".", "..") or (index == 0 and part.startswith("..")):
        return _mark(".") + part[1:]
    return part
