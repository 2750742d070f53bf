"""Every path of dvc.yaml, once. All are relative to the project's root, where DVC runs the stages."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")

RAW = Path("data/raw")
CORRECTIONS = Path("data/corrections.csv")
PREPARED = Path("data/prepared")
TRAIN = PREPARED / "train.arrow"
VAL = PREPARED / "val.arrow"
TEST = PREPARED / "test.arrow"
SET_ASIDE = PREPARED / "neither.arrow"  # photographs that a person found to be of neither class
MANIFEST = PREPARED / "manifest.csv"
AUGMENTED = Path("data/augmented")
AUGMENTED_TRAIN = AUGMENTED / "train.arrow"
FEATURES = Path("data/features")

MODELS = Path("models")
MODEL_FILE = "model.keras"
RUN_FILE = "run.json"
SEEDS_FILE = "seeds.npz"  # beside the model: what the same training comes to from other seeds

# What a training needs to go on after a kill. Not a DVC output: DVC removes those before a stage runs.
CHECKPOINTS = Path("data/checkpoints")

METRICS = Path("metrics")
DATA_METRICS = METRICS / "data.json"
EVALUATION = METRICS / "evaluation.json"
PLOTS = Path("plots")
SIZES = PLOTS / "sizes.png"
PHOTOGRAPHS = (PLOTS / "photographs_0.png", PLOTS / "photographs_1.png")  # by class; class names are a param
REFUSED = PLOTS / "refused.png"
NEAR_DUPLICATES = PLOTS / "near_duplicates.png"
DATA_PICTURES = {path.stem: path for path in (SIZES, *PHOTOGRAPHS, REFUSED, NEAR_DUPLICATES)}
AUGMENTED_SHEET = PLOTS / "augmented.png"
TRANSFORMS_SHEET = PLOTS / "transforms.png"
MISTAKES = PLOTS / "mistakes.csv"
SUSPECTS = PLOTS / "suspects.csv"
SUSPECTS_SHEET = PLOTS / "suspects.png"
REPORT = Path("reports/comparison.html")
FINDINGS = Path("reports/comparison.json")
DRIFT = Path("reports/drift.html")
REPLAY = Path("reports/replay.png")


def model(name: str) -> Path:
    """The folder of a trained model, `cnn` or `xception`."""
    return MODELS / name


def train_metrics(name: str) -> Path:
    return METRICS / f"train_{name}.json"


def history(name: str) -> Path:
    return PLOTS / f"history_{name}.csv"


def checkpoint(name: str) -> Path:
    return CHECKPOINTS / f"{name}.npz"


def open_run(name: str) -> Path:
    return CHECKPOINTS / f"{name}.json"


def root() -> Path:
    """The project's root: the nearest folder upwards that has a dvc.yaml, else the current one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), here)


def original() -> Path:
    """The root of the lasting project. DVC runs queued experiments in copies of it, which it deletes afterwards."""
    return Path(os.environ.get("DVC_ROOT") or root())
