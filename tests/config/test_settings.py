"""Settings: argument before environment before default, each checked once, each error with its way out."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.config import Settings, load_settings
from lezea_mlops.config.rates import Rates, read_rates
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.tracker import ExperimentTracker

ROOT = Path(__file__).resolve().parents[2]
ENV_FILE = ROOT / "configs" / "lezea.env"

# Name: a value that is no default, as a text in the environment, and what it is then.
OTHERS: dict[str, tuple[str, Any]] = {
    "runs_dir": ("/data/runs", Path("/data/runs")),
    "mlflow_tracking_uri": ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    "mlflow_artifact_location": ("s3://bucket/a", "s3://bucket/a"),
    "mongo_uri": ("mongodb://127.0.0.1:27017/lab", "mongodb://127.0.0.1:27017/lab"),
    "mode": ("offline", "offline"),
    "strict": ("true", True),
    "experiment_id": ("run-7", "run-7"),
    "durability": ("record", "record"),
    "capture": ("reference", "reference"),
    "capture_max_mb": ("0.5", 0.5),
    "close_timeout_s": ("60", 60.0),
    "start_timeout_s": ("0", 0.0),
    "courier": ("thread", "thread"),
    "redact": ("no", False),
    "sample_period_s": ("0.5", 0.5),
    "prometheus_port": ("9100", 9100),
    "prometheus_address": ("0.0.0.0", "0.0.0.0"),
    "prometheus_targets": ("/var/lib/targets", Path("/var/lib/targets")),
    "prometheus_textfile": ("/var/lib/textfile", Path("/var/lib/textfile")),
    "rates": (str(ROOT / "configs" / "rates.yaml"), read_rates(ROOT / "configs" / "rates.yaml", {}, None)),
    "budget_eur": ("12.5", 12.5),
}
# A third value, given as an argument.
ARGUMENTS: dict[str, Any] = {
    "runs_dir": Path("/other"), "mlflow_tracking_uri": "http://other:5000", "mlflow_artifact_location": "s3://other",
    "mongo_uri": "mongodb+srv://other/lab", "mode": "off", "strict": False, "experiment_id": "other",
    "durability": "process", "capture": "copy", "capture_max_mb": 7.0, "close_timeout_s": 7.0,
    "start_timeout_s": 7.0, "courier": "process", "redact": True,
    "sample_period_s": 7.0, "prometheus_port": 0, "prometheus_address": "127.0.0.2", "budget_eur": 7.0,
    "prometheus_targets": Path("/other"), "prometheus_textfile": Path("/other"), "rates": Rates(core_hour_eur=7.0),
}  # fmt: skip


def test_the_tables_here_name_every_setting() -> None:
    """A setting that is added is tested."""
    assert OTHERS.keys() == ARGUMENTS.keys() == {field.name for field in fields(Settings)}


@pytest.mark.parametrize("name", OTHERS)
def test_an_argument_stands_above_the_environment_and_that_above_the_default(name: str) -> None:
    """For each setting: the default, then its variable, then a mapping, then a single argument."""
    text, value = OTHERS[name]
    environ = {f"LEZEA_{name.upper()}": text}
    default = getattr(load_settings(environ={}), name)
    assert default != value
    assert getattr(load_settings(environ=environ), name) == value
    assert getattr(load_settings({name: ARGUMENTS[name]}, environ), name) == ARGUMENTS[name]
    assert getattr(load_settings({name: text}, environ, **{name: ARGUMENTS[name]}), name) == ARGUMENTS[name]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_empty_or_none_counts_as_not_given(name: str) -> None:
    """An empty variable and None as an argument leave the default."""
    default = load_settings(environ={})
    assert load_settings({name: None}, {f"LEZEA_{name.upper()}": ""}, **{name: None}) == default


@pytest.mark.parametrize("uri", ["127.0.0.1:27017", "http://me:hunter2@host", 27017, " "])
def test_what_is_no_address_of_mongodb_raises_at_once(uri: Any) -> None:
    """The message shows the way out and no password."""
    with pytest.raises(ConfigurationError, match=r"mongo_uri is .*mongodb://127\.0\.0\.1") as raised:
        load_settings({"mongo_uri": uri}, {})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "password", ["hunter2/", "hun/ter2", "hunter2?", "hunter2#", "hunter2@", "hunter2/@x"]
)
def test_a_password_that_is_not_escaped_is_told_and_not_shown(password: str) -> None:
    """The driver would take a part of it for a host."""
    with pytest.raises(
        ConfigurationError, match=r"names the host 'host/lab'.*must be escaped.*quote_plus"
    ) as raised:
        load_settings({"mongo_uri": f"mongodb://me:{password}@host/lab"}, {})
    assert "hun" not in str(raised.value)


@pytest.mark.parametrize("uri", ["mongodb://me:p%40%2F@host/lab?appName=a@b", "mongodb://host/?appName=a@b"])
def test_an_escaped_password_and_any_option_are_taken(uri: str) -> None:
    """Behind the question mark an @ means nothing."""
    assert load_settings({"mongo_uri": uri}, {}).mongo_uri == uri


def test_the_defaults_are_those_of_the_documents(tmp_path: Path) -> None:
    """Without anything a run is under ./runs and a local SQLite store beside it, and journal lines live a second."""
    settings = load_settings(environ={})
    assert settings.runs_dir == tmp_path / "runs"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.mlflow_artifact_location == f"file://{tmp_path}/mlartifacts"
    assert (settings.mode, settings.durability, settings.capture) == ("online", "interval", "copy")
    assert (settings.strict, settings.redact, settings.experiment_id) == (False, True, None)
    assert (settings.capture_max_mb, settings.close_timeout_s, settings.start_timeout_s) == (256, 10, 30)


def test_our_own_variable_for_mlflow_stands_above_mlflows() -> None:
    """``MLFLOW_TRACKING_URI`` counts where ours is not set."""
    both = {"LEZEA_MLFLOW_TRACKING_URI": "http://ours:5000", "MLFLOW_TRACKING_URI": "http://theirs:5000"}
    assert load_settings(environ=both).mlflow_tracking_uri == "http://ours:5000"
    del both["LEZEA_MLFLOW_TRACKING_URI"]
    assert load_settings(environ=both).mlflow_tracking_uri == "http://theirs:5000"


def test_a_server_decides_by_itself_where_artifacts_are() -> None:
    """Only a local store gets a place for artifacts."""
    assert load_settings(environ={"MLFLOW_TRACKING_URI": "http://host:5000"}).mlflow_artifact_location is None


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping of variables those of the process count."""
    monkeypatch.setenv("LEZEA_MODE", "offline")
    assert load_settings().mode == "offline"


