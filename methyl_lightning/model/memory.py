"""Memory of the machine: how much is free, and what becomes of that which a training step has freed."""

import ctypes
import os
import platform
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # mallopt(3)
# where glibc's own adaptation ends, which stops with the first option that is set; its first values would make
# prediction after a fit 1.4 times as slow
ADAPTED = {M_TRIM_THRESHOLD: 64 << 20, M_MMAP_THRESHOLD: 32 << 20, M_MMAP_MAX: 65_536}


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def keep_freed_memory() -> None:
    """Let the process keep what it frees on the CPU, with glibc; elsewhere nothing changes.

    A step allocates gradients and intermediates of the same sizes as the step before. By default large ones go back to
    the system and are cleared page by page when they are taken again: a tenth of a step (experiments/benchmarks).
    The price is memory: a tensor does not always fit where one of its size has been, so the process may hold several
    times the largest ones (0.3 GB more at 220 million parameters), and what it holds is not free for others.
    """
    _set_malloc({M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0})


def return_freed_memory() -> None:
    """Give back what was kept, and keep no more."""
    libc = _set_malloc(ADAPTED)
    if libc is not None:
        libc.malloc_trim(0)


def _set_malloc(options: dict[int, int]) -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    for option, value in options.items():
        libc.mallopt(option, value)
    return libc
