"""Frames of a dilution test → matplotlib figures, readable in grey."""

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from methyl_lightning.dilution.run import DILUTED, MEAN_EXPRESSION, UNDILUTED
from methyl_lightning.metrics.names import AXES

SHOWN = ("mae", "spearman")
DARK, LIGHT = "0.15", "0.75"
STYLES = {"depth": ("0.0", "o"), "scaler": ("0.35", "^"), "refit": ("0.6", "v")}  # colour and marker of a match


def level_name(retention: float) -> str:
    """Write a level as people do: 1,000 or 0.05, and ``undiluted`` for NaN."""
    return UNDILUTED if math.isnan(retention) else f"{retention:,.10g}"


def _levels(frame: pd.DataFrame) -> list[float]:
    """List the levels of a frame in ascending order, undiluted last."""
    levels = frame["retention"].unique()
    return [*sorted(float(level) for level in levels if not math.isnan(level)), *levels[np.isnan(levels)].tolist()]


def _at(frame: pd.DataFrame, level: float) -> pd.DataFrame:
    return frame[frame["retention"].isna() if math.isnan(level) else frame["retention"] == level]


def expression_heatmaps(expression: pd.DataFrame, retention: str, units: str) -> Figure:
    """Draw the same genes × samples at every level, side by side, on one colour scale.

    Parameters
    ----------
    expression
        Columns ``retention`` (NaN: undiluted), ``sample``, ``gene``, ``value``.
    retention, units
        What the levels count, and the units of the values.
    """
    levels = _levels(expression)
    figure = Figure(figsize=(1.2 + 1.3 * len(levels), 4.6), layout="constrained")
    panels = figure.subplots(1, len(levels), squeeze=False)[0]
    samples, genes = expression["sample"].unique(), expression["gene"].unique()
    for axes, level in zip(panels, levels, strict=True):
        grid = _at(expression, level).pivot(index="gene", columns="sample", values="value").loc[genes, samples]
        image = axes.imshow(grid, aspect="auto", cmap="mako_r", vmin=0, vmax=expression["value"].max())
        axes.set_title(level_name(level), fontsize="medium")
        axes.set(xticks=[], yticks=[])
    panels[0].set_ylabel(f"{len(genes)} genes")
    figure.supxlabel(f"{len(samples)} test samples, the same in every panel", fontsize="medium")
    figure.suptitle(f"Expression by retention ({retention})", fontsize="medium")
    figure.colorbar(image, ax=panels, label=f"expression, {units}", shrink=0.9)
    return figure


def repeat_distributions(repeats: pd.DataFrame, retention: str) -> Figure:
    """Draw box and violin plots of MAE and Spearman over the repeats of each level.

    Parameters
    ----------
    repeats
        Columns ``test``, ``match``, ``retention``, ``mae``, ``spearman``; of several matches the first is drawn.
    retention
        What the levels count.
    """
    diluted = repeats[repeats["test"] == DILUTED]
    match = diluted["match"].iloc[0]
    diluted = diluted[diluted["match"] == match]
    names = [level_name(level) for level in _levels(diluted)]
    shown = diluted.assign(level=diluted["retention"].map(level_name))
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="col")
    for column, score in enumerate(SHOWN):
        where = {"data": shown, "x": "level", "y": score, "order": names}
        sns.boxplot(ax=grid[0, column], **where, color=LIGHT, linecolor=DARK, linewidth=1, width=0.6, fliersize=0)
        sns.stripplot(ax=grid[0, column], **where, color=DARK, size=2.5, jitter=0.15)
        sns.violinplot(
            ax=grid[1, column], **where, color=LIGHT, linecolor=DARK, linewidth=1, inner="stick", density_norm="width"
        )
        for row, kind in enumerate(("box", "violin")):
            grid[row, column].set(xlabel=f"retention ({retention})" if row else "", ylabel=AXES[score])
            grid[row, column].set_title(
                f"{kind}, {len(shown) // len(names)} repeats a level, match={match}", fontsize="small"
            )
            sns.despine(ax=grid[row, column])
    return figure


def histogram_grid(histograms: pd.DataFrame, retention: str, units: str) -> Figure:
    """Draw, for each level, the distribution of expression and of predicted beta with the measured one behind it.

    Parameters
    ----------
    histograms
        Columns ``quantity`` (expression, predicted, measured), ``retention``, ``low``, ``high``, ``share``.
    retention, units
        What the levels count, and the units of expression.
    """
    levels = _levels(histograms[histograms["quantity"] == "expression"])
    figure = Figure(figsize=(1.0 + 1.5 * len(levels), 4.4), layout="constrained")
    grid = figure.subplots(2, len(levels), squeeze=False, sharey="row")
    measured = histograms[histograms["quantity"] == "measured"]
    for column, level in enumerate(levels):
        top, bottom = grid[:, column]
        expression, predicted = (
            _at(histograms[histograms["quantity"] == quantity], level) for quantity in ("expression", "predicted")
        )
        _stairs(top, expression, color=DARK, fill=True)
        _stairs(bottom, measured, color=LIGHT, fill=True, label="measured")
        _stairs(bottom, predicted, color=DARK, linewidth=1.3, label="predicted")
        top.set(yscale="log", xlabel=units)
        top.set_title(level_name(level), fontsize="medium")
        bottom.set(xlabel="beta", xlim=(-0.12, 1.12), xticks=(0, 0.5, 1))
        for axes in (top, bottom):
            sns.despine(ax=axes)
    grid[0, 0].set_ylabel("share of expression values\n(log scale)")
    grid[1, 0].set_ylabel("share of cells")
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    title = f"Distributions by retention ({retention}), first repeat; predictions beyond −0.1…1.1 in the outermost bins"
    figure.suptitle(title, fontsize="medium")
    return figure


def _stairs(axes: Axes, bins: pd.DataFrame, **style: Any) -> None:
    axes.stairs(bins["share"], [*bins["low"], bins["high"].iloc[-1]], **style)


def scores_against_retention(
    summary: pd.DataFrame, retention: str, published: dict[float, tuple[float, float]]
) -> Figure:
    """Draw MAE and Spearman against retention: means, 95 % intervals, reference lines, published points.

    Parameters
    ----------
    summary
        As :func:`methyl_lightning.dilution.run.summarise` returns it.
    retention
        What the levels count.
    published
        Retention → MAE, Spearman; empty where the method is not the published one.
    """
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    diluted = summary[summary["test"] == DILUTED]
    panels = figure.subplots(1, 2)
    for number, (axes, score) in enumerate(zip(panels, SHOWN, strict=True)):
        for match, own in diluted.groupby("match", sort=False):
            colour, marker = STYLES[str(match)]
            error = [own[score] - own[f"{score}_low"], own[f"{score}_high"] - own[score]]
            axes.errorbar(
                own["retention"],
                own[score],
                np.nan_to_num(error),
                color=colour,
                marker=marker,
                markersize=4,
                capsize=3,
                label=f"diluted, match={match}: mean and 95 % interval over repeats",
            )
        for test, style, label in (
            (MEAN_EXPRESSION, "--", "sequence and distances only (training-mean expression)"),
            (UNDILUTED, ":", "undiluted"),
        ):
            axes.axhline(summary.loc[summary["test"] == test, score].mean(), color="0.45", linestyle=style, label=label)
        if published:
            points = [scores[number] for scores in published.values()]
            axes.plot(
                list(published),
                points,
                "s",
                color=DARK,
                markerfacecolor="none",
                label="published (other cohort; batches of 50)",
            )
        axes.set(xscale="log", xlabel=f"retention ({retention})", ylabel=AXES[score])
        sns.despine(ax=axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