def test_complete_settings_are_taken_as_they_are() -> None:
    """Settings that were loaded once mean the same in any environment; single arguments still stand above them."""
    settings = load_settings(environ={"LEZEA_MODE": "offline"})
    environ = {f"LEZEA_{name.upper()}": text for name, (text, _) in OTHERS.items()}
    assert load_settings(settings, environ) == settings
    assert load_settings(settings, environ, durability="record").durability == "record"


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///x.db", "sqlite:///{here}/x.db"), ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("mlruns", "{here}/mlruns"), ("/data/mlruns", "/data/mlruns"), ("http://h:5000", "http://h:5000"),
        (" https://h ", "https://h"), ("databricks", "databricks"), ("databricks://profile", "databricks://profile"),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db"),
    ],
)  # fmt: skip
def test_relative_stores_become_absolute(tmp_path: Path, uri: str, absolute: str) -> None:
    """A store that is a path is bound to the folder of now; a server, or what MLflow knows by name, stays."""
    assert load_settings({"mlflow_tracking_uri": uri}, {}).mlflow_tracking_uri == absolute.format(
        here=tmp_path
    )


def test_a_later_chdir_changes_nothing(tmp_path: Path) -> None:
    """All paths are absolute: settings mean the same after the program went elsewhere."""
    environ = {
        "LEZEA_RUNS_DIR": "r",
        "LEZEA_MLFLOW_TRACKING_URI": "sqlite:///m.db",
        "LEZEA_MLFLOW_ARTIFACT_LOCATION": "a",
    }
    settings = load_settings(environ=environ)
    assert settings.runs_dir == tmp_path / "r"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/m.db"
    assert settings.mlflow_artifact_location == f"{tmp_path}/a"
    os.chdir("/")
    assert load_settings(settings) == settings


