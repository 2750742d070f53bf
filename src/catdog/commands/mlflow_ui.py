"""MLflow's UI in this very process, so that what ends it leaves nothing behind."""

import os
import sys
from typing import Any, NoReturn


def become(store: str, *, host: str, port: int) -> NoReturn:
    """Go on as MLflow's server on the tracking store `store`, with the settings of `mlflow ui`.

    `mlflow ui` starts its server as a child, and that server four more. They stay when it is killed, or by SIGHUP. For
    one person one process is enough.
    """
    # Without this, seven idle worker processes start beside the server.
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": store}
    import mlflow.cli
    import mlflow.server

    def instead(command: list[str], *, extra_env: dict[str, str], **_: Any) -> Any:
        sys.stdout.flush()
        os.execve(command[0], command, {**os.environ, **extra_env})

    vars(mlflow.server)["_exec_cmd"] = instead
    mlflow.cli.cli(["ui", "--backend-store-uri", store, "--host", host, "--port", str(port), "--workers", "1"])
    raise SystemExit(1)
