"""Runs that differ in their seeds alone → one run, whose metrics are means over them.

Everything else that a report shows of such a run, its figures and its tables of single CpGs, is of the first of them.
"""

import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from methyl_lightning.evaluate.comparisons import read_bootstrap
from methyl_lightning.metrics.bootstrap import interval, over_seeds
from methyl_lightning.report.runs import Run, Tested, flat_settings

SEEDS = ("seed", "data.split_seed")


def seeds_of(run: Run) -> tuple[int, int]:
    """Tell the seed of a run, and that of its split."""
    split_seed = run.config["data"].get("split_seed")
    return run.config["seed"], run.config["seed"] if split_seed is None else split_seed


def gather_seeds(runs: Sequence[Run]) -> list[Run]:
    """Put runs that differ in the seed, or the seed of the split, alone into one; in the order of the first ones.

    Two runs with the very same settings stay two.
    """
    series: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in flat_settings(run.config).items() if key not in SEEDS}
        for n in count():
            members = series.setdefault((json.dumps(settings, sort_keys=True), n), [])
            if seeds_of(run) not in map(seeds_of, members):
                members.append(run)
                break
    return [_gathered(sorted(members, key=seeds_of)) for members in series.values()]


def _gathered(runs: list[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    models = []
    for model in runs[0].models:
        same = [other for run in runs for other in run.models if (other.label, other.own) == (model.label, model.own)]
        models.append(_mean_model(same))
    return runs[0]._replace(models=models, repeats=runs)


def _mean_model(models: list[Tested]) -> Tested:
    """Take means over runs of one model: metrics with intervals over seeds and patients (CpGs), steps and time."""
    first, folders = models[0], [model.folder for model in models]
    if len(models) == 1:
        return first
    usage = dict(first.usage)
    for key, mean in (("steps", np.mean), ("train_seconds", np.mean), ("peak_rss_gb", max)):
        if all(key in model.usage for model in models):
            usage[key] = type(first.usage[key])(mean([model.usage[key] for model in models]))
    metrics = {view: _mean_view([model.metrics[view] for model in models]) for view in first.metrics}
    for (view, name), bounds in _bounds(folders).items():
        if metrics[view].get(name) is not None:
            metrics[view] |= bounds
    return first._replace(metrics=metrics, usage=usage, folders=folders)


def _mean_view(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Take means and standard deviations; a metric is undefined where it is so in any run."""
    found = {key: runs[0][key] for key in ("n_cpgs", "n_samples", "n_pairs")}
    for name in (key.removesuffix("_ci95") for key in runs[0] if key.endswith("_ci95")):
        values = [run[name] for run in runs if run.get(name) is not None]
        defined = len(values) == len(runs)
        found[name] = float(np.mean(values)) if defined else None
        found[f"{name}_sd"] = float(np.std(values, ddof=1)) if defined else None
        found[f"{name}_ci95"] = found[f"{name}_ci95_cpgs"] = None
    return found


def _bounds(folders: list[Path]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Read the bootstraps of the runs of a model: by view and metric its intervals, as ``metrics.json`` names them."""
    read = [read_bootstrap(folder) for folder in folders]
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (view, name), (_, value) in read[0].items():
        if not all((view, name) in one for one in read) or math.isnan(value.value):
            continue
        cells_N, runs = zip(*(one[view, name] for one in read), strict=True)
        mean = over_seeds(runs, cells_N)
        intervals = (("ci95", mean.patients_R), ("ci95_cpgs", mean.cpgs_R))
        bounds = {f"{name}_{key}": list(interval(mean.value, resampled_R)[1:]) for key, resampled_R in intervals}
        found[view, name] = {key: value for key, value in bounds.items() if all(map(math.isfinite, value))}
    return found
