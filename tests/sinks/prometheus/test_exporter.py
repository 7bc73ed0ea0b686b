"""One HTTP server per process: views come and go, ports are found and given back, and nothing of it raises."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from lezea_mlops.servers.process import free_port
from lezea_mlops.sinks.prometheus import Exporter, LiveView
from lezea_mlops.sinks.prometheus import exporter as module
from lezea_mlops.sinks.prometheus.server import ScrapeServer
from tests.sinks.prometheus.pages import Feeder, full_view, get, series_in

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on loopback at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield somebody.getsockname()[1]


def is_free(port: int) -> bool:
    """Tell whether a program can listen there at once."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def test_a_page_is_served_on_loopback(exporter: Exporter) -> None:
    """Any free port is found where 0 is asked for, and the answer is what the views show."""
    exporter.add(full_view())
    place = exporter.serve(0)
    assert place is not None
    assert place[0] == "127.0.0.1"
    assert series_in(get(place))["lezea_training_step"] == {(): 7}


def test_the_answer_says_what_it_is_and_how_long(exporter: Exporter) -> None:
    """The text format of Prometheus, with a length, so that a part of it is not taken for the whole."""
    exporter.add(full_view())
    place = exporter.serve(0)
    assert place is not None
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection(*place, timeout=30)
        connection.request(method, "/metrics")
        answer = connection.getresponse()
        length = int(answer.headers["Content-Length"])
        assert (answer.status, len(answer.read())) == (200, length if method == "GET" else 0)
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        connection.close()


def test_another_address_is_used_if_it_is_asked_for(exporter: Exporter) -> None:
    """Also one of IPv6."""
    exporter.add(full_view())
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    place = exporter.serve(0, "::1")
    assert place is not None
    assert get((f"[{place[0]}]", place[1])).startswith(b"# HELP")


def test_the_wanted_port_is_used_where_it_is_free(exporter: Exporter) -> None:
    """A person finds it where the documents say it is."""
    port = free_port()
    assert exporter.serve(port) == ("127.0.0.1", port)
    assert is_free(port) is False


def test_a_port_that_is_taken_leads_to_the_next_free_one(exporter: Exporter, taken: int) -> None:
    """Without a word, since every second run of a host meets it."""
    place = exporter.serve(taken)
    assert place is not None
    assert taken < place[1] <= taken + 100


