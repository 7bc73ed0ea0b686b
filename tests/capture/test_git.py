"""The state of a git repository, without running what the repository configures."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops.capture import capture_git
from lezea_mlops.capture.git import without_credentials

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_configuration_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Researcher")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "researcher@example.org")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the repository under test."""
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def git(folder: Path) -> Git:
    """Runs git in the folder, with everything that the repository configures."""

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    return run


@pytest.fixture
def commit(git: Git, folder: Path) -> str:
    """A repository with one commit on the branch ``main``; its id."""
    git("init", "--quiet", "--initial-branch=main")
    (folder / "train.py").write_text("print('training')\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return git("rev-parse", "HEAD")


# --- What is found -----------------------------------------------------------------------------------------------


def test_a_clean_repository_is_described(folder: Path, commit: str) -> None:
    """Commit, branch and root are told, and nothing is called changed."""
    assert capture_git(folder) == {
        "available": True,
        "root": str(folder),
        "commit": commit,
        "branch": "main",
        "dirty": False,
        "untracked_count": 0,
        "remote": None,
        "shallow": False,
        "bare": False,
    }


@pytest.mark.usefixtures("commit")
def test_the_current_folder_is_looked_at_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, the repository around the current folder is described, from deep inside it too."""
    deep = folder / "models" / "tasker"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert capture_git()["root"] == str(folder)


@pytest.mark.usefixtures("commit")
def test_a_file_stands_for_its_folder(folder: Path) -> None:
    """The path of a script names the repository that the script lies in."""
    assert capture_git(folder / "train.py")["root"] == str(folder)


@pytest.mark.usefixtures("commit")
def test_a_changed_tracked_file_makes_it_dirty(folder: Path) -> None:
    """An edit that is not committed is reported."""
    (folder / "train.py").write_text("print('edited')\n")
    assert capture_git(folder)["dirty"] is True


@pytest.mark.usefixtures("commit")
def test_a_staged_change_makes_it_dirty(folder: Path, git: Git) -> None:
    """An edit that is staged but not committed is reported."""
    (folder / "train.py").write_text("print('edited')\n")
    git("add", ".")
    assert capture_git(folder)["dirty"] is True


@pytest.mark.usefixtures("commit")
def test_a_touched_file_is_no_change(folder: Path) -> None:
    """A new time on the same content does not make a repository dirty."""
    os.utime(folder / "train.py", (1_000_000_000, 1_000_000_000))
    assert capture_git(folder)["dirty"] is False


@pytest.mark.usefixtures("commit")
def test_untracked_files_are_counted_but_do_not_make_it_dirty(folder: Path) -> None:
    """A folder of untracked files counts once, ignored files not at all."""
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "a.log").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "runs").mkdir()
    for name in ("a", "b"):
        (folder / "runs" / name).write_text("")
    facts = capture_git(folder / "runs")
    assert (facts["dirty"], facts["untracked_count"]) == (False, 3)


def test_an_empty_repository_has_no_commit(folder: Path, git: Git) -> None:
    """Before the first commit there is a branch and no commit, and that is no error."""
    git("init", "--quiet", "--initial-branch=main")
    facts = capture_git(folder)
    assert facts["available"] is True
    assert (facts["commit"], facts["branch"], facts["dirty"]) == (None, "main", False)
    assert "unknown" not in facts


def test_a_detached_head_has_no_branch(folder: Path, git: Git, commit: str) -> None:
    """A checked-out commit has an id and no branch."""
    git("checkout", "--quiet", "--detach")
    facts = capture_git(folder)
    assert (facts["commit"], facts["branch"]) == (commit, None)


@pytest.mark.usefixtures("commit")
def test_a_shallow_clone_is_called_shallow(folder: Path, git: Git, tmp_path: Path) -> None:
    """A clone without its history says so, for its commit's ancestors cannot be looked up in it."""
    git("commit", "--quiet", "--allow-empty", "--message", "second")
    git("clone", "--quiet", "--depth=1", folder.as_uri(), str(tmp_path / "clone"))
    facts = capture_git(tmp_path / "clone")
    assert (facts["shallow"], facts["commit"]) == (True, git("rev-parse", "HEAD"))


def test_a_worktree_is_described_by_its_own_branch(
    folder: Path, git: Git, commit: str, tmp_path: Path
) -> None:
    """A linked worktree has its own root and branch."""
    git("worktree", "add", "--quiet", "-b", "trial", str(tmp_path / "trial"))
    facts = capture_git(tmp_path / "trial")
    assert (facts["root"], facts["branch"], facts["commit"]) == (str(tmp_path / "trial"), "trial", commit)


def test_a_bare_repository_has_no_work_tree(git: Git, folder: Path, commit: str, tmp_path: Path) -> None:
    """A bare repository has a commit; whether files changed is a question it does not have."""
    bare = tmp_path / "bare.git"
    git("clone", "--quiet", "--bare", str(folder), str(bare))
    facts = capture_git(bare)
    assert (facts["bare"], facts["root"], facts["commit"]) == (True, str(bare), commit)
    assert (facts["dirty"], facts["untracked_count"]) == (None, None)


@pytest.mark.usefixtures("commit")
def test_a_path_with_odd_characters_is_kept(folder: Path, git: Git, tmp_path: Path) -> None:
    """Line ends, spaces and letters of any script in a path do not confuse the reading."""
    odd = tmp_path / "a b\nü"
    git("clone", "--quiet", str(folder), str(odd))
    (odd / "ñ\n.txt").write_text("")
    facts = capture_git(odd)
    assert (facts["root"], facts["untracked_count"], facts["dirty"]) == (str(odd), 1, False)


@pytest.mark.usefixtures("commit")
def test_variables_that_point_elsewhere_are_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a git hook GIT_DIR names the hook's repository; the folder's own is described all the same."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    facts = capture_git(folder)
    assert (facts["root"], facts["dirty"]) == (str(folder), False)


@pytest.mark.usefixtures("commit")
def test_the_repository_is_not_written_to(folder: Path) -> None:
    """Looking leaves every file of the repository as it was, the index too."""
    (folder / "train.py").touch()

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = state()
    capture_git(folder)
    assert state() == before


# --- Remotes -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("commit")
def test_the_remote_loses_its_credentials(folder: Path, git: Git) -> None:
    """A token in the URL of origin does not leave the machine."""
    git("remote", "add", "origin", "https://someone:s3cret@git.example.org/lab/repo.git")
    assert capture_git(folder)["remote"] == "https://git.example.org/lab/repo.git"


@pytest.mark.usefixtures("commit")
def test_only_origin_is_the_remote(folder: Path, git: Git) -> None:
    """Another remote is not taken for origin."""
    git("remote", "add", "upstream", "https://git.example.org/lab/repo.git")
    assert capture_git(folder)["remote"] is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/lab/repo.git", "https://host/lab/repo.git"),
        ("https://token@host/repo", "https://host/repo"),
        ("https://user:p@ss@host:8443/repo", "https://host:8443/repo"),
        ("https://user:p#s?s@host/repo", "https://host/repo"),
        ("https://host/repo.git?private_token=abc", "https://host/repo.git"),
        ("https://host/group/@scope/repo", "https://host/group/@scope/repo"),
        ("ssh://git@host:2222/repo", "ssh://host:2222/repo"),
        ("git@host:lab/repo.git", "host:lab/repo.git"),
        ("persistent-https::https://user:key@host/repo", "persistent-https::https://host/repo"),
        ("/data/me@home/repo", "/data/me@home/repo"),
        ("../me@home:2/repo", "../me@home:2/repo"),
        ("C:\\repo", "C:\\repo"),
        ("", ""),
    ],
)
def test_user_names_and_passwords_are_cut_from_every_form_of_url(url: str, shown: str) -> None:
    """What stands before the host goes; ports, paths and local folders stay."""
    assert without_credentials(url) == shown


