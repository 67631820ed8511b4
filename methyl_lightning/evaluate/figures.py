"""Frames and grids → matplotlib figures."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from methyl_lightning.metrics.names import AXES

SIZE = (9.0, 3.6)


def training_curves(log: pd.DataFrame) -> Figure:
    """Draw MAE and Spearman against steps.

    Parameters
    ----------
    log
        Columns ``step`` and, where logged, ``train/mae``, ``val/mae``, ``val/spearman`` (NaN between).
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, curves, label in (
        (left, (("train/mae", "training block"), ("val/mae", "validation")), AXES["mae"]),
        (right, (("val/spearman", "validation"),), AXES["spearman"]),
    ):
        for (column, name), style in zip(curves, ("-", "o-") if len(curves) == 2 else ("o-",), strict=True):
            if column in log:
                curve = log[["step", column]].dropna()
                colour = "0.6" if name == "training block" else "C0"
                axes.plot(curve["step"], curve[column], style, color=colour, markersize=3, linewidth=1.2, label=name)
        axes.set(xlabel="training step", ylabel=label)
        axes.legend(frameon=False)
        sns.despine(ax=axes)
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
