"""``lezea tree``: what a person sees of a run's modifications, and what programs get."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.cli.paper import MOST_CHARACTERS, Paper
from lezea_mlops.cli.tree import LIMIT
from lezea_mlops.journal import RunFolder
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.reports.growing import chain, modification


def tree(*arguments: object) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["tree", *map(str, arguments)])


def run_of(*steps: list[dict[str, Any]]) -> RunFolder:
    """Return a run with one logged tree for each step, from 1 on."""
    with ExperimentTracker("Trees", settings={"mode": "offline"}) as tracker:
        for step, modifications in enumerate(steps, start=1):
            tracker.log_modification_tree(step, modifications)
    return RunFolder(Path(tracker.run_dir))


def family() -> RunFolder:
    """Return a run of two generations and a crossover."""
    return run_of(
        [
            modification("a", type="widen", score=0.5, target="net-1"),
            modification("b", type="prune", accepted=False, score=0.25),
        ],
        [
            modification("c", "a", "b", type="crossover", score=0.75),
            modification("d", "a", type="prune", accepted=False, score=0.4),
            modification("e", "c", accepted=None),
        ],
    )


def body(result: Result) -> list[str]:
    """Return the rows, without what stands above them; the rows of a pipe end without blanks."""
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[3:]


def names(result: Result) -> list[str]:
    """Return the ids of the rows of their own."""
    return [row.split()[1] for row in body(result) if row and row.split()[0][-1] in "●✕■"]


def test_the_tree_is_drawn_with_verdicts_scores_gains_and_types() -> None:
    """Oldest first, what it is in numbers above it."""
    result = tree(family().path)
    assert result.stdout.splitlines()[0] == (
        "5 modifications: 2 accepted, 2 rejected, 1 undecided (acceptance 50.0%); champion c, score 0.75"
    )
    assert body(result) == [
        "┌● a             1    0.5         widen      net-1",
        "├──✕ d           2    0.4   -0.1  prune",
        "├● c ★           2   0.75  +0.25  crossover          survivor, also on b",
        "└■ e             2",
        "─✕ b             1   0.25         prune",
    ]


def test_parts_can_be_drawn() -> None:
    """A step, what was accepted, some generations, what is below one; what is not shown is named."""
    run = family().path
    assert names(tree(run, "--step", 2)) == ["c", "e", "d"]
    assert names(tree(run, "--accepted")) == ["a", "c"]
    assert names(tree(run, "--depth", 1)) == ["a", "b"]
    assert names(tree(run, "--from", "c")) == ["c", "e"]
    assert names(tree(run, "--step", 2, "--accepted")) == ["c"]
    assert "on a, b" in tree(run, "--step", 2).stdout
    assert "3 below" in tree(run, "--depth", 1).stdout


def test_a_thousand_generations_stay_readable() -> None:
    """Not a thousand rows, nor a thousand columns; all rows on request."""
    run = run_of(chain(1_000, type="widen")).path
    short = tree(run)
    assert len(body(short)) < 12
    assert "994 more, 3 to 996: 994 accepted" in short.stdout
    assert "--full draws a row for each modification" in short.stdout
    full = tree(run, "--full")
    assert names(full) == [str(number) for number in range(1_000)]
    assert max(map(len, full.stdout.splitlines())) < 100


def test_what_is_not_shown_is_counted_and_how_to_see_it() -> None:
    """Beyond the limit of rows."""
    run = run_of([modification(f"m{number}") for number in range(LIMIT + 30)]).path
    result = tree(run)
    assert len(names(result)) == LIMIT
    assert f"30 of {LIMIT + 30} modifications are not in these rows; --limit" in result.stdout
    assert len(names(tree(run, "--limit", LIMIT + 30))) == LIMIT + 30
    assert "not in these rows" not in tree(run, "--full").stdout


def test_problems_are_told_at_the_end() -> None:
    """Unknown parents, cycles, and ids that came with different contents; all are drawn."""
    run = run_of(
        [modification("a", "never"), modification("b", "c"), modification("c", "b")], [modification("a")]
    )
    result = tree(run.path)
    assert sorted(names(result)) == ["a", "b", "c"]
    kinds = [row.split(":")[0] for row in body(result)[3:]]
    assert sorted(kinds) == ["cycle", "duplicate"]
    result = tree(run_of([modification("a", "never")]).path)
    assert "on never (unknown)" in result.stdout
    assert body(result)[-1].startswith("unknown_parent: the parent never of a")


def test_programs_get_the_whole_tree() -> None:
    """Node-link JSON, the ALife standard's CSV, GraphViz."""
    run = family().path
    graph = json.loads(tree(run, "--json").stdout)
    assert [node["id"] for node in graph["nodes"]] == ["a", "b", "c", "d", "e"]
    assert {"source": "b", "target": "c"} in graph["edges"]
    rows = list(csv.DictReader(io.StringIO(tree(run, "--csv").stdout)))
    assert [row["taxon_label"] for row in rows] == ["a", "b", "c", "d", "e"]
    assert rows[2]["ancestor_list"] == "[0,1]"
    assert tree(run, "--dot").stdout.startswith("digraph {\n")


