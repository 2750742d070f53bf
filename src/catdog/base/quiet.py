"""Keep from the screen what TensorFlow's libraries print at every start and is no news; whatever else they say stays.

They write to file descriptor 2 from C++ and take no heed of TF_CPP_MIN_LOG_LEVEL, so it leads through grep, from when
this module is imported: that has to be before TensorFlow is. Python's own stderr is where it was, a terminal it may be.
"""

import atexit
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_NO_NEWS = [
    r"^WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$",
    r"^I0000 .* port\.cc:.* oneDNN custom operations are on\.",
    r"^I0000 .* cudart_stub\.cc:.* Could not find cuda drivers",
    r"^I0000 .* cpu_feature_guard\.cc:.* This TensorFlow binary is optimized",
    r"^To enable the following instructions:",
    r"^I0000 .* generator_dataset_op\.cc:.* Memory patch applied",
]
# Where there is a GPU, this says why it is not used.
_WITHOUT_A_GPU = [r"^E0000 .* cuda_platform\.cc:.* failed call to cuInit"]
_ENDS_WITHIN = 2  # seconds


def _begin() -> None:
    grep = shutil.which("grep")
    if grep is None or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # somebody wants to see it all
        return
    patterns = _NO_NEWS + ([] if Path("/dev/nvidiactl").exists() else _WITHOUT_A_GPU)
    try:
        # In a session of its own, so that Ctrl-C does not end it before what it is to pass on.
        command = [grep, "--line-buffered", "--text", "-Ev", "|".join(patterns)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    except OSError:
        return
    assert child.stdin is not None
    own = os.dup(2)
    sys.stderr = os.fdopen(os.dup(own), "w", buffering=1, errors="backslashreplace")
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    atexit.register(_end, child, own)


def _end(child: subprocess.Popen, own: int) -> None:
    sys.stderr.flush()
    os.dup2(own, 2)
    with suppress(subprocess.TimeoutExpired):  # a process that lives on may hold it open
        child.wait(_ENDS_WITHIN)


_begin()
