"""MLflow's tracking server, with a SQLite store and the artifacts in one folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from lezea_mlops.servers.process import HOST
from lezea_mlops.servers.server import Server

_ANSWER_S = 5.0


class MlflowServer(Server):
    """An ``mlflow server`` of this machine."""

    name = "mlflow"
    title = "MLflow"
    default_port = 5000
    start_s = 120.0
    variable = "LEZEA_MLFLOW_TRACKING_URI"

    @property
    def tracker_uri(self) -> str:
        """Return the address of its API, which is also that of its pages."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        """Return MLflow's own command, run by this interpreter."""
        return [
            # One worker answers many clients at once, and SQLite takes one writer at a time.
            sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """Return that nothing is reported to its makers, and that the processes of jobs are not needed."""
        return {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def ready(self) -> bool:
        """Tell whether it says that it is healthy."""
        # Here, for it takes longer to load than most commands to run.
        import urllib.request

        # What stands between this machine and the world has no business between this machine and itself.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.tracker_uri}/health", timeout=_ANSWER_S):
                return True
        except OSError:
            return False
