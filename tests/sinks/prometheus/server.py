"""A real Prometheus server on loopback, with a configuration and data of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from lezea_mlops.servers.process import Program, free_port, launch
from tests.conftest import missing

START_S = 60
# How long what must come sooner or later may take.
ANSWER_S = 60
CONFIGURATION = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: lezea
    file_sd_configs:
      - files: ["{targets}/*.json"]
        refresh_interval: 1s
"""


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; a test that needs it is left out where it is not."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} (the Debian package prometheus)")
    return str(path)


def promtool(*arguments: str, told: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run promtool with *told* as its input."""
    return subprocess.run([program("promtool"), *arguments], input=told, capture_output=True)


class PrometheusServer:
    """A server that watches a folder for the processes to scrape; it ends with this process at the latest.

    Args:
        folder: for its configuration, data and log.
        targets: the folder that it watches.
        configuration: text of its configuration, where ``{targets}`` stands for that folder.
    """

    def __init__(self, folder: Path, targets: Path, configuration: str = CONFIGURATION) -> None:
        self.folder, self.targets = folder, targets
        self.uri = f"http://127.0.0.1:{free_port()}"
        self._configuration = configuration.replace("{targets}", str(targets))
        self._process: psutil.Popen | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "prometheus.yml"
        configuration.write_text(self._configuration)
        command = [
            program("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.uri.removeprefix('http://')}", "--log.level=warn",
        ]  # fmt: skip
        self._process = launch(Program(command, self.folder, self.folder / "log.txt", {}), bound=True)
        self.wait_until(self._is_ready, START_S)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def query(self, expression: str, at_s: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that *expression* has now, or had *at_s*."""
        when = {} if at_s is None else {"time": repr(at_s)}
        found = self._get("query", query=expression, **when)["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def first_stored_s(self, name: str) -> float | None:
        """Return the time of the first scrape that brought a series of this name; None before it."""
        found = self._get("query", query=f"{name}[1h]")["data"]["result"]
        return min((float(series["values"][0][0]) for series in found), default=None)

    def targets_up(self) -> set[str]:
        """Return the addresses that were scraped well the last time."""
        active = self._get("targets", state="active")["data"]["activeTargets"]
        return {target["labels"]["instance"] for target in active if target["health"] == "up"}

    def troubles(self) -> list[str]:
        """Return what it says of its targets that could not be scraped."""
        active = self._get("targets", state="active")["data"]["activeTargets"]
        return [target["lastError"] for target in active if target["lastError"]]

    def wait_until(self, holds: Callable[[], Any], within_s: float = ANSWER_S) -> None:
        """Wait until *holds* says something true, and see to it that the server lives as long."""
        assert self._process is not None
        give_up = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < give_up, f"not within {within_s} s; {self._said()}"
            with contextlib.suppress(psutil.TimeoutExpired):
                raise AssertionError(f"it ended with {self._process.wait(0.05)}; {self._said()}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Mapping[str, Any]:
        with urllib.request.urlopen(
            f"{self.uri}/api/v1/{path}?{urlencode(parameters)}", timeout=30
        ) as answer:
            told: Mapping[str, Any] = json.load(answer)
        return told

    def _said(self) -> str:
        return f"its log ends with: {(self.folder / 'log.txt').read_text()[-2_000:]}"
