"""``scripts/check_stack`` says what is wrong with the stack, and all is well with this one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from scripts.stack.check import main
from scripts.stack.live import Question, questions, target_problems
from scripts.stack.server import PrometheusError, PrometheusServer
from tests.conftest import missing


@pytest.fixture(autouse=True)
def programs() -> None:
    """The programs that it calls are here; without them the test is left out, loudly."""
    for program, package in (("promtool", "prometheus"), ("docker-compose", "docker-compose")):
        if shutil.which(program) is None:
            missing(f"{program} (Debian's package {package})")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrometheusServer]:
    """A Prometheus that has scraped a program with two series."""
    registry = CollectorRegistry()
    Counter("lezea_events", "Events.", ["run", "type"], registry=registry).labels("r1", "metric").inc()
    Gauge("lezea_run_running", "Running.", ["run"], registry=registry).labels("r1").set(1)
    exporter, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    targets = tmp_path / "targets"
    targets.mkdir()
    (targets / "one.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{exporter.server_port}"]}]))
    with PrometheusServer(tmp_path / "prometheus", targets, pace_s=1) as server:
        while not server.now('sum_over_time(up{job="lezea"}[1m]) > 2'):
            assert server.ask("targets", state="any")
        yield server
    exporter.shutdown()
    exporter.server_close()
    thread.join()


def asked(expr: str, *labels: str, optional: str = "") -> Question:
    """Return a question of a panel."""
    return Question("Board → Panel", expr, frozenset(labels), instant=False, optional=optional)


@pytest.mark.slow
def test_a_question_without_an_answer_is_found(server: PrometheusServer) -> None:
    """What no series answers, what is no question, and a series that lacks what it would be called by."""
    assert asked("sum by (type) (rate(lezea_events_total[5s]))", "type").problem(server) is None
    assert "no series answers lezea_nothing" in str(asked("lezea_nothing").problem(server))
    assert "parse error" in str(asked("sum by (").problem(server))
    assert "called by sink, which it lacks" in str(asked("lezea_run_running", "sink").problem(server))
    # What needs hardware that is not here may have no answer, and must be a question nevertheless.
    assert asked("lezea_gpu_power_watts", "gpu", optional="a GPU").problem(server) is None
    assert "parse error" in str(asked("lezea_gpu_power_watts[", optional="a GPU").problem(server))
    with pytest.raises(PrometheusError, match="unknown function"):
        server.value("no_function(up)")


def test_every_question_is_asked_with_its_variables_filled_in() -> None:
    """A dollar sign that is left would be a question that Grafana never sends."""
    found = questions("r1")
    assert len(found) > 50
    assert not [each.expr for each in found if "$" in each.expr]
    assert {each.place.partition(" → ")[0] for each in found} == {
        "Run overview", "Population and modifications", "Resources and costs", "Delivery health",
    }  # fmt: skip
    assert {each.optional for each in found} == {"", "a GPU"}


def test_a_target_that_only_its_owner_can_read_is_found(tmp_path: Path) -> None:
    """The server of the container is another user."""
    assert "no tracker says" in target_problems(tmp_path)[0]
    (tmp_path / "one.json").write_text("[]")
    tmp_path.chmod(0o755)
    (tmp_path / "one.json").chmod(0o644)
    assert target_problems(tmp_path) == []
    (tmp_path / "one.json").chmod(0o600)
    tmp_path.chmod(0o700)
    assert len(target_problems(tmp_path)) == 2


def test_an_option_that_is_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code for that."""
    assert main(["--nothing"]) == 2
    assert "--static" in capsys.readouterr().out


def test_the_files_of_the_stack_are_well(capsys: pytest.CaptureFixture[str]) -> None:
    """All that can be said of them without starting anything."""
    assert main(["--static"]) == 0
    said = capsys.readouterr().out
    assert said.count("good  ") == 6
    assert "all is well" in said


@pytest.mark.slow
# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_a_real_run_answers_every_question_of_every_panel_and_alert(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A tracker logs, a Prometheus with the stack's configuration scrapes it, and nothing that is asked is missing."""
    code = main([])
    assert code == 0, capsys.readouterr().out
