"""The state of the git repository around a folder, read without running anything that the repository configures.

A repository may name programs in its own configuration: a file-system monitor, clean filters, hooks, transports that
fetch missing objects. Asking such a repository for its state runs them, and whoever trains inside a downloaded
repository has not agreed to that. So each of them is switched off here, submodules are not entered, and what cannot
be told without them is reported as unknown.

The git program is run directly. GitPython would run the same commands, but without these switches, without a time
limit that holds for the children of git too, and after an import that costs more than all the commands together.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

# An empty file-system monitor is "none" for every version of git; "false" was once taken for a program's name.
_SWITCHED_OFF = ("--no-pager", "-c", "core.fsmonitor=", "-c", f"core.hooksPath={os.devnull}")

# Variables that would make git look at another repository, or another configuration, than the folder's own.
_REDIRECTIONS = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)

_PATIENCE_AFTER_KILL_S = 1.0


def capture_git(path: Path | str | None = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Describe the git repository that *path* lies in.

    Args:
        path: a folder, or a file in it; None for the current folder.
        timeout_s: limit for each of the (at most eight) commands of git.

    Returns:
        ``{"available": False, "reason": …}`` where there is no git, no repository, or one that git refuses to open.
        Otherwise ``available``, ``root``, ``commit`` (None before the first one), ``branch`` (None when detached),
        ``dirty`` (tracked files differ from the commit), ``untracked_count`` (a folder of untracked files counts
        once), ``remote`` (URL of origin without user name and password), ``shallow`` and ``bare``. A fact that could
        not be learned is None, and ``unknown`` then tells why, by the name of the fact.

    Guarantees:
        * Raises nothing for the state of the machine or the repository.
        * Runs no program that the repository configures, fetches nothing, writes nothing into the repository.
    """
    program = _find_git()
    if program is None:
        return _unavailable("there is no git program on the PATH")
    try:
        folder = os.path.abspath(os.curdir if path is None else path)
    except OSError as error:
        return _unavailable(f"the current folder cannot be told: {error}")
    if os.path.isfile(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return _unavailable(f"there is no folder {folder}")
    return _describe(_Git(program, folder, timeout_s))


def _unavailable(reason: str) -> dict[str, Any]:
    return {"available": False, "reason": reason}


def _find_git() -> str | None:
    """Return the absolute path of git; a git found relative to the current folder may be the repository's own."""
    folders = [folder for folder in os.get_exec_path() if os.path.isabs(folder)]
    found = shutil.which("git", path=os.pathsep.join(folders))
    return found if found and os.path.isabs(found) else None


class _Answer(NamedTuple):
    """What git said. ``output`` None with an empty ``complaint`` means: there is no such thing."""

    output: bytes | None
    complaint: str = ""


@dataclass(frozen=True)
class _Git:
    """The git program, for one folder, with the repository's programs switched off."""

    program: str
    folder: str
    timeout_s: float
    options: tuple[str, ...] = _SWITCHED_OFF

    def ask(self, *arguments: str, given: bytes = b"") -> _Answer:
        """Run one command and return its output without the last line end."""
        what = f"git {arguments[0]}"
        try:
            process = subprocess.Popen(
                [self.program, *self.options, *arguments],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return _Answer(None, f"{what} could not be run: {error}")
        try:
            output, complaint = process.communicate(given, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            return _Answer(None, f"{what} took longer than {self.timeout_s:g} s")
        finally:
            if process.returncode is None:
                _end(process)
        if process.returncode == 0:
            return _Answer(output.removesuffix(b"\n"))
        # A question such as `symbolic-ref --quiet` says "no" by its exit status 1 alone.
        if process.returncode == 1 and not complaint:
            return _Answer(None)
        return _Answer(None, _first_complaint(complaint) or f"{what} ended with status {process.returncode}")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    return (
        kept
        | {
            "GIT_OPTIONAL_LOCKS": "0",  # do not refresh the index file behind the user's back
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",  # a partial clone fetches missing objects with programs of its configuration …
            "GIT_ALLOW_PROTOCOL": "",  # … and versions of git that do not know the line above may use no transport
            "LC_ALL": "C",
        }
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill git and whatever it started, for a grandchild that holds the pipe would keep us waiting."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.killpg(process.pid, signal.SIGKILL)
    # A process that hangs in a dead network file system does not even die; it is left behind.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_PATIENCE_AFTER_KILL_S)


def _first_complaint(text: bytes) -> str:
    lines = [line.strip() for line in _text(text).splitlines() if line.strip()]
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return next(iter(fatal or lines), "")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _describe(git: _Git) -> dict[str, Any]:
    place = git.ask(
        "rev-parse",
        "--is-bare-repository",
        "--is-inside-work-tree",
        "--is-shallow-repository",
        "--absolute-git-dir",  # last, for a path may hold line ends
    )
    lines = (place.output or b"").split(b"\n", 3)
    if len(lines) != 4:
        return _unavailable(place.complaint or "git did not say where the repository is")
    bare, inside_work_tree, shallow, git_folder = lines
    settings = git.ask("config", "--null", "--get-regexp", r"^(filter\..*|remote\.origin\.url)$")
    asked = {
        "commit": git.ask("rev-parse", "--verify", "--quiet", "HEAD"),
        "branch": git.ask("symbolic-ref", "--quiet", "--short", "HEAD"),
        "remote": _first_remote(settings),
    }
    facts: dict[str, Any] = {
        name: None if said.output is None else _text(said.output) for name, said in asked.items()
    }
    unknown = {name: said.complaint for name, said in asked.items() if said.complaint}
    facts |= {"root": os.fsdecode(git_folder), "dirty": None, "untracked_count": None}
    facts |= {"shallow": shallow == b"true", "bare": bare == b"true"}
    if inside_work_tree == b"true":
        _describe_work_tree(git, settings, facts, unknown)
    if facts["remote"] is not None:
        facts["remote"] = without_credentials(facts["remote"])
    return {"available": True} | facts | ({"unknown": unknown} if unknown else {})


def _describe_work_tree(git: _Git, settings: _Answer, facts: dict[str, Any], unknown: dict[str, str]) -> None:
    """Put what only a repository with checked-out files has into *facts*, or the reason into *unknown*."""
    top = git.ask("rev-parse", "--show-toplevel")
    if top.output is None:
        unknown |= dict.fromkeys(("root", "dirty", "untracked_count"), top.complaint)
        return
    facts["root"] = os.fsdecode(top.output)
    tree = replace(git, folder=facts["root"])
    if settings.complaint:
        unknown["dirty"] = f"the filters of the repository are not known: {settings.complaint}"
    else:
        facts["dirty"], why_not = _read_dirty(tree, _filter_names(settings.output))
        unknown |= {"dirty": why_not} if why_not else {}
    others = tree.ask(
        "ls-files", "-z", "--others", "--exclude-standard", "--directory", "--no-empty-directory"
    )
    if others.output is None:
        unknown["untracked_count"] = others.complaint
    else:
        facts["untracked_count"] = others.output.count(b"\0")


def _entries(settings: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, value) from the output of ``git config --null``."""
    for entry in (settings or b"").split(b"\0"):
        name, _, value = entry.partition(b"\n")
        yield name, value


def _first_remote(settings: _Answer) -> _Answer:
    """Return the URL of origin among *settings*; of several, git fetches from the first."""
    urls = [value for name, value in _entries(settings.output) if name == b"remote.origin.url"]
    return _Answer(urls[0]) if urls else settings._replace(output=None)


def _filter_names(settings: bytes | None) -> set[bytes]:
    """Return the ``lfs`` of ``filter.lfs.clean``, for every filter of the configuration.

    A filter may have the empty name: ``filter..clean``. ``filter.clean`` is no filter, for it has no name at all.
    """
    names = [name.removeprefix(b"filter.") for name, _ in _entries(settings) if name.startswith(b"filter.")]
    return {name.rpartition(b".")[0] for name in names if b"." in name}


def _read_dirty(tree: _Git, filters: set[bytes]) -> tuple[bool | None, str]:
    """Tell whether tracked files differ from the commit, or why that cannot be told without running *filters*."""
    if unnameable := sorted(name for name in filters if b"=" in name):
        # `-c filter.a=b.clean=` would set `filter.a`, and leave the filter on.
        return None, f"the filter {_text(unnameable[0])!r} cannot be switched off by its name"
    quiet = replace(tree, options=tree.options + tuple(_without_filters(filters)))
    status = quiet.ask(
        "status", "--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames"
    )
    if status.output is None:
        return None, status.complaint or "git status said nothing"
    changes = [entry for entry in status.output.split(b"\0") if entry]
    maybe = [entry[3:] for entry in changes if entry.startswith(b" M")]
    if not filters or len(maybe) < len(changes):
        return bool(changes), ""
    return _judge_without_filters(quiet, maybe, filters)


def _without_filters(names: Iterable[bytes]) -> Iterator[str]:
    for name in sorted(names):
        driver = f"filter.{os.fsdecode(name)}"
        for setting in (f"{driver}.clean=", f"{driver}.process=", f"{driver}.required=false"):
            yield from ("-c", setting)


def _judge_without_filters(tree: _Git, modified: list[bytes], filters: set[bytes]) -> tuple[bool | None, str]:
    """Decide about files that look modified while the filters were off.

    What a filter stores differs from what it checks out (a pointer and a data file, in Git LFS), so only a modified
    file that has no filter proves a change.
    """
    if not modified:
        return False, ""
    attributes = tree.ask("check-attr", "-z", "--stdin", "filter", given=b"\0".join(modified) + b"\0")
    if attributes.output is None:
        return None, attributes.complaint or "git check-attr said nothing"
    filter_of_each = attributes.output.split(b"\0")[2::3]  # path, "filter", value; and again
    if any(name not in filters for name in filter_of_each):
        return True, ""
    return (
        None,
        f"{len(modified)} modified file(s) go through a filter, and filters of a repository are not run",
    )


def without_credentials(url: str) -> str:
    """Return the URL of a remote without user name, password and query; a local path stays as it is."""
    if "://" in url:
        # Anywhere, not only at the start: helpers nest URLs, as in `persistent-https::https://user:key@host/`.
        return re.sub(r"(://)[^/]*@", r"\1", url).partition("?")[0]
    host, colon, path = url.partition(":")
    # `user@host:path` is a host only where no slash comes before the colon.
    return f"{host.rpartition('@')[2]}:{path}" if colon and "/" not in host else url
