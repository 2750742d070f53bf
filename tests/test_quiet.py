"""What is no news is kept from the screen; whatever else a process says reaches it, to the last line."""

import os
import pty
import subprocess
import sys

import pytest
from conftest import ROOT

NO_NEWS = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795819132.916335   12341 port.cc:153] oneDNN custom operations are on. You may see slightly",
    "I0000 00:00:1795819132.917748   12341 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will",
]
NEWS = [
    "E0000 00:00:1795819132.917748   12341 allocator.cc:31] out of memory",
    "WARNING: the oneDNN library is missing",
    "\u00fc and bytes that are no text: \udcff",
]


def run(code: str, **settings) -> subprocess.CompletedProcess:
    code = f"import os, sys\nfrom catdog.base import quiet\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, **settings)


def test_lines_that_are_no_news_are_left_out_and_all_others_stay():
    lines = [line for pair in zip(NO_NEWS, NEWS, strict=True) for line in pair]
    done = run(f"for line in {lines!r}: os.write(2, os.fsencode(line) + b'\\n')")
    assert done.stderr.splitlines() == [os.fsencode(line) for line in NEWS]


def test_the_last_words_of_a_process_reach_the_screen():
    done = run("os.write(2, b'from below\\n'); raise ValueError('from above')")
    assert done.returncode == 1
    assert b"from below\n" in done.stderr
    assert b"ValueError: from above\n" in done.stderr


def test_a_crash_is_told():
    done = run("import faulthandler; faulthandler.enable(); os.abort()")
    assert done.returncode == -6
    assert b"Fatal Python error: Aborted" in done.stderr


def test_stderr_is_still_a_terminal():
    ours, theirs = pty.openpty()
    code = "import sys\nfrom catdog.base import quiet\nprint('terminal', sys.stderr.isatty(), file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    assert b"terminal True" in os.read(ours, 1000)
    os.close(ours)


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_without_grep_nothing_is_left_out(path, monkeypatch):
    monkeypatch.setenv("PATH", path)
    done = run(f"os.write(2, {NO_NEWS[0].encode() + b'!'!r})")
    assert done.stderr == NO_NEWS[0].encode() + b"!"


@pytest.mark.slow
def test_a_stage_prints_nothing_of_tensorflow(tmp_path):
    code = "from catdog.base import quiet\nimport tensorflow as tf\ntf.config.list_physical_devices('GPU')\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stderr == b""
