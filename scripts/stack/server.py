"""A Prometheus server of this machine with the stack's own configuration, on another port and at a quicker pace."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lezea_mlops.servers.process import HOST, Program, end, free_port, last_lines, launch, lives
from scripts.stack.static import ALERTS, CONFIG

ADDRESS = "127.0.0.1:9090"
TARGETS = "/targets/"
START_S = 60.0
END_S = 20.0
ANSWER_S = 20.0
POLL_S = 0.1

Json = dict[str, Any]


class PrometheusError(Exception):
    """The server is missing, does not start, or refuses a question."""


class PrometheusServer:
    """``prometheus`` with the configuration of this repository, as a context.

    Args:
        folder: where it keeps everything.
        targets: the folder in which trackers say where they listen.
        pace_s: how often it scrapes, evaluates rules and looks for targets; a target has as long to answer.
    """

    def __init__(self, folder: Path, targets: Path, pace_s: int = 2) -> None:
        self._folder, self._targets, self._pace_s = folder, targets, pace_s
        self._port = free_port()
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> PrometheusServer:
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("prometheus is not here: on Debian and Ubuntu, apt-get install prometheus")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(self._config(), encoding="utf-8")
        command = [
            program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={HOST}:{self._port}", "--log.level=warn",
        ]  # fmt: skip
        self._log = self._folder / "prometheus.log"
        self._process = launch(Program(command, self._folder, self._log, {}), bound=True)
        self._wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end([self._process], END_S)

    def _config(self) -> str:
        text = CONFIG.read_text(encoding="utf-8")
        for there, here in ((TARGETS, f"{self._targets}/"), (ADDRESS, f"{HOST}:{self._port}")):
            if there not in text:
                raise PrometheusError(f"{CONFIG} does not name {there} any more; adapt {__name__}")
            text = text.replace(there, here)
        config = yaml.safe_load(text)
        pace = f"{self._pace_s}s"
        config["global"] |= {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace}
        config["rule_files"] = [str(ALERTS.parent / name) for name in config["rule_files"]]
        for job in config["scrape_configs"]:
            for discovery in job.get("file_sd_configs", ()):
                discovery["refresh_interval"] = pace
        return str(yaml.safe_dump(config))

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up and lives(self._process):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=ANSWER_S):
                    return
            except OSError:
                # It says that it is ready by answering, and in no other way.
                time.sleep(POLL_S)
        said = "\n".join(last_lines(self._log))
        end([self._process], END_S)
        raise PrometheusError(f"Prometheus does not start; it said:\n{said}")

    def ask(self, path: str, **fields: str) -> Any:
        """Return ``data`` of an answer of its HTTP interface.

        Raises:
            PrometheusError: it refuses the question; the text says why.
        """
        body = urllib.parse.urlencode(fields)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{body}", timeout=ANSWER_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(json.load(error).get("error", str(error))) from None

    def now(self, expr: str) -> list[Json]:
        """Return the series of *expr* at this moment."""
        answer = self.ask("query", query=expr)
        # A question for a plain number has one answer and no labels.
        return [{"metric": {}}] if answer["resultType"] == "scalar" else list(answer["result"])

    def over(self, expr: str, back_s: int, step_s: int) -> list[Json]:
        """Return the series of *expr* over the last seconds, as a panel that shows lines asks for them."""
        moment = time.time()
        answer = self.ask(
            "query_range", query=expr, start=f"{moment - back_s:.3f}", end=f"{moment:.3f}", step=f"{step_s}s"
        )
        return list(answer["result"])

    def value(self, expr: str) -> float | None:
        """Return the one value of *expr* at this moment; None if there is none."""
        found = self.now(expr)
        return float(found[0]["value"][1]) if found else None
