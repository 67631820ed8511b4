"""Frames of a report → matplotlib figures; every model keeps its colour within a test set."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from methyl_lightning.metrics.names import AXES, MAIN

WIDTH = 9.0
PANELS = 4  # side by side

Colours = Mapping[str, tuple[float, float, float]]


def colours(models: Sequence[str]) -> Colours:
    """Give each model a colour of its own; up to ten can be told apart without seeing red and green."""
    palette = sns.color_palette("colorblind" if len(models) <= 10 else "husl", len(models))
    return dict(zip(models, palette, strict=True))


def scores(results: pd.DataFrame, view: str, colour: Colours) -> Figure:
    """Draw each model's MAE, Spearman and MAS-PCC on a view with 95 % intervals over patients.

    Parameters
    ----------
    results
        Of :func:`methyl_lightning.report.runs.results`.
    view
        Which view to draw.
    colour
        Of each model, see :func:`colours`.
    """
    shown = results[results["view"] == view]
    models = list(dict.fromkeys(shown["model"]))
    figure = Figure(figsize=(WIDTH, 1.2 + 0.36 * len(models)), layout="constrained")
    panels = figure.subplots(1, len(MAIN), sharey=True)
    place = {model: -i for i, model in enumerate(models)}
    for axes, metric in zip(panels, MAIN, strict=True):
        for _, row in shown[shown["metric"] == metric].dropna(subset="value").iterrows():
            style = {"color": colour[row["model"]], "marker": "D" if row["own"] else "o", "markersize": 5}
            error = np.nan_to_num([[row["value"] - row["low"]], [row["high"] - row["value"]]]).clip(0)
            axes.errorbar(row["value"], place[row["model"]], xerr=error, capsize=3, **style)
        if metric != "mae":
            axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        axes.set(
            yticks=list(place.values()),
            yticklabels=[_folded(model, 26) for model in models],
            ylim=(-len(models) + 0.4, 0.6),
        )
        axes.set_title(AXES[metric], fontsize="medium")
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
    return figure


def densities(cells: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw predicted against measured beta, one panel a model, on one colour scale.

    Parameters
    ----------
    cells
        By model, measured (NaN missing) and predicted beta as [C, S].
    """
    figure, panels = _grid(len(cells), 2.5)
    edges = np.linspace(-0.1, 1.1, 61)
    counts = {}
    for model, (measured_CS, predicted_CS) in cells.items():
        shown = np.isfinite(measured_CS)
        counts[model] = np.histogram2d(measured_CS[shown], np.clip(predicted_CS[shown], -0.1, 1.1), (edges, edges))[0]
    norm = LogNorm(1, max(2, *(count.max() for count in counts.values())))
    for axes, (model, count) in zip(panels, counts.items(), strict=True):
        image = axes.pcolormesh(edges, edges, np.where(count > 0, count, np.nan).T, norm=norm, cmap="viridis_r")
        image.set_rasterized(True)
        axes.plot([0, 1], [0, 1], color="0.3", linewidth=1, linestyle="--")
        axes.set(aspect="equal", xlim=(-0.05, 1.05), ylim=(-0.1, 1.1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_title(_folded(model), fontsize="small")
    figure.colorbar(image, ax=panels, label="cells", shrink=0.9)
    figure.supxlabel("measured beta", fontsize="medium")
    figure.supylabel("predicted beta", fontsize="medium")
    return figure


def correlation_distributions(scores_of: Mapping[str, pd.DataFrame], colour: Colours) -> Figure:
    """Draw the distribution over CpGs of the correlation across samples, one row a model, with its median (MAS-PCC).

    Parameters
    ----------
    scores_of
        By model, column ``pearson`` of :func:`methyl_lightning.report.tables.cpg_scores`.
    colour
        Of each model.
    """
    figure = Figure(figsize=(WIDTH, 1.2 + 0.55 * len(scores_of)), layout="constrained")
    axes = figure.subplots()
    labels = []
    for i, (model, scores) in enumerate(scores_of.items()):
        values = scores["pearson"].dropna()
        labels.append(f"{_folded(model, 34)}\n{len(values):,} of {len(scores):,} CpGs")
        if values.empty:
            axes.text(0.03, -i, "not defined: the same for every sample", va="center", color="0.4", fontsize="small")
        elif values.nunique() > 1:
            bodies: Any = axes.violinplot(values, [-i], orientation="horizontal", widths=0.85, showextrema=False)
            for body in bodies["bodies"]:
                body.set(facecolor=colour[model], alpha=0.45)
        if len(values):
            axes.plot(np.quantile(values, [0.25, 0.75]), [-i, -i], color=colour[model], linewidth=5, alpha=0.8)
            axes.plot(values.median(), -i, "o", color="white", markeredgecolor="black", markersize=6)
    axes.axvline(0, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(
        yticks=[-i for i in range(len(labels))],
        yticklabels=labels,
        xlim=(-1, 1),
        ylim=(0.5 - len(labels), 0.5),
        xlabel="Pearson correlation of predicted with measured beta across samples, one a CpG",
    )
    axes.tick_params(axis="y", labelsize="small")
    sns.despine(ax=axes)
    return figure


def reliability(bins_of: Mapping[str, pd.DataFrame], colour: Colours) -> Figure:
    """Draw mean measured against mean predicted beta, one panel a model; the area of a point is its share of cells.

    Parameters
    ----------
    bins_of
        By model, bins of :func:`methyl_lightning.report.tables.calibration`.
    colour
        Of each model.
    """
    figure, panels = _grid(len(bins_of), 2.4)
    for axes, (model, bins) in zip(panels, bins_of.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--")
        axes.vlines(bins["predicted"], bins["q25"], bins["q75"], color="0.75", linewidth=2)
        axes.plot(bins["predicted"], bins["measured"], color=colour[model], linewidth=1)
        area = 12 + 300 * bins["n"] / bins["n"].sum()
        axes.scatter(bins["predicted"], bins["measured"], area, color=colour[model], zorder=3)
        axes.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.05, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_title(_folded(model), fontsize="small")
        sns.despine(ax=axes)
    figure.supxlabel("mean predicted beta of the bin", fontsize="medium")
    figure.supylabel("mean measured beta", fontsize="medium")
    return figure


def strata(table: pd.DataFrame, metrics: Sequence[str], colour: Colours) -> Figure:
    """Draw metrics by stratum with their intervals, one row a metric, one column a kind of stratum.

    Parameters
    ----------
    table
        One view: ``model``, ``by``, ``group``, ``metric``, ``value``, ``low``, ``high``; groups in their own order.
    metrics
        Which to draw.
    colour
        Of each model.
    """
    kinds, models = list(dict.fromkeys(table["by"])), list(dict.fromkeys(table["model"]))
    figure = Figure(figsize=(max(WIDTH, 2.9 * len(kinds)), 1.2 + 2.8 * len(metrics)), layout="constrained")
    grid = figure.subplots(len(metrics), len(kinds), squeeze=False, sharey="row")
    for row, metric in enumerate(metrics):
        for column, kind in enumerate(kinds):
            axes: Axes = grid[row, column]
            part = table[(table["by"] == kind) & (table["metric"] == metric)]
            place = {group: i for i, group in enumerate(dict.fromkeys(table.loc[table["by"] == kind, "group"]))}
            for i, model in enumerate(models):
                mine = part[part["model"] == model].dropna(subset="value")
                at = mine["group"].map(place) + 0.6 * ((i + 0.5) / len(models) - 0.5)
                error = np.nan_to_num([mine["value"] - mine["low"], mine["high"] - mine["value"]]).clip(0)
                style = {"color": colour[model], "capsize": 2, "markersize": 4, "linestyle": "none", "label": model}
                axes.errorbar(at.to_numpy(float), mine["value"], error, marker="o", **style)
            axes.set(xticks=list(place.values()), xlim=(-0.5, len(place) - 0.5), title="" if row else kind)
            axes.grid(axis="y", color="0.92")
            axes.set_axisbelow(True)
            names = [_folded(str(group), 12) for group in place] if row == len(metrics) - 1 else []
            axes.set_xticks(list(place.values()), names or [""] * len(place), fontsize="small", rotation=35, ha="right")
            sns.despine(ax=axes)
        grid[row, 0].set_ylabel(AXES[metric])
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _grid(n: int, size: float) -> tuple[Figure, list[Axes]]:
    """Make panels of one size for n models, four a row."""
    columns, rows = min(n, PANELS), -(-n // PANELS)
    figure = Figure(figsize=(0.9 + size * columns, 0.6 + size * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes in panels[n:]:
        axes.set_axis_off()
    for axes in panels[max(0, n - columns) : n]:  # the last ones of their columns
        axes.tick_params(labelbottom=True)
    return figure, panels[:n]


def _folded(text: str, width: int = 24) -> str:
    """Break a long label after a comma or an underscore."""
    lines = [""]
    for part in text.replace(", ", ",\0").replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part.replace(",", ", ") if part.endswith(",") else part
    return "\n".join(lines)
