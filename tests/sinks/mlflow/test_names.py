"""Names for MLflow: whatever a user calls a thing, MLflow takes it, it comes back, and no two become one."""

from __future__ import annotations

import posixpath
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import (
    _validate_experiment_name,
    _validate_metric_name,
    _validate_param_name,
    _validate_tag_name,
)

from lezea_mlops.sinks.mlflow.names import (
    MAX_FILE_NAME_BYTES,
    MAX_NAME,
    dotted,
    escape,
    file_part,
    file_path,
    fit,
    metric_key,
    one_part,
    unescape,
    user_tag,
)

# Any text that UTF-8 can write, and texts of what names are made of and what escaping could stumble over.
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TRICKY = st.text(st.sampled_from("_x0123456789ABCDEFabcdef/.: #@-\0\n%é"), max_size=30)
NAMES = st.one_of(
    ANY,
    TRICKY,
    st.lists(st.sampled_from(["_x23_", "_x", "_", "#", "/", "..", ".", "x5F_", "a"])).map("".join),
)
SCOPES = st.lists(st.tuples(NAMES, NAMES), max_size=3)
FOLDERS = st.lists(NAMES, max_size=2)

AWKWARD = [
    "tasker#0", "val/AR@100", "a/b", "a_b", "a b", "ab", "", "a//b", "/a", "a/", "/", "//", ".", "..", "...",
    "../a", "a/..", "a/../b", "a/./b", "./a", "a\n", "a\nb", "\n", " ", "  ", "a ", "a\tb", "🦊", "a🦊",
    "loss'", 'loss"', "`loss`", "Verlust über alles", "_x23_", "_x", "_x_", "_x#", "_x2#", "x23_",
    "tasker_x23_0", "_x_x23_", "__x23_", "_x5F_x23_", "a:b", "a:b/c", "C:\\x", "a\\b", "a%2Fb", "%", "a\0b",
    "\0", "a.b", "a-b", "a=b", "[a]", "(a)", "loss,acc", "n" * 1_024, "n" * 1_023 + "m", "é" * 1_024,
    "#" * 1_024, "/" * 1_024, "n" * 250, "n" * 251, "n/" * 512,
]  # fmt: skip


def shown(name: str) -> str:
    """Return *name* as MLflow gets it."""
    return fit(escape(name))


@settings(max_examples=400)
@given(NAMES)
@example("_x#")
@example("_x2#")
@example("pos_x/")
@example("a_x\0")
def test_every_name_comes_back(name: str) -> None:
    """``unescape`` undoes ``escape`` for any text; so no two names can become one."""
    assert unescape(escape(name)) == name


@settings(max_examples=500)
@given(NAMES)
def test_a_part_comes_back_and_is_one_part(name: str) -> None:
    """A scope's id with slashes is one part of a name, and comes back too."""
    part = one_part(name)
    assert "/" not in part
    assert part
    assert unescape(part) == name


def test_awkward_names_stay_apart() -> None:
    """The names that people and programs really use: none becomes another, 1 KB long ones included."""
    for one, other in combinations(AWKWARD, 2):
        assert shown(one) != shown(other), (one, other)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "loss"),
        ("val/loss", "val/loss"),
        ("pos_x", "pos_x"),
        ("pos_x/mean", "pos_x/mean"),
        ("Verlust über alles", "Verlust über alles"),
        ("tasker#0", "tasker_x23_0"),
        ("val/AR@100", "val/AR_x40_100"),
        ("_x23_", "_x5F_x23_"),
        ("", "_x_"),
        ("a//b", "a/_x2F_b"),
        ("/a", "_x2F_a"),
        ("a/", "a_x2F_"),
        ("..", "_x2E_."),
        ("a/../b", "a/_x2E_./b"),
        ("🦊", "_x1F98A_"),
    ],
)
def test_a_name_that_mlflow_takes_stays_as_it_is_and_others_are_readable(name: str, expected: str) -> None:
    """Escaping touches no more than it must."""
    assert escape(name) == expected


