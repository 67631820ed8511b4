"""Tables of an interpretation → matplotlib figures."""

import logomaker
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from methyl_lightning.interpret.motifs import Filter, information
from methyl_lightning.interpret.mutagenesis import LETTERS, Track

SHOWN_GENES, SHOWN_FILTERS, SHOWN_BASES = 20, 8, 120
ISLANDS = {"Island": "C2", "Shore": "C1", "Shelf": "C4", "OpenSea": "C0"}


def genes(table: pd.DataFrame) -> Figure:
    """Draw the genes with the largest knock-out, and attention against knock-out of all genes."""
    branches = [
        name
        for name in table.columns.astype(str)
        if name.startswith("attention_") and not name.endswith(("_low", "_high"))
    ]
    figure = Figure(figsize=(4.2 + 3.0 * len(branches), 4.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, 1 + len(branches)))
    top = table.head(SHOWN_GENES)[::-1]
    colour = np.where(top["direction"] < 0, "C0", "C3")
    sides = np.abs(top[["knock_out_low", "knock_out_high"]].to_numpy().T - top["knock_out"].to_numpy())
    for y, (value, low, high, shade) in enumerate(zip(top["knock_out"], *sides, colour, strict=True)):
        panels[0].errorbar(value, y, xerr=[[low], [high]], fmt="o", markersize=4, color=shade)
    panels[0].set_yticks(range(len(top)), top["symbol"], fontsize="small")
    panels[0].set(xlabel="mean |change of beta| by knock-out", title="expression ↑: beta ↑ red, ↓ blue")
    for axes, branch in zip(panels[1:], branches, strict=True):
        axes.scatter(table[branch], table["knock_out"], s=6, color="0.5", rasterized=True)
        axes.scatter(top[branch], top["knock_out"], s=12, color="C3")
        axes.set(xlabel=f"mean {branch.replace('_', ' of ')}", ylabel="knock-out")
    sns.despine(figure)
    return figure


def _logo(axes: Axes, value_LA: np.ndarray, first: int = 0) -> None:
    frame = pd.DataFrame(value_LA, columns=list(LETTERS), index=np.arange(first, first + len(value_LA)))
    logomaker.Logo(frame, ax=axes, show_spines=False)


def logos(filters: list[Filter]) -> Figure:
    """Draw the logos of the most effective filters, in bits."""
    shown = filters[:SHOWN_FILTERS]
    figure = Figure(figsize=(9.0, 1.5 * -(-len(shown) // 2)), layout="constrained")
    for axes, one in zip(figure.subplots(-(-len(shown) // 2), 2, squeeze=False).ravel(), shown, strict=False):
        frequency_WA = one.frequency_WA
        _logo(axes, frequency_WA * information(frequency_WA)[:, None])
        axes.set_title(f"{one.name}: {one.sites:,} sites, density r {one.density:.2f}", fontsize="small")
        axes.set(ylim=(0, 2), xticks=[])
    return figure


def track(found: Track, sequence_L: np.ndarray, name: str) -> Figure:
    """Draw what each base of a window does, by strand, and the logo of the bases around the CpG."""
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    panels = figure.subplots(3, 1, height_ratios=(1, 1, 1.2))
    centre = len(sequence_L) // 2 - 1
    place_L = np.arange(len(sequence_L)) - centre
    for axes, values_XLA, label in zip(
        panels, (-found.change_XLA, found.interaction_XLA), ("effect on beta", "sd over samples"), strict=False
    ):
        for strand_LA, style, strand in zip(values_XLA, ("C0", "C1"), ("+ strand", "− strand"), strict=True):
            axes.plot(place_L, strand_LA.sum(axis=1) / (len(LETTERS) - 1), color=style, linewidth=0.8, label=strand)
        axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        axes.set(ylabel=label)
    panels[0].legend(frameon=False, ncols=2, fontsize="small")
    panels[0].set_title(f"{name}: what each base does, against the mean of the other three", fontsize="medium")
    near = slice(max(0, centre - SHOWN_BASES // 2), centre + SHOWN_BASES // 2)
    there_LA = np.eye(len(LETTERS) + 1)[sequence_L][:, : len(LETTERS)] * found.importance()[:, None]
    _logo(panels[2], there_LA[near], near.start - centre)
    panels[2].set(xlabel="bases from the C", ylabel="effect on beta")
    sns.despine(figure)
    return figure


def cis_by_distance(table: pd.DataFrame) -> Figure:
    """Draw effects of near genes by signed distance; dashed: genes drawn at random."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    near, far = table.dropna(), table[table["low_bp"].isna()]
    names = [f"{low / 1000:g}…{high / 1000:g}" for low, high in zip(near["low_bp"], near["high_bp"], strict=True)]
    for axes, column, label in zip(
        figure.subplots(1, 2), ("effect", "size"), ("mean effect on beta", "mean |effect|"), strict=True
    ):
        axes.bar(range(len(near)), near[column], color="C0")
        axes.axhline(float(far[column].iloc[0]) if len(far) else 0.0, color="0.4", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(near)), names, rotation=60, fontsize="small")
        axes.set(xlabel="gene − CpG, kb", ylabel=f"{label},\na deviation of expression")
    sns.despine(figure)
    return figure


def cis_map(table: pd.DataFrame, name: str) -> Figure:
    """Draw a map along the chromosome: the genes of a CpG, or the CpGs of a gene by their island relation."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots()
    of_cpg = bool((table["cpg"] == name).all())
    centre = table["position"] - table["bp"] if of_cpg else table["position"] + table["bp"]
    shades = ["0.3"] * len(table) if of_cpg else [ISLANDS.get(relation, "0.6") for relation in table["island"]]
    for place, effect, shade in zip(table["position"], table["effect"], shades, strict=True):
        axes.vlines(place, 0, effect, color=shade, linewidth=1.5)
    axes.scatter(table["position"], table["effect"], c=shades, s=18, zorder=3)
    for relation in [] if of_cpg else dict.fromkeys(table["island"]):
        axes.scatter([], [], c=ISLANDS.get(relation, "0.6"), s=18, label=relation or "unknown")
    if of_cpg:
        for row in table.itertuples():
            axes.annotate(str(row.gene), (row.position, row.effect), fontsize="x-small", rotation=45)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.axvline(float(centre.iloc[0]), color="C3", linestyle="--", linewidth=1, label=name)
    axes.legend(frameon=False, fontsize="small")
    axes.set(xlabel=f"{table['chrom'].iloc[0]}, bp", ylabel="effect of a deviation of expression on beta")
    sns.despine(figure)
    return figure
