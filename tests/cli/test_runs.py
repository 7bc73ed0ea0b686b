"""How runs are named on the command line, and what is said where no run has that name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import lezea_mlops
from lezea_mlops.cli import app
from lezea_mlops.cli.runs import SHORT_ID, chosen, find_run, short_ids
from lezea_mlops.config import Settings, load_settings
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.journal import JournalWriter, RunFolder

IDS = ("aaaa1111-run", "aaaa2222-run", "bbbbcccc-run")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose runs folder holds three runs, and a folder that is none."""
    for run_id in IDS:
        folder = RunFolder(tmp_path / "runs" / run_id)
        folder.create()
        writer = JournalWriter(folder, "main", durability="process")
        writer.append("run_started", {"experiment_name": "x"})
        writer.close()
    (tmp_path / "runs" / "bbbbnotes").mkdir()
    return load_settings()


def call(*arguments: str) -> Result:
    """Call the program in this process."""
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    "name", [IDS[0], "aaaa1", "aaaa1111", "runs/aaaa1111-run", "./runs/../runs/aaaa1111-run/"]
)
def test_a_run_is_named_by_id_prefix_or_path(settings: Settings, name: str) -> None:
    """All of them mean the same folder."""
    assert find_run(name, settings.runs_dir).path == settings.runs_dir / IDS[0]


def test_a_run_that_stands_elsewhere_is_named_by_its_path(settings: Settings, tmp_path: Path) -> None:
    """Absolute or not, whatever the runs folder is."""
    moved = tmp_path / "moved"
    (settings.runs_dir / IDS[0]).rename(moved)
    for name in (str(moved), "moved"):
        assert find_run(name, settings.runs_dir).path == moved


def test_a_folder_of_that_name_does_not_hide_a_run(settings: Settings, tmp_path: Path) -> None:
    """An id means the run in the runs folder."""
    (tmp_path / IDS[0]).mkdir()
    assert find_run(IDS[0], settings.runs_dir).path == settings.runs_dir / IDS[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aaaa", (IDS[0], IDS[1], "begins 2 ids")), ("bbb", (IDS[2], "too short")), ("zzzz", ("'zzzz' is no run",)),
        ("runs", ("is no run",)), ("", ("check the id",)), ("bbbbnotes", ("is no run",)),
    ],
)  # fmt: skip
def test_a_name_of_none_or_of_several_is_an_error_with_the_folder(
    settings: Settings, name: str, words: tuple[str, ...]
) -> None:
    """It names where was looked, and the candidates."""
    with pytest.raises(ConfigurationError) as told:
        find_run(name, settings.runs_dir)
    assert str(settings.runs_dir) in str(told.value)
    assert all(word in str(told.value) for word in words)


def test_many_candidates_are_told_in_part(settings: Settings) -> None:
    """A line stays a line."""
    for number in range(20):
        folder = settings.runs_dir / f"cccc{number:02}"
        folder.mkdir()
        (folder / "events.jsonl").write_text("x")
    with pytest.raises(ConfigurationError, match="begins 20 ids") as told:
        find_run("cccc", settings.runs_dir)
    assert str(told.value).count("cccc") <= 7


def test_a_run_that_is_named_twice_is_chosen_once(settings: Settings) -> None:
    """By id and by path."""
    folders = chosen([IDS[0], "aaaa1", f"runs/{IDS[0]}", IDS[2]], False, settings)
    assert [folder.run_id for folder in folders] == [IDS[0], IDS[2]]


def test_short_ids_are_long_enough_to_tell_runs_apart() -> None:
    """Eight characters, or as many as it takes."""
    folders = [RunFolder(Path("runs") / name) for name in ("0123456789", "0123456788", "x")]
    assert list(short_ids(folders).values()) == ["0123456789", "0123456788", "x"]
    assert [len(name) for name in short_ids([RunFolder(Path("a" * 36))]).values()] == [SHORT_ID]


@pytest.mark.parametrize("command", ["sync", "status", "gc"])
def test_every_command_says_that_a_run_is_unknown(settings: Settings, command: str) -> None:
    """Exit code 2, nothing on stdout."""
    result = call(command, "no-such-run", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'no-such-run' is no run in" in result.stderr


@pytest.mark.parametrize("command", ["sync", "gc"])
def test_a_command_that_changes_something_wants_to_be_told_of_which_runs(
    settings: Settings, command: str
) -> None:
    """Neither means all of them by itself."""
    result = call(command)
    assert result.exit_code == 2
    assert "give an experiment id" in result.stderr


@pytest.mark.parametrize("command", ["sync", "status", "gc"])
def test_all_of_an_empty_folder_is_said_and_no_error(tmp_path: Path, command: str) -> None:
    """With the folder that was looked at."""
    result = call(command, "--all")
    assert result.exit_code == 0
    assert f"no runs in {tmp_path / 'runs'}" in result.stderr


def test_the_version_is_told() -> None:
    """That of the package, and nothing else."""
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"{lezea_mlops.__version__}\n")
