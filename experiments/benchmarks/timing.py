"""Timing in alternation: what else the machine does falls on all tasks alike."""

import time
from collections.abc import Callable
from statistics import median


def seconds(task: Callable[[], object]) -> float:
    """Time one call by the wall clock."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def alternate(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run all tasks in turn, a first round unmeasured, and give the median seconds of each."""
    measured: dict[str, list[float]] = {name: [] for name in tasks}
    for measure in [False] + rounds * [True]:
        for name, task in tasks.items():
            taken = seconds(task)
            if measure:
                measured[name].append(taken)
    return {name: median(values) for name, values in measured.items()}