@settings(max_examples=2_000)
@given(name=st.one_of(NAMES, NAMES.map(lambda name: name * 40)))
def test_mlflow_takes_every_name(name: str) -> None:
    """MLflow's own checks of metric, param and tag names pass, whatever the name was."""
    _validate_metric_name(shown(name))
    _validate_param_name(shown(name))
    _validate_tag_name(fit(user_tag(name)))
    assert len(shown(name)) <= MAX_NAME


@pytest.mark.parametrize("name", AWKWARD, ids=range(len(AWKWARD)))
def test_mlflow_takes_awkward_names(name: str) -> None:
    """As metric, as param, as tag, as dotted param, as metric in a scope, as experiment."""
    _validate_metric_name(shown(name))
    _validate_param_name(fit(dotted(["a", name, name])))
    _validate_tag_name(fit(user_tag(name)))
    _validate_metric_name(fit(metric_key([(name, name)], [name], name, name)))
    if name:
        _validate_experiment_name(fit(name, 500))


@settings(max_examples=300)
@given(name=st.text(min_size=1, max_size=1_024), limit=st.integers(40, 300))
def test_a_name_that_fits_is_kept_and_a_long_one_gets_head_and_digest(name: str, limit: int) -> None:
    """Never longer than the limit; what fits is not changed."""
    fitted = fit(name, limit)
    assert len(fitted) <= limit
    assert (fitted == name) == (len(name) <= limit)


def test_long_names_with_the_same_head_stay_apart() -> None:
    """A thousand names of 1 KB that differ in their last characters only."""
    assert len({fit("n" * 1_020 + f"{number:04d}") for number in range(1_000)}) == 1_000


# ---------------------------------------------------------------------- metrics in scopes


def scopes_of(key: str) -> tuple[list[tuple[str, str]], str]:
    """Read scopes and the rest back from a metric's name: what its parts before the last say with a colon."""
    parts = key.split("/")
    scopes = []
    while len(parts) > 1 and ":" in parts[0]:
        level, _, identity = parts.pop(0).partition(":")
        scopes.append((unescape(level), unescape(identity)))
    return scopes, unescape("/".join(parts))


@settings(max_examples=400)
@given(scope=SCOPES, name=NAMES)
@example(scope=[], name="builder:42/loss")
@example(scope=[("builder", "42")], name="loss")
@example(scope=[("a:b", "c")], name="d")
@example(scope=[("a", "b:c")], name="d")
def test_scopes_and_name_can_be_read_back(scope: list[tuple[str, str]], name: str) -> None:
    """``builder:42/loss`` is the loss in a scope; a user's own name that looks so is shown otherwise."""
    assert scopes_of(metric_key(scope, [], name, "main")) == (scope, name)


@settings(max_examples=500)
@given(scope=SCOPES, folder=FOLDERS, name=NAMES)
def test_a_folder_cannot_be_taken_for_a_scope(
    scope: list[tuple[str, str]], folder: list[str], name: str
) -> None:
    """Nor can the split, the component or the group that stands between scope and name."""
    assert scopes_of(metric_key(scope, folder, name, "main"))[0] == scope