def test_home_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` in the folder of runs is the user's home."""
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_settings(runs_dir="~/runs", environ={}).runs_dir == Path("/home/ada/runs")


# Setting, bad value, what the message must say of what is allowed.
BAD: list[tuple[str, Any, str]] = [
    ("mode", "on", "must be one of online, offline, off"),
    ("mode", 1, "must be one of online, offline, off"),
    ("durability", "fsync", "must be one of process, interval, record"),
    ("capture", "link", "must be one of copy, reference"),
    ("courier", "fork", "must be one of process, thread"),
    ("strict", "maybe", "must be one of 1, true, yes, on, 0, false, no, off"),
    ("redact", 2, "must be one of 1, true, yes, on, 0, false, no, off"),
    ("capture_max_mb", "-1", "must be a number, zero or above"),
    ("capture_max_mb", "big", "must be a number, zero or above"),
    ("close_timeout_s", "nan", "must be a number, zero or above"),
    ("start_timeout_s", "inf", "must be a number, zero or above"),
    ("close_timeout_s", [1], "must be a number, zero or above"),
    ("runs_dir", 5, "must be the path of a folder"),
    ("mlflow_tracking_uri", "  ", "must be a URI such as http://host:5000"),
    ("mlflow_tracking_uri", 5, "must be a URI such as http://host:5000"),
    ("experiment_id", "a/b", "must be 1 to 128 ASCII letters"),
    ("experiment_id", "..", "must be 1 to 128 ASCII letters"),
    ("experiment_id", "ü", "must be 1 to 128 ASCII letters"),
    ("experiment_id", "x" * 129, "must be 1 to 128 ASCII letters"),
    ("experiment_id", 7, "must be 1 to 128 ASCII letters"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_value_is_named_with_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    """The message begins with the setting and its value, also where the value stands in a variable."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings({name: value}, {})
    assert str(raised.value).startswith(f"{name} is {value!r}; it {allowed}")
    if isinstance(value, str):
        variable = f"LEZEA_{name.upper()}"
        with pytest.raises(ConfigurationError) as raised:
            load_settings(environ={variable: value})
        assert str(raised.value).startswith(f"{variable} is {value!r}; it {allowed}")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runsdir": "x"}, "settings has the unknown name 'runsdir'; did you mean 'runs_dir'?"),
        (
            {"tracking_uri": "x"},
            "settings has the unknown name 'tracking_uri'; did you mean 'mlflow_tracking_uri'?",
        ),
        ({"zzz": "x"}, "settings has the unknown name 'zzz'; known are runs_dir, mlflow_tracking_uri"),
        ({5: "x"}, "settings has the unknown name 5; known are runs_dir"),
        ("mode=off", "settings is 'mode=off'; it must be a mapping of names to values"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(settings: Any, said: str) -> None:
    """So a slip of the pen is found at once."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings(settings, {})
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_flags_have_the_usual_words(word: str) -> None:
    """In any case of letters."""
    assert load_settings(environ={"LEZEA_STRICT": word}).strict is True


def test_the_tracker_takes_its_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variable reaches the tracker, and an argument of its constructor stands above it."""
    monkeypatch.setenv("LEZEA_MODE", "offline")
    monkeypatch.setenv("LEZEA_RUNS_DIR", "from-environment")
    monkeypatch.setenv("LEZEA_EXPERIMENT_ID", "shared")
    assert ExperimentTracker("Demo").run_dir == tmp_path / "from-environment" / "shared"
    assert (
        ExperimentTracker("Demo", runs_dir="given", experiment_id="own").run_dir == tmp_path / "given" / "own"
    )


# ------------------------------------------------------------------------------------------- configs/lezea.env

# Of `lezea up`, not of a tracker.
OF_SERVERS = {"LEZEA_MONGOD"}


def proposed() -> dict[str, str]:
    """Return the variables of the file as they would be, uncommented."""
    return dict(re.findall(r"^#(LEZEA_\w+)=(.*)$", ENV_FILE.read_text(), flags=re.MULTILINE))


def test_the_file_names_every_variable_and_no_other() -> None:
    """Each setting has its variable in the file, and each variable of the file is a setting."""
    known = {f"LEZEA_{field.name.upper()}" for field in fields(Settings)}
    assert proposed().keys() == known | OF_SERVERS


def test_the_values_in_the_file_are_the_defaults() -> None:
    """Uncommenting all of it changes nothing, as its head says."""
    values = proposed()
    # The file names a folder, the default is the same folder as a URI.
    assert load_settings(environ={"LEZEA_MLFLOW_ARTIFACT_LOCATION": values.pop("LEZEA_MLFLOW_ARTIFACT_LOCATION")}
                         ).mlflow_artifact_location == str(Path("mlartifacts").absolute())  # fmt: skip
    assert load_settings(environ=values) == load_settings(environ={})


def test_sourcing_the_file_changes_nothing(tmp_path: Path) -> None:
    """Every line is a comment until a person uncomments it; then it is exported."""
    show = f"set -a; . {ENV_FILE}; set +a; env -0"
    plain = {"PATH": os.environ["PATH"]}
    before = subprocess.run(["bash", "-c", "env -0"], env=plain, check=True, capture_output=True).stdout
    after = subprocess.run(["bash", "-c", show], env=plain, check=True, capture_output=True).stdout
    assert (
        {e for e in after.split(b"\0") if b"LEZEA" in e}
        == {e for e in before.split(b"\0") if b"LEZEA" in e}
        == set()
    )
    changed = tmp_path / "own.env"
    changed.write_text(ENV_FILE.read_text().replace("#LEZEA_MODE=online", "LEZEA_MODE=offline"))
    exported = subprocess.run(
        ["bash", "-c", show.replace(str(ENV_FILE), str(changed))], env=plain, check=True, capture_output=True
    )
    assert b"LEZEA_MODE=offline" in exported.stdout.split(b"\0")


def test_a_uri_that_cannot_be_read_is_a_configuration_error() -> None:
    """The error names the setting, the value and what is expected, also where the library below says less."""
    with pytest.raises(ConfigurationError, match=r"mlflow_tracking_uri is 'http://\[bad', which is no URI"):
        load_settings({"mlflow_tracking_uri": "http://[bad"})
