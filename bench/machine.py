"""What a figure was measured on."""

import platform
from importlib.metadata import version
from pathlib import Path

from catdog.base import parallel


def describe(*packages: str) -> dict[str, int | str]:
    """Cores that this process may use, model of the CPU, versions of Python and of `packages`."""
    return {
        "cores": parallel.cores(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
