"""The figure of the experiment: means of cells, and AUROC by model."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

MARKERS, COLOURS = ("o", "^", "s", "D"), ("0.15", "0.6", "C0", "C1")


def draw_figure(table: pd.DataFrame, means: tuple[np.ndarray, np.ndarray], kind_S: np.ndarray) -> Figure:
    """Draw measured against predicted means of cells, and the AUROC per CpG of every model with its interval.

    Parameters
    ----------
    table
        One row a model, set of cells and view.
    means
        Measured and predicted mean of each cell, [1, S] both.
    kind_S
        The word for each cell.
    """
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    scatter, bars = figure.subplots(1, 2, width_ratios=(1, 1.7))
    for kind, marker, colour in zip(np.unique(kind_S), MARKERS, COLOURS, strict=False):
        own = kind_S == kind
        scatter.plot(
            means[1][0, own], means[0][0, own], marker, color=colour, markersize=4, label=f"{kind} ({own.sum()})"
        )
    scatter.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    scatter.set(xlabel="predicted mean of all unseen CpGs", ylabel="measured mean of those that were read")
    scatter.set(title="held-out cells, methylation_factors")
    scatter.legend(frameon=False)
    shown = table[table["CpGs"] == "unseen"]
    models = list(dict.fromkeys(shown["model"]))
    for number, (cells, own) in enumerate(shown.groupby("cells", sort=False)):
        place = np.array([models.index(name) for name in own["model"]]) + 0.16 * (2 * number - 1)
        error = [own["auroc_per_cpg"] - own["auroc_per_cpg_low"], own["auroc_per_cpg_high"] - own["auroc_per_cpg"]]
        bars.errorbar(
            own["auroc_per_cpg"], place, xerr=error, fmt=MARKERS[number], color=COLOURS[number], capsize=2, label=cells
        )
    bars.axvline(0.5, color="0.7", linewidth=0.8)
    bars.set(
        yticks=range(len(models)), yticklabels=models, xlabel="AUROC per CpG over held-out cells (95 % over cells)"
    )
    bars.set(title="unseen CpGs (other chromosomes)", ylim=(len(models) - 0.5, -0.5))
    bars.legend(frameon=False, title="cells", loc="lower left")
    sns.despine(figure)
    return figure
