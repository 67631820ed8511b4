"""Recoveries over seeds → the table of the README, in words by a rule, and its figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import t

from methyl_lightning.interpret.recovery import verdict

CHANCE = 0.5  # AUROC
CONTROL, YARDSTICK = "permuted", "distance alone"


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return AUROC and precision over seeds beside the control's AUROC, and the verdict, a row a method and effects.

    The verdict goes by the interval over seeds: it must lie above chance and above the control's mean.
    """
    rows = []
    control = table[table["labels"] == CONTROL].groupby(["planted", "method", "network"])["auroc"].mean()
    real = table[(table["labels"] != CONTROL) & (table["method"] != YARDSTICK)]
    for keys, part in real.groupby(["planted", "method", "network", "labels"], sort=False):
        auroc = part["auroc"].dropna()
        half = t.ppf(0.975, len(auroc) - 1) * auroc.std() / np.sqrt(len(auroc)) if len(auroc) > 1 else np.nan
        mean, chance = auroc.mean(), control.get(keys[:3], np.nan)
        said = verdict(mean, mean - half > CHANCE, not chance >= mean - half)
        rows.append((*keys, len(auroc), mean, mean - half, mean + half, part["precision"].mean(), chance, said))
    columns = ["planted", "method", "network", "labels", "seeds", "auroc", "low", "high", "precision", "control"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


def write_tables(table: pd.DataFrame, folder: Path) -> None:
    """Write ``tables.md`` and ``recovery.png``."""
    found = summarise(table)
    scores = table.drop_duplicates(["network", "labels", "seed"]).groupby(["network", "labels"], sort=False)
    lines = ["| network | effects | seeds | MAE | MAS-PCC |", "|---|---|---|---|---|"]
    for (network, labels), part in scores:
        mae, mas_pcc = part["mae"].mean(), part["mas_pcc"].mean()
        lines.append(f"| {network} | {labels} | {len(part)} | {mae:.3f} | {mas_pcc:.3f} |")
    lines += ["", "| planted | method | network | effects | AUROC | precision | control | verdict |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in found.itertuples():
        interval = f"{row.auroc:.2f} ({max(row.low, 0):.2f}–{min(row.high, 1):.2f})"
        method = str(row.method).replace("_", " ")
        lines.append(
            f"| {row.planted} | {method} | {row.network} | {row.labels} | {interval} | {row.precision:.2f} | "
            f"{row.control:.2f} | {row.verdict} |"
        )
    (folder / "tables.md").write_text("\n".join(lines) + "\n")
    draw(found).savefig(folder / "recovery.png", dpi=150)


def draw(found: pd.DataFrame) -> Figure:
    """Draw AUROC over seeds by method, a panel a strength of the effects, a colour a network; hollow: the control."""
    named = found.assign(name=found["planted"] + ": " + found["method"].str.replace("_", " "))
    names = list(dict.fromkeys(named["name"]))
    figure = Figure(figsize=(11.0, 0.36 * len(names) + 1.4), layout="constrained")
    strengths = list(dict.fromkeys(found["labels"]))
    networks = list(dict.fromkeys(found["network"]))
    for axes, labels in zip(figure.subplots(1, len(strengths), sharey=True, squeeze=False)[0], strengths, strict=True):
        for n, network in enumerate(networks):
            part = named[(named["network"] == network) & (named["labels"] == labels)]
            place = np.array([names.index(name) for name in part["name"]]) + 0.22 * (n - 1)
            sides = [part["auroc"] - part["low"], part["high"] - part["auroc"]]
            axes.errorbar(part["auroc"], place, xerr=sides, fmt="o", markersize=4, color=f"C{n}", label=network)
            axes.scatter(part["control"], place, s=18, facecolors="none", edgecolors=f"C{n}")
        axes.axvline(CHANCE, color="0.6", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.set(xlabel="AUROC (hollow: labels permuted)", xlim=(0, 1.02), title=f"effects: {labels}")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    sns.despine(figure)
    return figure
