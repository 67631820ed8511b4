"""Dilution curves of several runs or ways in one figure and table: ``python -m experiments.dilution.curves …``.

usage: python -m experiments.dilution.curves LABEL=FOLDER:MATCH … --output FIGURE.png [--sequence-only FOLDER]

FOLDER holds the ``dilution.csv`` that testing has written, MATCH is one of its ways. The table is printed as Markdown.
"""

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.dilution.run import DILUTED, MEAN_EXPRESSION, UNDILUTED, summarise
from methyl_lightning.files import InputError, replacing
from methyl_lightning.metrics.names import AXES, UNDEFINED, number

SCORES = ("mae", "mas_pcc")
COLOURS, MARKERS = ("0.0", "0.35", "0.6", "C0", "C1", "C2"), ("o", "^", "v", "s", "D", "P")
CURVE = re.compile(r"(?P<label>.+)=(?P<folder>.+):(?P<match>\w+)")


class Curve(NamedTuple):
    """A run's scores in one way: the summary of its levels, undiluted and without expression."""

    label: str
    folder: Path
    diluted: pd.DataFrame
    undiluted: pd.Series
    without: pd.Series


def read_curve(text: str) -> Curve:
    """Read what LABEL=FOLDER:MATCH names."""
    named = CURVE.fullmatch(text)
    if named is None:
        raise InputError(f"{text}: not LABEL=FOLDER:MATCH, such as depth=outputs/run:depth")
    path = Path(named["folder"], "dilution.csv")
    if not path.is_file():
        raise InputError(f"{path}: no such file; evaluate the run with +experiment=dilution")
    summary = summarise(pd.read_csv(path, keep_default_na=False, na_values=[""]))
    diluted = summary[(summary["test"] == DILUTED) & (summary["match"] == named["match"])]
    if diluted.empty:
        raise InputError(f"{path}: was not matched by {named['match']}; evaluate with dilution.match={named['match']}")
    whole, without = (summary[summary["test"] == test].iloc[0] for test in (UNDILUTED, MEAN_EXPRESSION))
    return Curve(named["label"], path.parent, diluted, whole, without)


def draw(curves: list[Curve], sequence_only: float | None) -> Figure:
    """Draw MAE and MAS-PCC against the level: mean and 95 % interval of each curve, and lines that need no expression.

    What each run gives for training-mean expression is dotted in the colour of its first curve.
    """
    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    for axes, score in zip(figure.subplots(1, 2), SCORES, strict=True):
        drawn: set[Path] = set()
        for curve, colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
            own = curve.diluted
            error = [own[score] - own[f"{score}_low"], own[f"{score}_high"] - own[score]]
            style = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2}
            axes.errorbar(own["retention"], own[score], error, label=curve.label, **style)
            if score == "mae" and curve.folder not in drawn:
                label = f"no expression, {curve.label}" if drawn else "no expression (training mean)"
                axes.axhline(curve.without["mae"], color=colour, linestyle=":", label=label)
                drawn.add(curve.folder)
        if score == "mae" and sequence_only is not None:
            axes.axhline(sequence_only, color="0.6", linestyle="--", label="sequence-only network")
        axes.set(xscale="log", xlabel="draws a sample", ylabel=AXES[score])
        sns.despine(ax=axes)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def table(curves: list[Curve]) -> str:
    """Set MAE and MAS-PCC of all curves as Markdown, a row a level."""
    levels = sorted({level for curve in curves for level in curve.diluted["retention"]})
    rows = [["draws", *(curve.label for curve in curves)], ["---"] * (len(curves) + 1)]
    for level in levels:
        cells = [curve.diluted[curve.diluted["retention"] == level] for curve in curves]
        rows.append([f"{level:,.10g}", *(both(row.iloc[0]) if len(row) else UNDEFINED for row in cells)])
    rows.append(["undiluted", *(both(curve.undiluted) for curve in curves)])
    rows.append(["no expression", *(both(curve.without) for curve in curves)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def both(row: pd.Series) -> str:
    """Write MAE and MAS-PCC."""
    return " / ".join(number(row[score]) for score in SCORES)


def main() -> None:
    """Draw the figure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curves", nargs="+", help="LABEL=FOLDER:MATCH")
    parser.add_argument("--sequence-only", type=Path, help="folder with the metrics.json of that network")
    parser.add_argument("--output", type=Path, required=True)
    settings = parser.parse_args()
    try:
        curves = [read_curve(text) for text in settings.curves]
        of_sequence = None
        if settings.sequence_only is not None:
            of_sequence = json.loads((settings.sequence_only / "metrics.json").read_text())[HEADLINE]["mae"]
    except (InputError, OSError) as error:
        parser.exit(2, f"{error}\n")
    with replacing(settings.output, "figure") as path:
        draw(curves, of_sequence).savefig(path, dpi=110, format="png")
    print(table(curves))
    if of_sequence is not None:
        print(f"\nMAE of the sequence-only network: {of_sequence:.3f}")


if __name__ == "__main__":
    main()
