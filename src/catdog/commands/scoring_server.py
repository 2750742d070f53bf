"""MLflow's scoring server with a limit on requests. `catdog serve` starts it on a verified model."""

import os
from pathlib import Path
from typing import Any

from mlflow.pyfunc import scoring_server

from catdog.commands.body_limit import BodyLimit
from catdog.tracking import served_form

FOLDER = "CATDOG_MODEL_FOLDER"
MOST_BYTES = 128 << 20  # of a request: 90 MiB of photographs in base64, and the JSON around them


def create() -> Any:
    """The ASGI application that serves the model in the folder that the environment variable FOLDER names."""
    app = scoring_server.init(served_form.answering(Path(os.environ[FOLDER])))
    app.add_middleware(BodyLimit, most=MOST_BYTES)
    return app
