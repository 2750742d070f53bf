"""What this processor computes in."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Processors without one of these can only imitate bfloat16, more slowly than they compute in float32.
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def has_bfloat16() -> bool:
    """Whether it computes in bfloat16 itself."""
    return bool(_BFLOAT16 & _flags())


def _flags() -> set[str]:
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