def test_where_no_port_is_free_nothing_is_served_and_it_is_said_once(
    exporter: Exporter, taken: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run is never stopped by its own observation."""
    monkeypatch.setattr(module, "FURTHER_PORTS", 0)
    exporter.add(full_view())
    assert exporter.serve(taken) is None
    assert len(caplog.messages) == 1
    assert f"neither port {taken} of 127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("port", "address"), [(0, "203.0.113.7"), (0, "no such host.invalid"), (70_000, "127.0.0.1")]
)
def test_what_can_never_be_listened_at_is_one_warning(
    exporter: Exporter, caplog: pytest.LogCaptureFixture, port: int, address: str
) -> None:
    """An address of another machine, a name that nobody knows, a number that is no port."""
    assert exporter.serve(port, address) is None
    assert len(caplog.messages) == 1


WITHOUT_RIGHTS = """
import logging, os, sys
from lezea_mlops.sinks.prometheus import Exporter
import prometheus_client
os.setuid(65534)
logging.basicConfig(format="%(message)s")
place = Exporter.of_this_process().serve(80)
print(place[1])
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root, to give it up")
def test_a_port_that_takes_more_rights_is_one_warning(run_python: RunPython) -> None:
    """The page is served from port 8000 on instead."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("on this machine anybody may listen at port 80")
    done = run_python(WITHOUT_RIGHTS)
    assert 8000 <= int(done.stdout) <= 8100
    assert done.stderr.splitlines() == [
        "port 80 takes more rights than this process has; Prometheus is served from port 8000 on"
    ]


def test_an_address_that_cannot_be_had_is_not_tried_at_other_ports(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take a question to a DNS that does not answer."""
    tried = []

    def refuse(self: ScrapeServer) -> None:
        tried.append(self.server_address)
        raise OSError(errno.EADDRNOTAVAIL, "not an address of this machine")

    monkeypatch.setattr(ScrapeServer, "server_bind", refuse)
    assert exporter.serve(8000, "203.0.113.7") is None
    assert tried == [("203.0.113.7", 8000)]


def test_no_rights_for_any_port_is_no_error(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A system that lets nobody listen: two warnings tell it, and no server is there."""

    def refuse(self: ScrapeServer) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(ScrapeServer, "server_bind", refuse)
    assert exporter.serve(80) is None
    assert len(caplog.messages) == 2


def test_an_interpreter_that_starts_no_thread_is_no_error(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As at its own end: the port is given back."""
    port = free_port()

    def refuse(self: ScrapeServer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ScrapeServer, "start", refuse)
    assert exporter.serve(port) is None
    assert is_free(port)
    assert "no thread can be started" in caplog.text


def test_a_missing_library_is_one_warning(run_python: RunPython) -> None:
    """It says what to install."""
    done = run_python(
        "import importlib.util as util, logging\n"
        "logging.basicConfig(format='%(message)s')\n"
        "find = util.find_spec\n"
        "import lezea_mlops._lazy as lazy\n"
        "lazy.find_spec = lambda name: None if name == 'prometheus_client' else find(name)\n"
        "from lezea_mlops.sinks.prometheus import Exporter\n"
        "print(Exporter.of_this_process().serve(0))\n"
    )
    assert done.stdout == "None\n"
    assert "pip install 'prometheus-client'" in done.stderr


def test_two_runs_of_a_process_share_one_server(exporter: Exporter) -> None:
    """Their series stand on one page, apart by the label ``run``, with one explanation for each name."""
    exporter.add(full_view("run-1"))
    place = exporter.serve(0)
    exporter.add(full_view("run-2"))
    assert exporter.serve(0) == exporter.serve(free_port(), "0.0.0.0") == place
    page = get(place).decode()
    assert page.count("# TYPE lezea_training_step gauge\n") == 1
    step = 'lezea_training_step{{run="{}"}} 7.0'
    assert f"{step.format('run-1')}\n{step.format('run-2')}\n" in page


def test_of_two_views_of_a_run_the_later_one_is_shown(exporter: Exporter) -> None:
    """A run that is resumed in the same process has no series twice."""
    earlier, later = LiveView("run-1"), full_view("run-1")
    Feeder(earlier)("training_step", step=3, metrics={})
    exporter.add(earlier)
    exporter.add(later)
    assert series_in(get(exporter.serve(0)))["lezea_training_step"] == {(): 7}


def test_with_the_last_view_the_server_ends_and_its_port_is_free_at_once(exporter: Exporter) -> None:
    """And the next run may have it."""
    views = [full_view("run-1"), full_view("run-2")]
    port = free_port()
    for _round in range(5):
        for view in views:
            exporter.add(view)
        assert exporter.serve(port) == ("127.0.0.1", port)
        exporter.remove(views[0])
        assert b'run="run-1"' not in get(("127.0.0.1", port))
        exporter.remove(views[1])
        assert is_free(port)


def test_removing_twice_and_removing_what_was_never_shown_is_nothing(exporter: Exporter) -> None:
    """The end of a run comes by several ways."""
    view = full_view()
    exporter.remove(view)
    exporter.add(view)
    exporter.remove(view)
    exporter.remove(view)
    assert exporter.views == ()


class BrokenView:
    """A view that raises in the middle of its series."""

    run_id = "broken"

    def collect(self) -> Iterator[Metric]:
        """Yield one family, then raise."""
        yield GaugeMetricFamily("lezea_training_step", "Half of a view.", value=1)
        raise ValueError("no more")


def test_a_view_that_raises_leaves_the_others_alone(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out whole, counted each time, and told of once."""
    exporter.add(BrokenView())
    exporter.add(full_view("run-1"))
    place = exporter.serve(0)
    for _scrape in range(3):
        assert b"run-1" in get(place)
    assert b"Half of a view" not in get(place)
    assert exporter.failures == {"broken": 4}
    assert len(caplog.messages) == 1
    assert "the run broken is missing" in caplog.text


def test_scrapes_are_whole_while_views_come_and_go(exporter: Exporter) -> None:
    """Whoever is answered gets a whole page, also while runs log, begin and end, and the server with them."""
    served, ended = threading.Event(), threading.Event()
    places: list[tuple[str, int] | None] = []
    wrong: list[bytes] = []
    answered: list[int] = []
    answers = threading.Semaphore(0)

    def scrape() -> None:
        while served.wait() and not ended.is_set():
            try:
                page = get(places[-1])
            except (OSError, http.client.HTTPException):
                # It has just ended.
                continue
            # What each view shows first and last; without a view there is nothing.
            views = page.count(b"\nlezea_run_running{")
            whole = page.count(b"\nlezea_series_dropped{") == views and page.endswith(b"\n") == bool(views)
            answered.append(views)
            if not whole:
                wrong.append(page)
            answers.release()

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _round in range(20):
        views = [full_view(f"run-{index}") for index in range(3)]
        for view in views:
            exporter.add(view)
            places.append(exporter.serve(0))
            served.set()
            feed = Feeder(view)
            for step in range(50):
                feed("training_step", step=100 + step, metrics={f"m{step}": 1.0})
            assert answers.acquire(timeout=60)
        for view in views:
            exporter.remove(view)
        served.clear()
    ended.set()
    served.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert exporter.failures == {}
    assert {1, 2, 3} & set(answered)


def test_who_connects_and_asks_nothing_keeps_nobody_waiting(exporter: Exporter) -> None:
    """Others are answered meanwhile, and the end does not wait for it."""
    view = full_view()
    exporter.add(view)
    place = exporter.serve(0)
    assert place is not None
    with socket.create_connection(place):
        assert get(place).startswith(b"# HELP")
        exporter.remove(view)
        assert is_free(place[1])


def test_a_client_that_goes_away_is_not_printed(
    exporter: Exporter, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A library never prints; whoever looks for it finds it in the log."""
    caplog.set_level(logging.DEBUG, "lezea_mlops")
    view = full_view()
    asked, gone = threading.Event(), threading.Event()

    class SlowView:
        run_id = "slow"

        def collect(self) -> Iterator[Metric]:
            asked.set()
            gone.wait(30)
            yield GaugeMetricFamily("lezea_metric", "x" * 10_000_000, value=1)

    exporter.add(SlowView())
    place = exporter.serve(0)
    assert place is not None
    with socket.create_connection(place) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert asked.wait(30)
    gone.set()
    exporter.add(view)
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join()
    assert capfd.readouterr() == ("", "")
    assert "was not answered" in caplog.text


EIGHT = """
import sys
from lezea_mlops.sinks.prometheus import Exporter
sys.path.insert(0, {root!r})
from tests.sinks.prometheus.pages import full_view
exporter = Exporter.of_this_process()
exporter.add(full_view(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(exporter.serve({port})[1], flush=True)
sys.stdin.readline()
"""


def test_eight_processes_of_a_host_that_want_one_port_have_one_each(tmp_path: Path) -> None:
    """All start at the same moment, and each serves its own run."""
    root = str(Path(__file__).resolve().parents[3])
    code = EIGHT.format(root=root, port=free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"run-{index}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": root},
        )
        for index in range(8)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ports = [int(process.stdout.readline()) for process in processes if process.stdout]
        assert len(set(ports)) == 8
        for index, port in enumerate(ports):
            assert f'run="run-{index}"'.encode() in get(("127.0.0.1", port))
    finally:
        for process in processes:
            process.communicate("\n")


def test_the_exporter_of_a_process_is_one() -> None:
    """Whoever asks for it gets the same."""
    assert Exporter.of_this_process() is Exporter.of_this_process()


FORKS = """
import os, sys
from lezea_mlops.sinks.prometheus import Exporter, LiveView
exporter = Exporter.of_this_process()
exporter.add(LiveView("run-1"))
port = exporter.serve(0)[1]
# Another thread may be asking for the exporter at this moment.
with Exporter._guard:
    child = os.fork()
if child:
    os._exit(1)
other = Exporter.of_this_process()
assert other is not exporter and other.views == ()
print(port, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_keeps_no_port() -> None:
    """When its parent is killed the port is free although the child lives, and the child has nothing to show."""
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": root},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert parent.wait() == 1
        # The child lives until its input ends.
        assert is_free(port)


def test_importing_it_loads_neither_the_library_nor_a_server(run_python: RunPython) -> None:
    """A run that serves nothing pays nothing for it."""
    run_python(
        "import sys, lezea_mlops.sinks.prometheus as p; p.LiveView('x'); p.Exporter.of_this_process()\n"
        "assert not {'prometheus_client', 'http.server'} & set(sys.modules)"
    )