@pytest.mark.parametrize(
    ("scope", "folder", "name", "wid", "expected"),
    [
        ([], [], "loss", "main", "loss"),
        ([("builder", "42")], [], "loss", "main", "builder:42/loss"),
        ([("builder", "42"), ("layer", "3")], ["val"], "loss", "main", "builder:42/layer:3/val/loss"),
        ([("tasker", "a/b")], [], "AR@100", "main", "tasker:a_x2F_b/AR_x40_100"),
        ([], [], "builder:42/loss", "main", "builder_x3A_42/loss"),
        ([], [], "12:30", "main", "12:30"),
        ([], ["resources", "tasker#0"], "cpu_percent", "main", "resources/tasker_x23_0/cpu_percent"),
        ([], [], "loss", "rank1", "rank1/loss"),
        ([("builder", "42")], [], "loss", "rank1", "rank1/builder:42/loss"),
        ([], [], "loss", "rank1.ab12cd34", "rank1.ab12cd34/loss"),
        ([], [], "loss", "main.ab12cd34", "main.ab12cd34/loss"),
        ([], ["resources", "total"], "core_hours", "courier", "resources/total/core_hours"),
    ],
)  # fmt: skip
def test_metrics_stand_where_the_design_says(
    scope: list[tuple[str, str]], folder: list[str], name: str, wid: str, expected: str
) -> None:
    """``<scope>/<split>/<name>``, behind the writer if that does not speak for the run."""
    assert metric_key(scope, folder, name, wid) == expected


# ---------------------------------------------------------------------- params and tags


@settings(max_examples=500)
@given(paths=st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), unique=True, max_size=6))
def test_dotted_names_with_their_dots_escaped_stay_apart(paths: list[tuple[str, ...]]) -> None:
    """``{"a.b": …}`` and ``{"a": {"b": …}}`` can be told apart, and both come back."""
    names = [dotted(path, dots_escaped=True) for path in paths]
    assert len(set(names)) == len(paths)
    assert [tuple(unescape(part) for part in name.split(".")) for name in names] == paths


@settings(max_examples=300)
@given(NAMES)
def test_no_tag_of_a_user_can_be_taken_for_ours(name: str) -> None:
    """Ours begin with ``lezea.``; a user's never do, and come back."""
    assert not user_tag(name).startswith("lezea.")
    assert not user_tag("lezea." + name).startswith("lezea.")
    assert unescape(user_tag("lezea." + name)) == "lezea." + name
    assert unescape(user_tag(name)) == name


# ---------------------------------------------------------------------- files


@settings(max_examples=400)
@given(st.one_of(NAMES, NAMES.map(lambda name: name * 40)))
def test_a_file_part_is_one_safe_name(name: str) -> None:
    """No separator, no drive, nothing that a path would resolve, short enough for any file system."""
    part = file_part(name)
    assert part not in ("", ".", "..")
    assert not set("/\\:\0\n") & set(part)
    assert len(part.encode()) <= MAX_FILE_NAME_BYTES


@settings(max_examples=400)
@given(
    st.one_of(NAMES, st.lists(st.sampled_from(["..", "/", "\\", "a", ".", "~", "C:", "etc"])).map("".join))
)
@example("../../etc/passwd")
@example("/etc/passwd")
@example("..\\..\\etc\\passwd")
@example("a/../../b")
def test_no_name_leads_out_of_the_artifacts(name: str) -> None:
    """Whatever the user calls a file, its path is relative, has no ``..``, and is what it normalises to."""
    path = file_path(name)
    assert not posixpath.isabs(path)
    assert ".." not in path.split("/")
    assert posixpath.normpath(path) == path
    assert posixpath.normpath(posixpath.join("/root", path)).startswith("/root/")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plots/curve.png", "plots/curve.png"),
        ("a//b", "a/b"),
        ("./a", "a"),
        ("", "unnamed"),
        ("a\\b.txt", "a/b.txt"),
        ("../a", "_x2E_./a"),
        ("results", "_x72_esults"),
        ("results/x.json", "results/x.json"),
    ],
)
def test_a_file_stands_where_the_user_put_it(name: str, expected: str) -> None:
    """Only a file at the top may not have the name of a folder that is ours: MLflow could hold no more of it."""
    assert file_path(name, {"results"}) == expected


def test_files_whose_names_differ_stay_apart() -> None:
    """All awkward names that are different paths are different files."""
    paths = {
        posixpath.normpath(name.replace("\\", "/").lstrip("/"))
        for name in AWKWARD
        if ".." not in name and name
    }
    kept = {file_path(path) for path in paths if path != "."}
    assert len(kept) == len(paths - {"."})