def test_a_page_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    """And what stands in the way is said."""
    run = family().path
    result = tree(run, "--html", tmp_path / "tree.html")
    assert (result.exit_code, "is written; open it in a browser" in result.stdout) == (0, True)
    assert "<!doctype html>" in (tmp_path / "tree.html").read_text()
    wrong = tree(run, "--html", tmp_path / "nowhere" / "tree.html")
    assert (wrong.exit_code, "cannot be written: " in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "c1"], "there is no modification 'c1' in this run"),
        (["--from", "b", "--accepted"], "'b' is left out by --step or --accepted"),
        (["--step", "7"], "no modification was logged at step 7; steps 1 to 2 have some"),
        (["--json", "--csv"], "--json and --csv are different forms; give one of them"),
        (["--dot", "--accepted"], "--dot has the whole tree; --accepted is for drawing in the terminal"),
        (["--depth", "0"], "Invalid value for '--depth'"),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], said: str) -> None:
    """With code 2, and nothing on the standard output."""
    result = tree(family().path, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_the_nearest_names_are_told() -> None:
    """Those that are begun by what was given, then those that differ in little."""
    run = run_of([modification(f"mod-g{number}") for number in range(30)]).path
    assert "; there is mod-g0, mod-g1, mod-g2, mod-g3, mod-g4\n" in tree(run, "--from", "mod-g").stderr
    assert "; there is mod-g17" in tree(run, "--from", "modg17").stderr
    assert (
        tree(run, "--from", "quite another").stderr
        == "there is no modification 'quite another' in this run\n"
    )


def test_a_run_without_modifications_says_so() -> None:
    """In every form, without an error."""
    run = run_of().path
    assert tree(run).stdout == "no modification was logged\n"
    assert json.loads(tree(run, "--json").stdout)["nodes"] == []


def test_a_run_that_goes_on_is_drawn_as_far_as_it_is_written() -> None:
    """While its tracker writes."""
    tracker = ExperimentTracker("Now", settings={"mode": "offline"})
    tracker.log_modification_tree(1, [modification("a")])
    assert names(tree(tracker.run_dir)) == ["a"]
    tracker.log_modification_tree(2, [modification("b", "a")])
    assert names(tree(tracker.run_dir)) == ["a", "b"]
    # An unfinished line is not there yet.
    with RunFolder(Path(tracker.run_dir)).journal("main").open("ab") as journal:
        journal.write(b'{"v":1,"t":"modification_tree","m":{"seq":9')
    assert names(tree(tracker.run_dir)) == ["a", "b"]


def test_a_journal_that_cannot_be_read_is_said() -> None:
    """With the reason, and code 2."""
    run = run_of()
    run.journal("main").unlink()
    run.journal("main").mkdir()
    result = tree(run.path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot read the journal" in result.stderr


HOSTILE = ["\x1b[31mred\x1b[0m", "two\nlines", "[bold]markup[/bold]", "tab\there", "x" * 500]


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_what_was_logged_commands_no_terminal(words: str) -> None:
    """One row for each modification, no control characters, brackets as they are."""
    result = tree(run_of([modification(words, f"no {words}", type=words, target=words)]).path)
    assert len(body(result)) == 2
    assert not set(result.stdout) & set("\x1b\t\r")
    if words.startswith("["):
        assert words in result.stdout


@given(st.text())
def test_any_text_is_one_short_line(text: str) -> None:
    """As it is shown in a cell."""
    shown = Paper().shown(text)
    assert shown.isprintable()
    assert len(shown) == min(len(text), MOST_CHARACTERS)


# ---------------------------------------------------------------------- whole processes


def started(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command as a person does."""
    return subprocess.Popen(
        [sys.executable, "-m", "lezea_mlops.cli", "tree", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["--full", "--csv", "--dot", "--json"])
def test_a_reader_that_goes_away_costs_no_traceback(form: str) -> None:
    """As ``| head`` does, in the middle of what would fill any pipe."""
    run = run_of(chain(4_000, type="widen" * 5))
    process = started(run.path, form)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


@pytest.mark.parametrize("form", ["--full", "--csv", "--json"])
def test_a_reader_that_was_gone_before_costs_no_traceback(form: str) -> None:
    """Of what would wait for the interpreter's end to be written, too."""
    process = started(family().path, form)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


def test_a_pipe_gets_no_colours_and_a_terminal_without_unicode_gets_letters() -> None:
    """Whatever the encoding, nothing fails."""
    run = run_of([modification("grün", type="weiß"), modification("b", "grün", accepted=False)])
    output, errors = started(run.path, PYTHONIOENCODING="ascii").communicate()
    assert errors == b""
    assert [line.split()[:2] for line in output.decode("ascii").splitlines()[3:]] == [
        [",+", "gr?n"],
        ["`--x", "b"],
    ]
    output, _ = started(run.path, PYTHONIOENCODING="utf-8", TERM="xterm-256color").communicate()
    assert b"\x1b" not in output
    assert "┌● grün" in output.decode()


def test_a_narrow_terminal_cuts_rows_and_never_sentences() -> None:
    """One row stays one row, in colours; what is said is said whole."""
    run = run_of(
        *([modification(f"m{i}", type="widen_layer", target="a network with a long name")] for i in range(9))
    )
    screen, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "lezea_mlops.cli", "tree", str(run.path), "--limit", "4"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}, stdout=end,
    )  # fmt: skip
    process.wait()
    os.close(end)
    output = all_of(screen).decode()
    os.close(screen)
    assert "\x1b[32m● " in output
    lines = re.sub(r"\x1b\[[\d;]*m", "", output).replace("\r\n", "\n").splitlines()
    rows = [line for line in lines if line.startswith("─")]
    assert len(rows) == 4
    assert all(len(row) == 40 and row.endswith("…") for row in rows)
    assert any(line.endswith("--from draw a part") for line in lines)


def all_of(screen: int) -> bytes:
    """Return what was written to the other end of a terminal, which is closed: its reader gets an error at the end."""
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(screen, 65_536):
            parts.append(part)
    return b"".join(parts)


def test_nothing_heavy_is_loaded() -> None:
    """Neither a backend nor numpy: the first rows come at once."""
    run = family()
    code = (
        f"import sys\nfrom lezea_mlops.cli import app\ntry:\n    app(['tree', {str(run.path)!r}])\n"
        "except SystemExit as end:\n    assert end.code in (0, None)\n"
        "assert not {'mlflow', 'sqlalchemy', 'pymongo', 'numpy', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
