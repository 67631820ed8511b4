"""Recoveries over seeds → the table of the README, in words by a rule, and its figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import t

RECOVERS, CHANCE = 0.9, 0.5  # AUROC


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return AUROC and precision over seeds, the control's AUROC, and the verdict, a row a network and method."""
    rows = []
    for (planted, method, network), part in table.groupby(["planted", "method", "network"], sort=False):
        real, control = (part.loc[part["permuted"] == permuted, "auroc"].dropna() for permuted in (False, True))
        half = t.ppf(0.975, len(real) - 1) * real.std() / np.sqrt(len(real)) if len(real) > 1 else np.nan
        low, precision = real.mean() - half, part.loc[~part["permuted"], "precision"].mean()
        needs_none = method == "distance alone"
        said = "needs no network" if needs_none else verdict(real.mean(), low, control.mean())
        rows.append((planted, method, network, real.mean(), low, real.mean() + half, precision, control.mean(), said))
    columns = ["planted", "method", "network", "auroc", "low", "high", "precision", "control", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def verdict(auroc: float, low: float, control: float) -> str:
    """Say whether a method recovers what was planted: the interval over seeds against chance, and the control."""
    if not low > CHANCE:
        return "does not recover it"
    if control >= auroc - 0.05:
        return "no better than of permuted labels"
    return "recovers it" if auroc >= RECOVERS else "above chance only"


def write_tables(table: pd.DataFrame, folder: Path) -> None:
    """Write ``tables.md`` and ``recovery.png``."""
    found = summarise(table)
    scores = table.groupby(["network", "permuted"], sort=False)[["mae", "mas_pcc"]].mean()
    lines = ["| network | labels | MAE | MAS-PCC |", "|---|---|---|---|"]
    for (network, permuted), row in scores.iterrows():  # type: ignore[misc]
        labels = "permuted" if permuted else "their own"
        lines.append(f"| {network} | {labels} | {row['mae']:.3f} | {row['mas_pcc']:.3f} |")
    lines += [
        "",
        "| planted | method | network | AUROC | precision | control | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found.itertuples():
        interval = f"{row.auroc:.2f} ({row.low:.2f}–{min(row.high, 1):.2f})"
        lines.append(
            f"| {row.planted} | {str(row.method).replace('_', ' ')} | {row.network} | {interval} | "
            f"{row.precision:.2f} | {row.control:.2f} | {row.verdict} |"
        )
    (folder / "tables.md").write_text("\n".join(lines) + "\n")
    draw(found).savefig(folder / "recovery.png", dpi=150)


def draw(found: pd.DataFrame) -> Figure:
    """Draw AUROC over seeds by method, a colour a network; hollow: the control."""
    names = list(dict.fromkeys(found["planted"] + ": " + found["method"].str.replace("_", " ")))
    figure = Figure(figsize=(9.0, 0.4 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    for n, (network, part) in enumerate(found.groupby("network", sort=False)):
        place = [
            names.index(f"{row.planted}: {str(row.method).replace('_', ' ')}") + 0.22 * (n - 1)
            for row in part.itertuples()
        ]
        sides = [part["auroc"] - part["low"], part["high"] - part["auroc"]]
        axes.errorbar(part["auroc"], place, xerr=sides, fmt="o", markersize=4, color=f"C{n}", label=str(network))
        axes.scatter(part["control"], place, s=18, facecolors="none", edgecolors=f"C{n}")
    axes.axvline(CHANCE, color="0.6", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="AUROC over seeds (hollow: labels permuted)", xlim=(0, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    sns.despine(figure)
    return figure
