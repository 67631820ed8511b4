"""Predictions of sections → figures, readable in grey.

Legend: N spots, C CpGs.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.spatial.checks import explained
from experiments.spatial.diluted_bulk import AS_SPOTS
from experiments.spatial.inputs import LABEL, MAIN, MATCHES, Run
from experiments.spatial.sections import Section, label_means
from methyl_lightning.dilution.run import DILUTED, UNDILUTED, summarise
from methyl_lightning.files import InputError

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 8  # points


def read_dilution(path: Path) -> pd.DataFrame:
    """Read the repeats of a dilution test and return its summary by level."""
    try:
        return summarise(pd.read_csv(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no table of a dilution test ({error}); give its dilution.csv") from error


def equivalent_retention(genes_N: np.ndarray, dilution: pd.DataFrame) -> np.ndarray:
    """Return the retention, within the levels, at which a diluted sample keeps so many distinct genes (log scales)."""
    levels = dilution[dilution["test"] == DILUTED].sort_values("genes")
    log = np.interp(np.log(genes_N), np.log(levels["genes"]), np.log(levels["retention"]))
    return np.exp(log)


def of_run(run: Run, sections: dict[str, Section]) -> dict[str, Figure]:
    """Draw the figures of one run, besides its map of single spots."""
    return {
        f"tissue_{run.name}_neighbours": tissue(run, sections, "neighbours"),
        "labels": labels(run, sections),
        "molecules": molecules(run, sections),
        "neighbours": neighbours(sections),
        "relations": relations(sections),
    }


def _place(axes: Axes, section: Section, title: str) -> tuple[np.ndarray, np.ndarray]:
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=SMALL)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    x, y = np.asarray(section.data.obsm["spatial"], dtype=np.float64).T
    return x, y


def varying_cpgs(run: Run, sections: dict[str, Section]) -> pd.DataFrame:
    """Take the subtype CpGs whose prediction differs between spots: not those that a model knows only the mean of."""
    chosen = run.subtype_cpgs()
    spread = [one.predicted[MAIN].to_df()[chosen.index].std() for one in sections.values()]
    return chosen[(np.max(spread, axis=0) > 1e-5)]


def _title(cpg: Any, about: pd.Series) -> str:
    part = "" if about["part"] == "train" else ", held out"
    return f"{about['nearest_gene']}, {abs(about['nearest_bp']):,} bp\n{cpg}{part}"


def tissue(run: Run, sections: dict[str, Section], setting: str = MAIN) -> Figure:
    """Draw labels and the predicted beta of the subtype CpGs, one row a section; one scale for each CpG."""
    chosen = varying_cpgs(run, sections)
    names = sorted({str(label) for one in sections.values() for label in one.data.obs[LABEL]})
    figure = Figure(figsize=(1 + 1.6 * (1 + len(chosen)), 1.75 * len(sections) + 1.1), layout="constrained")
    grid = figure.subplots(len(sections), 1 + len(chosen), squeeze=False)
    figure.suptitle(f"{run.name}, {setting}: predicted beta of spots (200 µm apart); nothing was measured", fontsize=10)
    for row, (name, section) in zip(grid, sections.items(), strict=True):
        x, y = _place(row[0], section, f"{name}: pathologist's label")
        label_N = section.data.obs[LABEL].astype(str).to_numpy()
        for n, label in enumerate(names):
            at, grey = label_N == label, f"{0.8 * n / max(1, len(names) - 1):.2f}"
            row[0].scatter(x[at], y[at], s=14, marker=MARKERS[n % len(MARKERS)], color=grey, linewidths=0, label=label)
    for column, (cpg, about) in enumerate(chosen.iterrows(), start=1):
        beta = {name: section.predicted[setting].to_df()[cpg].to_numpy() for name, section in sections.items()}
        low, high = np.quantile(np.concatenate(list(beta.values())), [0.02, 0.98])
        for n, (axes, (name, section)) in enumerate(zip(grid[:, column], sections.items(), strict=True)):
            x, y = _place(axes, section, "" if n else _title(cpg, about))
            image = axes.scatter(x, y, c=beta[name], s=9, marker="s", linewidths=0, vmin=low, vmax=high, cmap="viridis")
        bar = figure.colorbar(image, ax=list(grid[:, column]), location="bottom", shrink=0.9, aspect=14, pad=0.01)
        bar.set_label("predicted beta", fontsize=SMALL)
        bar.ax.locator_params(nbins=3)
        bar.ax.tick_params(labelsize=SMALL)
    space = figure.colorbar(
        image, ax=list(grid[:, 0]), location="bottom", shrink=0.9, aspect=14, pad=0.01, label="none"
    )
    space.ax.set_visible(False)  # the labels stand level with the maps
    handles = {h.get_label(): h for row in grid[:, :1] for a in row for h in a.collections}
    style = {"ncols": len(names), "fontsize": SMALL, "frameon": False, "markerscale": 1.5}
    figure.legend([handles[name] for name in names], names, loc="outside lower left", **style)
    return figure


def labels(run: Run, sections: dict[str, Section]) -> Figure:
    """Draw mean and standard deviation over spots of each label, beside the cohort's measured range."""
    table = pd.concat([label_means(run, section) for section in sections.values()])
    names, cpgs = sorted(table["label"].unique()), varying_cpgs(run, sections)
    columns = min(4, len(cpgs))
    rows = -(-len(cpgs) // columns)
    figure = Figure(figsize=(1.9 * columns + 1.4, 2.2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.ravel()[len(cpgs) :]:
        axes.set_visible(False)
    for axes, (cpg, about) in zip(grid.ravel(), cpgs.iterrows(), strict=False):
        beta_S = run.beta_CS[run.cpgs.index.get_loc(cpg)]
        axes.axvspan(*np.nanquantile(beta_S, [0.25, 0.75]), color="0.88", label="cohort, measured: middle half")
        axes.axvline(np.nanmedian(beta_S), color="0.6", linewidth=1, label="cohort, measured: median")
        for n, (name, own) in enumerate(table[table["cpg"] == cpg].groupby("section")):
            at = np.array([names.index(label) for label in own["label"]]) + 0.22 * (n - (len(sections) - 1) / 2)
            style = {"markersize": 4, "linewidth": 1, "color": f"{0.3 * n:.1f}", "fmt": MARKERS[n % len(MARKERS)]}
            axes.errorbar(own["mean"], at, xerr=own["sd"], label=name, **style)
        axes.set_title(_title(cpg, about), fontsize=SMALL)
        axes.set_yticks(range(len(names)), names, fontsize=SMALL)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("predicted beta, mean ± sd", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        sns.despine(ax=axes)
    grid[0, 0].invert_yaxis()
    handles, texts = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=5, fontsize=SMALL, frameon=False)
    return figure


def molecules(run: Run, sections: dict[str, Section]) -> Figure:
    """Draw the mean prediction of each spot against its molecules, in each way to the training's scale."""
    figure = Figure(figsize=(9.0, 3.3), layout="constrained")
    row = figure.subplots(1, len(sections), sharey=True, squeeze=False)[0]
    for axes, (name, section) in zip(row, sections.items(), strict=True):
        log_counts_N, r2 = np.log10(section.data.obs["counts"].to_numpy(np.float64)), []
        for match, marker, colour in (("library", "x", "0.7"), ("quantile", "^", "0.5"), (MAIN, "o", "0.0")):
            mean_N = np.asarray(section.predicted[match].X, dtype=np.float64).mean(axis=1)
            r2.append(f"{explained(mean_N, log_counts_N):.2f} {match}")
            axes.plot(10**log_counts_N, mean_N, marker, color=colour, markersize=3, label=f"match={match}")
        axes.axhline(np.nanmean(run.beta_CS), color="0.5", linestyle=":", linewidth=1, label="cohort, measured mean")
        axes.set_xscale("log")
        axes.set_xlabel("molecules of the spot")
        axes.set_title(f"{name}: R²\n{', '.join(r2)}", fontsize=9)
        sns.despine(ax=axes)
    handles, texts = row[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4, fontsize=SMALL, frameon=False)
    row[0].set_ylabel("mean predicted beta of the spot")
    return figure


def neighbours(sections: dict[str, Section]) -> Figure:
    """Draw Moran's I of all CpGs for predictions, without molecules, with neighbours averaged, and for moved spots."""
    names = {
        f"{MAIN}, spots moved": "spots moved at random",
        MAIN: "single spots",
        "without molecules": "single spots,\nmolecules taken out",
        "neighbours, spots moved": "spots moved,\nthen 8 neighbours averaged",
        "neighbours": "8 neighbours averaged",
    }
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    row = figure.subplots(1, len(sections), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, section) in zip(row, sections.items(), strict=True):
        values = [section.moran[key][np.isfinite(section.moran[key])] for key in names]
        style = {"whis": (2.5, 97.5), "showfliers": False, "patch_artist": True, "medianprops": {"color": "black"}}
        drawn = axes.boxplot(values, orientation="horizontal", tick_labels=list(names.values()), widths=0.6, **style)
        for box, key in zip(drawn["boxes"], names, strict=True):
            box.set_facecolor("white" if "moved" in key else "0.7")
        axes.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xlabel("Moran's I (4 neighbours)")
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=SMALL)
        sns.despine(ax=axes)
    return figure


def relations(sections: dict[str, Section]) -> Figure:
    """Draw CpGs: cis relation, and tumour − other, in the section against the cohort."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    grid = figure.subplots(2, len(sections), squeeze=False)
    words = (
        (
            "cis",
            "Spearman with own gene in the cohort\n(measured beta)",
            "in the section, molecules\ntaken out (predicted)",
        ),
        (
            "tumour",
            "Δ beta, tumour-rich − tumour-poor third\nof the cohort (measured)",
            "Δ beta, tumour − other spots\n(predicted)",
        ),
    )
    for row, (table, across, up) in zip(grid, words, strict=True):
        for axes, (name, section) in zip(row, sections.items(), strict=True):
            shown = getattr(section, table).dropna()
            for seen, face, text in ((False, "none", "held out"), (True, "0.2", "seen in training")):
                part = shown[shown["seen"] == seen]
                style = {"markersize": 3, "markerfacecolor": face, "markeredgecolor": "0.3", "markeredgewidth": 0.5}
                if len(part):
                    axes.plot(part["cohort"], part["section"], "o", label=f"CpG {text}", **style)
            axes.axhline(0, color="0.7", linewidth=0.8)
            axes.axvline(0, color="0.7", linewidth=0.8)
            axes.set_xlabel(across, fontsize=SMALL)
            axes.set_title(f"{name}, {len(shown)} CpGs", fontsize=10)
            axes.tick_params(labelsize=SMALL)
            sns.despine(ax=axes)
        row[0].set_ylabel(up, fontsize=SMALL)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=SMALL, frameon=False
    )
    return figure


def dilution_level(dilution: pd.DataFrame, sections: dict[str, Section], bulk: pd.DataFrame) -> Figure:
    """Draw how many distinct genes spots keep, above what the dilution test says of samples that keep as many."""
    figure = Figure(figsize=(8.0, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
    values, ticks = [], []
    for name, section in reversed(sections.items()):
        values += [section.data.obs["distinct_around"], section.data.obs["distinct"]]
        ticks += [f"{name}, spot + 8 neighbours", f"{name}, single spots"]
    style = {"whis": (2.5, 97.5), "showfliers": False, "medianprops": {"color": "black"}, "widths": 0.6}
    drawn = above.boxplot(values, orientation="horizontal", tick_labels=ticks, patch_artist=True, **style)
    for n, box in enumerate(drawn["boxes"]):
        box.set_facecolor("0.7" if n % 2 else "white")
    levels = dilution[dilution["test"] == DILUTED]
    full = dilution.loc[dilution["test"] == UNDILUTED, "mas_pcc"].iloc[0]
    below.errorbar(
        levels["genes"],
        levels["mas_pcc"],
        levels["mas_pcc_sd"],
        fmt="o-",
        color="0.0",
        markersize=4,
        linewidth=1.2,
        label="dilution test: network, genes masked, unseen CpGs",
    )
    below.axhline(full, color="0.0", linewidth=0.8, linestyle=":", label="the same, undiluted")
    shown = bulk[bulk["molecules"] != AS_SPOTS]
    for n, (run, own) in enumerate(shown.groupby("run", sort=False)):
        unseen = own[own["cpgs"] == "unseen"]
        cpgs = "seen" if unseen["mas_pcc"].isna().all() else "unseen"
        for match, line in zip(MATCHES, ("-", "--", ":"), strict=True):
            part = own[(own["cpgs"] == cpgs) & (own["match"] == match)]
            text = f"{run}, molecules drawn, match={match}, {cpgs} CpGs"
            below.plot(part["genes"], part["mas_pcc"], f"{MARKERS[n + 1]}{line}", color="0.4", markersize=4, label=text)
    below.axhline(0, color="0.7", linewidth=0.8)
    below.set(xscale="log", xlabel="distinct genes of the checkpoint above 0", ylabel="MAS-PCC, unseen patients")
    below.set_ylim(top=1.5)  # room for the legend
    lines, texts = below.get_legend_handles_labels()  # the curve with error bars comes last there
    below.legend([lines[-1], *lines[:-1]], [texts[-1], *texts[:-1]], fontsize=SMALL, frameon=False, loc="upper left")
    top = above.secondary_xaxis("top")
    named = levels[levels["retention"] != 15_000]  # no room for it beside its neighbours
    top.set_xticks(
        named["genes"], [f"{level:,.0f}" for level in named["retention"]], rotation=45, fontsize=SMALL, ha="left"
    )
    top.minorticks_off()
    top.set_xlabel("retention at which the dilution test keeps as many (draws)", fontsize=SMALL)
    above.tick_params(labelsize=SMALL)
    for axes in (above, below):
        sns.despine(ax=axes)
    return figure
