"""MLflow's scoring server with a limit on requests: what `catdog serve` starts, out of the folder of a verified model.

uvicorn imports it from that folder's own code, so nothing runs there that was not logged with the model.
"""

import os
from typing import Any

from mlflow.pyfunc import load_model, scoring_server

from catdog.commands.body_limit import BodyLimit

FOLDER = "CATDOG_MODEL_FOLDER"
MOST_BYTES = 128 << 20  # of a request: 90 MiB of photographs in base64, and the JSON around them


def create() -> Any:
    """The ASGI application that serves the model in the folder that the environment variable FOLDER names."""
    app = scoring_server.init(load_model(os.environ[FOLDER]))
    app.add_middleware(BodyLimit, most=MOST_BYTES)
    return app
