"""Frames and grids → matplotlib figures."""

from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from methyl_lightning.metrics.names import AXES

SIZE = (9.0, 3.6)


def training_curves(logs: Mapping[str, pd.DataFrame], colour: Mapping[str, Any] | None = None) -> Figure:
    """Draw MAE and Spearman on the validation view against steps, one line a model; of a single run, the blocks' too.

    Parameters
    ----------
    logs
        By model, columns ``step`` and, where logged, ``train/mae``, ``val/mae``, ``val/spearman`` (NaN between), and
        where there are several runs of it ``run``: each is a thin line beside their mean.
    colour
        Of each model; matplotlib's own where not given.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, ("mae", "spearman"), strict=True):
        for model, log in logs.items():
            runs = [one for _, one in log.groupby("run")] if "run" in log else [log]
            if metric == "mae" and len(logs) == len(runs) == 1:
                block = log.reindex(columns=["step", "train/mae"]).dropna()
                axes.plot(block["step"], block["train/mae"], color="0.6", linewidth=1.2, label="training block")
            curves = [run.reindex(columns=["step", f"val/{metric}"]).dropna() for run in runs]
            colour_of = colour[model] if colour else "C0"
            for curve in curves if len(curves) > 1 else []:
                axes.plot(curve["step"], curve[f"val/{metric}"], color=colour_of, linewidth=0.8, alpha=0.35)
            mean = pd.concat(curves).groupby("step")[f"val/{metric}"].mean()
            axes.plot(mean.index, mean, "o-", color=colour_of, markersize=3, linewidth=1.3, label=model)
        axes.set(xlabel="training step", ylabel=f"{AXES[metric]}, validation")
        sns.despine(ax=axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def predicted_against_measured(measured_CS: np.ndarray, predicted_CS: np.ndarray, title: str) -> Figure:
    """Draw the density of cells, and the two distributions.

    Parameters
    ----------
    measured_CS
        Beta values, NaN where missing.
    predicted_CS
        Predictions of the same cells.
    title
        Name of the view and the model.
    """
    shown = np.isfinite(measured_CS)
    # in float64: clipped in float32 they would lie just outside the outer bins
    measured, predicted = measured_CS[shown], np.clip(predicted_CS[shown].astype(np.float64), -0.1, 1.1)
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    edges = np.linspace(-0.1, 1.1, 73)
    image = left.hist2d(measured, predicted, bins=(edges, edges), norm=LogNorm(), cmap="viridis")[3]
    left.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--")
    left.set(xlabel="measured beta", ylabel="predicted beta", aspect="equal", xlim=(-0.05, 1.05), ylim=(-0.1, 1.1))
    figure.colorbar(image, ax=left, label="cells")
    for values, name, style in ((measured, "measured", "-"), (predicted, "predicted", "--")):
        density, bounds = np.histogram(values, bins=edges, density=True)
        right.stairs(density, bounds, label=name, linestyle=style, linewidth=1.5)
    right.set(xlabel="beta", ylabel="density")
    right.legend(frameon=False)
    sns.despine(ax=right)
    figure.suptitle(title, fontsize="medium")
    return figure
