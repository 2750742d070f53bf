"""What stands around the results runs where Linux's own calls are missing, as on macOS or Windows."""

import os
import pkgutil
import subprocess
import sys

from conftest import ROOT

ROOMS = ("base", "feedback", "tracking", "commands")
# Libraries first: what they need is theirs.
WITHOUT = """
import importlib, os, signal, sys
from pathlib import Path
import cv2, dvc.repo, filelock, mlflow, pandas, sklearn.linear_model, uvicorn
sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["pwd"] = None
for name in ("getuid", "pread", "pwrite", "posix_fallocate", "sched_getaffinity", "O_DIRECTORY", "O_NOFOLLOW"):
    vars(os).pop(name, None)
del signal.SIGHUP
"""
MODULES = sorted(
    f"catdog.{room}.{module.name}"
    for room in ROOMS
    for module in pkgutil.iter_modules([str(ROOT / "src/catdog" / room)])
)
IMPORTING = """
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
WORKING = """
from catdog.base import files
from catdog.commands import listening
from catdog.feedback import decisions, log_files
from catdog.feedback.log_writer import Writer
from catdog.tracking import deployments, local_store
identity, corrections = "a" * 64, Path("data/corrections.csv")
for decision in ("cat", "dog"):
    of = {"by": "ann", "why": "suspect", "classes": ["cat", "dog"], "replace": True}
    written = decisions.append(corrections, identity, decision, **of)
decisions.undo(corrections, written.row)
print(corrections.read_text().count("\\n"))
Writer(Path("log"), version="catdog/1", classes=["cat", "dog"]).close()
for line in (b"one\\n", b"two"):
    log_files.append(Path("log"), "lines", line, sync=True)
log_files.append(Path("log"), "lines", b"three\\n")
print((Path("log") / "lines").read_bytes())
for address in ("sqlite:///mlflow.db", "http://127.0.0.1:5000"):
    with deployments.exclusive(address):
        print(deployments._lock_file(address).exists())
listening.end_on_signals()
"""


def run(code: str, *arguments: str, folder) -> str:
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_these_rooms_can_be_imported(tmp_path):
    run(IMPORTING, *MODULES, folder=tmp_path)


def test_decisions_logs_locks_and_servers_work(tmp_path):
    told = run(WORKING, folder=tmp_path).splitlines()
    assert told == ["2", repr(b"one\ntwo\nthree\n"), "True", "True"]