# --- What is not there -------------------------------------------------------------------------------------------


def test_no_repository_is_an_answer(tmp_path: Path) -> None:
    """Outside of a repository the answer says so."""
    facts = capture_git(tmp_path)
    assert facts["available"] is False
    assert "not a git repository" in facts["reason"]


def test_no_git_is_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without git the answer says so."""
    monkeypatch.setenv("PATH", "")
    assert capture_git(folder) == {"available": False, "reason": "there is no git program on the PATH"}


@pytest.mark.usefixtures("commit")
def test_a_git_in_the_current_folder_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that the repository brings along under the name git is not taken for git."""
    (folder / "git").write_text("#!/bin/sh\ntouch ran\n")
    (folder / "git").chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f".{os.pathsep}")
    assert capture_git(folder)["available"] is False
    assert not (folder / "ran").exists()


def test_a_missing_folder_is_an_answer(tmp_path: Path) -> None:
    """A path that does not exist is named."""
    assert capture_git(tmp_path / "gone") == {
        "available": False,
        "reason": f"there is no folder {tmp_path / 'gone'}",
    }


def test_a_deleted_current_folder_is_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose folder was deleted under it gets an answer, not an exception."""
    monkeypatch.chdir(folder)
    folder.rmdir()
    facts = capture_git()
    assert facts["available"] is False
    assert "current folder" in facts["reason"]


@pytest.mark.usefixtures("commit")
def test_a_repository_of_somebody_else_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's own protection stays: what it calls dubious ownership is the reason."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    facts = capture_git(folder)
    assert facts["available"] is False
    assert "dubious ownership" in facts["reason"]


@pytest.mark.usefixtures("commit")
def test_a_damaged_repository_keeps_what_can_be_told(folder: Path) -> None:
    """Where one question fails, the others are still answered, and the reason is kept."""
    (folder / ".git" / "index").write_bytes(b"no index at all")
    facts = capture_git(folder)
    assert (facts["branch"], facts["dirty"]) == ("main", None)
    assert "index" in facts["unknown"]["dirty"]


def test_a_git_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that never answers, with a child that holds its output open, costs the time limit and no more."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    started = time.monotonic()
    facts = capture_git(tmp_path, timeout_s=0.2)
    assert facts == {"available": False, "reason": "git rev-parse took longer than 0.2 s"}
    assert time.monotonic() - started < 10


def test_a_git_that_talks_nonsense_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that only bears the name of git does no harm."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert capture_git(tmp_path)["available"] is False


# --- Nothing of the repository runs ------------------------------------------------------------------------------


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists as soon as a program of the repository was run."""
    return tmp_path / "ran"


