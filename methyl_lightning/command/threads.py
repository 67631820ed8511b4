"""How the threads of numpy and torch share a machine with other programs; to be said before torch is imported."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
SPINS = 1000  # of GNU's OpenMP: microseconds, that a step on idle processors does not wait for threads to wake


def share_processors() -> None:
    """Let threads sleep soon while they wait, and start no more of them than processors are granted.

    Threads of OpenMP wait for each other spinning. Where another program runs, they so take the time of the one that
    they wait for, and a training is 2 to 30 times slower. What the environment says already stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    granted = granted_processors()
    if granted is not None and granted < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def granted_processors() -> int | None:
    """Read how many processors the control groups of this process grant it, as a container's do; None for all."""
    try:
        own = OWN_CGROUP.read_text().splitlines()
    except OSError:  # not Linux
        return None
    folder = CGROUPS / next((line.removeprefix("0::/") for line in own if line.startswith("0::/")), "")
    granted = []
    for group in (folder, *folder.parents):
        if group.is_relative_to(CGROUPS) and (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
            granted += [] if quota == "max" else [max(1, int(quota) // int(period))]
    return min(granted, default=None)
