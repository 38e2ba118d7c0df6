"""How much memory is free, and how much this process uses."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str = "cpu") -> int | None:
    """Bytes that can still be allocated on a device; None if that is unknown.

    Args:
        device: `cpu`, or a GPU such as `cuda:0`.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0]) if torch.cuda.is_available() else None
    if device != "cpu":
        return None
    limits = [_available(), _left_in_group()]
    return min((one for one in limits if one is not None), default=None)


def used_memory() -> int | None:
    """Bytes of main memory that this process uses; None if that is unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _available() -> int | None:
    """What the system can give without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_in_group() -> int | None:
    """What the control group of a container leaves; None if it has no limit."""
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        return max(0, int(most) - used) if most.isdigit() else None
    except (OSError, ValueError):
        return None