@pytest.fixture
def hostile(tmp_path: Path, marker: Path) -> Path:
    """A program that leaves the marker behind; as a filter it changes nothing."""
    program = tmp_path / "hostile"
    program.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    program.chmod(0o755)
    return program


def make_stale(path: Path) -> None:
    """Give *path* a time that makes git read its content again."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.usefixtures("commit")
def test_a_file_system_monitor_does_not_run(folder: Path, git: Git, hostile: Path, marker: Path) -> None:
    """``core.fsmonitor`` names a program that plain git runs; here it does not run."""
    git("config", "core.fsmonitor", str(hostile))
    assert capture_git(folder)["dirty"] is False
    assert not marker.exists()
    git("status")
    assert marker.exists(), "the trap would not have closed"


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize("setting", ["clean", "process"])
@pytest.mark.parametrize("name", ["trap", "Trap.2", ""])
def test_a_filter_does_not_run(
    folder: Path, git: Git, hostile: Path, marker: Path, setting: str, name: str
) -> None:
    """A filter of the repository does not run, not even one that is required."""
    git("config", f"filter.{name}.{setting}", str(hostile))
    git("config", f"filter.{name}.required", "true")
    (folder / ".git" / "info" / "attributes").write_text(f"*.py filter={name}\n")
    make_stale(folder / "train.py")
    assert capture_git(folder)["dirty"] is False
    assert not marker.exists()
    subprocess.run(["git", "status"], cwd=folder, capture_output=True, timeout=30, check=False)
    assert marker.exists(), "the trap would not have closed"


@pytest.mark.usefixtures("commit")
def test_what_only_a_filter_could_tell_is_unknown(folder: Path, git: Git) -> None:
    """A file that differs from what its filter stored may be changed or not: the answer does not guess."""
    git("config", "filter.upper.clean", "tr a-z A-Z")
    (folder / ".gitattributes").write_text("*.txt filter=upper\n")
    (folder / "words.txt").write_text("stored in capitals\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "words")
    make_stale(folder / "words.txt")
    facts = capture_git(folder)
    assert facts["dirty"] is None
    assert "1 modified file(s) go through a filter" in facts["unknown"]["dirty"]


@pytest.mark.usefixtures("commit")
def test_a_change_without_a_filter_is_certain(folder: Path, git: Git, hostile: Path, marker: Path) -> None:
    """Next to files with a filter, an edited file without one proves that the repository is dirty."""
    (folder / ".gitattributes").write_text("*.bin filter=trap\n")
    (folder / "weights.bin").write_text("weights")
    git("add", ".")
    git("commit", "--quiet", "--message", "weights")
    git("config", "filter.trap.clean", str(hostile))
    (folder / "weights.bin").write_text("others")
    (folder / "train.py").write_text("print('edited')\n")
    assert capture_git(folder)["dirty"] is True
    assert not marker.exists()


@pytest.mark.usefixtures("commit")
def test_files_of_a_filter_that_were_not_touched_are_clean(
    folder: Path, git: Git, hostile: Path, marker: Path
) -> None:
    """A repository that uses a filter, as Git LFS does, is clean as long as no such file looks modified."""
    (folder / ".gitattributes").write_text("*.bin filter=trap\n")
    (folder / "weights.bin").write_text("weights")
    make_stale(folder / "weights.bin")
    git("add", ".")
    git("commit", "--quiet", "--message", "weights")
    git("config", "filter.trap.clean", str(hostile))
    assert capture_git(folder)["dirty"] is False
    assert not marker.exists()


@pytest.mark.usefixtures("commit")
def test_a_filter_that_cannot_be_named_stops_the_question(
    folder: Path, git: Git, hostile: Path, marker: Path
) -> None:
    """A filter whose name would escape the command line leaves ``dirty`` unknown instead of running."""
    (folder / ".gitattributes").write_text("*.py filter=a=b\n")
    git("config", "filter.a=b.clean", str(hostile))
    make_stale(folder / "train.py")
    facts = capture_git(folder)
    assert not marker.exists()
    assert facts["dirty"] is None
    assert "'a=b'" in facts["unknown"]["dirty"]
    git("status")
    assert marker.exists(), "the trap would not have closed"


@pytest.mark.usefixtures("commit")
def test_a_submodule_is_not_entered(
    folder: Path, git: Git, tmp_path: Path, hostile: Path, marker: Path
) -> None:
    """The configuration of a submodule is not the repository's, and its programs do not run either."""
    inner = folder / "inner"
    git("clone", "--quiet", str(folder), str(inner))
    git("add", "inner")
    git("commit", "--quiet", "--message", "submodule")
    git("-C", str(inner), "config", "core.fsmonitor", str(hostile))
    git("-C", str(inner), "config", "filter.trap.clean", str(hostile))
    (inner / ".git" / "info" / "attributes").write_text("*.py filter=trap\n")
    make_stale(inner / "train.py")
    assert capture_git(folder)["dirty"] is False
    assert not marker.exists()
    git("status")
    assert marker.exists(), "the trap would not have closed"


