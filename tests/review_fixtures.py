"""A project of twenty small photographs, six of them suspects, and the page of `catdog review` as a client has it."""

import base64
import csv
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, jpeg
from served_fixtures import brightness
from starlette.testclient import TestClient

from catdog.commands import review
from catdog.feedback import reviewing
from catdog.feedback.reviewing import Item
from catdog.feedback.session import Session
from catdog.photographs import shards
from catdog.preparation import corrections

CLASSES = ["cat", "dog"]
CORRECTIONS, RAW = Path("data/corrections.csv"), Path("data/raw")
SUSPECTS = [7, 2, 15, 11, 4, 19]  # numbers of photographs, the most doubtful first
SPLITS = {"train": range(14), "val": range(14, 17), "test": range(17, 20)}
JUDGES = [SimpleNamespace(kind=kind, classifier=brightness()) for kind in ("cnn", "xception")]


def identity(number: int) -> str:
    return hashlib.sha256(jpeg(number)).hexdigest()


def source(number: int) -> str:
    return f"photos.zip/{CLASSES[number % 2].title()}/{number}.jpg"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The project, as the current folder; dogs have odd numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, name)
    Path("data/prepared").mkdir(parents=True)
    Path("plots").mkdir()
    rows = [["id", "source", "label", "reason", "filed"]]
    for split, numbers in SPLITS.items():
        photographs = [shards.Row(identity(n), source(n), n % 2, jpeg(n), identity(n)) for n in numbers]
        shards.write(Path(f"data/prepared/{split}.arrow"), photographs)
        rows += [[identity(n), source(n), CLASSES[n % 2], "", CLASSES[n % 2]] for n in numbers]
    save("data/prepared/manifest.csv", rows)
    suspected(SUSPECTS)
    return tmp_path


def save(path: str, rows: list[list]) -> None:
    with Path(path).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def suspected(numbers: list[int], *more: str) -> None:
    """Write plots/suspects.csv; `more` are ids of photographs that are not there."""
    rows = [[identity(n), source(n), CLASSES[n % 2], f"0.0{place}1"] for place, n in enumerate(numbers)]
    rows += [[each, "gone.jpg", "cat", "0.4"] for each in more]
    save("plots/suspects.csv", [["id", "source", "label", "confidence"], *rows])


def recorded() -> list[tuple[str, str, str, str]]:
    """The rows of the corrections: id, decision, by, why."""
    found = corrections.load(CORRECTIONS, CLASSES).values()
    return [(row.id, row.decision, row.by, row.why) for row in found]


def session_of(items: list[Item]) -> Session:
    return Session(items, file=CORRECTIONS, raw=RAW, classes=CLASSES, by="ann")


def application(session: Session):
    return review.create(session, judges=lambda: JUDGES, classes=CLASSES, confidence=0.95, hosts=["127.0.0.1"])


@pytest.fixture
def session(project, knobs) -> Session:
    return session_of(reviewing.queue(knobs).items)


class Tab:
    """The page as a client has it: what it shows, and what it sends."""

    def __init__(self, session: Session) -> None:
        self.client = TestClient(application(session), base_url="http://127.0.0.1", raise_server_exceptions=False)
        self.get()

    def get(self) -> dict:
        return self._keep(self.client.get("/now"))

    def post(self, what: str, token: str | None, decision: str = "", status: int = 200) -> dict:
        answer = self.client.post(f"/{what}", json={"photograph": token, "decision": decision})
        assert answer.status_code == status, answer.text
        return self._keep(answer)

    def decide(self, decision: str, *, status: int = 200) -> dict:
        return self.post("decision", self.token, decision, status)

    def undo(self, *, status: int = 200) -> dict:
        return self.post("undo", self.state["undo"], status=status)

    @property
    def shown(self) -> bytes:
        """The JPEG."""
        return base64.b64decode(self.state["photograph"]["address"].removeprefix("data:image/jpeg;base64,"))

    def _keep(self, answer) -> dict:
        said = answer.json()
        if "progress" in said:
            self.state, self.token = said, said["photograph"] and said["photograph"]["token"]
        return said