def test_a_partial_clone_fetches_nothing(
    folder: Path, git: Git, commit: str, tmp_path: Path, marker: Path
) -> None:
    """A missing object is not fetched, for the repository names the program that would fetch it."""
    clone = tmp_path / "clone"
    git("config", "uploadpack.allowFilter", "true")
    git("clone", "--quiet", "--filter=tree:0", "--no-checkout", folder.as_uri(), str(clone))
    fetcher = tmp_path / "fetcher"
    fetcher.write_text(f"#!/bin/sh\ntouch {marker}\n")
    fetcher.chmod(0o755)
    git("-C", str(clone), "config", "remote.origin.uploadpack", str(fetcher))
    facts = capture_git(clone)
    assert facts["commit"] == commit
    assert not marker.exists()
    subprocess.run(["git", "status"], cwd=clone, capture_output=True, timeout=30, check=False)
    assert marker.exists(), "the trap would not have closed"


@pytest.mark.usefixtures("commit")
def test_hooks_do_not_run(folder: Path, git: Git, hostile: Path, marker: Path) -> None:
    """A hook that git calls when it refreshes the index does not run."""
    hook = folder / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(hostile.read_bytes())
    hook.chmod(0o755)
    make_stale(folder / "train.py")
    assert capture_git(folder)["dirty"] is False
    assert not marker.exists()
    git("status")
    assert marker.exists(), "the trap would not have closed"
