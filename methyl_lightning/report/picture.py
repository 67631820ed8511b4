"""The dashboard as a picture: the same panels, drawn from run folders instead of W&B's server."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from methyl_lightning.data.texts import read_table
from methyl_lightning.dilution.run import summarise
from methyl_lightning.dilution.table import REPEATS
from methyl_lightning.files import replacing
from methyl_lightning.metrics.names import number
from methyl_lightning.report.dashboard import (
    GROUP,
    HEADLINE_MAS_PCC,
    SECTIONS,
    STEP,
    Bars,
    Line,
    Panel,
    Parallel,
    Runs,
    Scatter,
)
from methyl_lightning.report.figures import Colours, colours
from methyl_lightning.report.runs import find_runs, read_log, read_run
from methyl_lightning.report.scalars import dilution_levels, summary_scalars

PANEL = (4.6, 3.1)  # inches
TABLE_ROWS = 10  # of the best runs
LAYOUT = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)  # inches
POINTS = 60  # of a line, as W&B puts steps together


class Logged(NamedTuple):
    """What W&B would have of runs.

    Attributes
    ----------
    summary
        A row a run: settings (``model.network``), metrics (``test/unseen_unseen/mae``).
    history
        Of all runs, rows as they were logged, with the column by which they are grouped.
    """

    summary: pd.DataFrame
    history: pd.DataFrame


def read_logged(places: Sequence[str]) -> Logged:
    """Read the runs of folders under the names that W&B has them by.

    Raises
    ------
    InputError
        If there is no run, or a file of one is missing or broken.
    """
    summaries, histories = [], []
    for folder in find_runs(places):
        run = read_run(folder)
        summaries.append(pd.json_normalize(run.config).iloc[0].to_dict() | summary_scalars(folder))
        log = read_log(run.models[0]).rename(columns={"step": STEP})
        repeats = read_table(folder / REPEATS)
        rows = log.to_dict("records") + (dilution_levels(summarise(repeats)) if len(repeats) else [])
        histories += [row | {GROUP: summaries[-1][GROUP]} for row in rows]
    return Logged(pd.DataFrame(summaries), pd.DataFrame(histories, columns=None if histories else [GROUP]))


def draw_dashboard(logged: Logged, sections: Mapping[str, Sequence[Panel]] = SECTIONS) -> Figure:
    """Draw a section a row; a model has the same colour in all panels."""
    colour = colours(sorted(logged.summary[GROUP].unique()))
    width = max(map(len, sections.values()))
    figure = Figure(figsize=(PANEL[0] * width, PANEL[1] * len(sections) + 0.6), layout=LAYOUT)
    for row, (name, panels) in zip(
        figure.subfigures(len(sections), 1, squeeze=False)[:, 0], sections.items(), strict=True
    ):
        row.suptitle(name, x=0.01, ha="left", fontweight="bold")
        for axes, panel in zip(row.subplots(1, width, squeeze=False)[0], panels, strict=False):
            axes.set_title(panel.title, fontsize="small")
            _draw(axes, panel, logged, colour)
    handles = [Figure().subplots().plot([], color=value, label=name)[0] for name, value in colour.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return figure


def save_picture(places: Sequence[str], output: Path) -> None:
    """Draw the dashboard of runs into a PNG file.

    Raises
    ------
    InputError
        As :func:`read_logged`, or if the file cannot be written.
    """
    figure = draw_dashboard(read_logged(places))
    with replacing(output, "picture") as path:
        figure.savefig(path, dpi=110, format="png")


def _draw(axes: Axes, panel: Panel, logged: Logged, colour: Colours) -> None:
    match panel:
        case Line():
            _line(axes, panel, logged.history, colour)
        case Scatter(_, x, y):
            for group, rows in _with(logged.summary, x, y).groupby(GROUP):
                axes.scatter(rows[x], rows[y], color=colour[str(group)], s=22)
            axes.set(xlabel=x, ylabel=y)
        case Bars(_, metric):
            rows = _with(logged.summary, metric).groupby(GROUP)[metric].agg(["mean", "std"]).sort_index(ascending=False)
            axes.barh(
                rows.index, rows["mean"], xerr=rows["std"].fillna(0), color=[colour[str(name)] for name in rows.index]
            )
            axes.set_xlabel(metric)
        case Parallel():
            _parallel(axes, panel, logged.summary, colour)
        case Runs():
            _table(axes, panel, logged.summary)
    if not isinstance(panel, Parallel | Runs):
        sns.despine(ax=axes)
        axes.tick_params(labelsize="small")
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize("small")
        if not axes.has_data():
            axes.text(0.5, 0.5, "none of these runs", ha="center", transform=axes.transAxes, color="0.5")


def _with(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Keep the rows that have numbers in all columns; none where a column is missing."""
    return frame.reindex(columns=[GROUP, *columns]).dropna()


def _line(axes: Axes, panel: Line, history: pd.DataFrame, colour: Colours) -> None:
    """Draw the mean over runs at each place, and a standard deviation around it."""
    rows = _with(history, panel.x, panel.y)
    if rows[panel.x].nunique() > POINTS:
        bins = pd.cut(rows[panel.x].astype(float), POINTS)
        rows[panel.x] = bins.map(lambda interval: interval.mid).astype(float)
    for group, own in rows.groupby(GROUP):
        at = own.groupby(panel.x)[panel.y].agg(["mean", "std"]).fillna(0)
        axes.plot(at.index, at["mean"], "o-", color=colour[str(group)], markersize=2.5, linewidth=1.2)
        axes.fill_between(at.index, at["mean"] - at["std"], at["mean"] + at["std"], color=colour[str(group)], alpha=0.2)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.log_x and len(rows):
        axes.set_xscale("log")


def _parallel(axes: Axes, panel: Parallel, summary: pd.DataFrame, colour: Colours) -> None:
    """Draw a run as a line over axes of their own ranges, whose ends are written beside them."""
    columns = [name for name in panel.columns if name in summary and summary[name].notna().any()]
    values = summary[columns].astype(float)
    for name in set(panel.log) & set(columns):
        values[name] = np.log10(values[name])
    low, high = values.min(), values.max()
    scaled = ((values - low) / (high - low).where(high > low)).fillna(0.5).where(values.notna())
    for (_, run), group in zip(scaled.iterrows(), summary[GROUP], strict=True):
        axes.plot(range(len(columns)), run, color=colour[group], linewidth=1, alpha=0.8)
    for place, name in enumerate(columns):
        axes.axvline(place, color="0.7", linewidth=0.8, zorder=0)
        ends = summary[name].astype(float)
        for y, value, side in ((-0.03, ends.min(), "top"), (1.03, ends.max(), "bottom")):
            axes.text(place, y, f"{value:.3g}", ha="center", va=side, fontsize="x-small")
    labels = [name.rpartition("/")[2].rpartition(".")[2] for name in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize="x-small", rotation=20, ha="right")
    axes.tick_params(axis="x", length=0, pad=10)
    axes.set(yticks=[], ylim=(-0.15, 1.15))
    sns.despine(ax=axes, left=True, bottom=True)


def _table(axes: Axes, panel: Runs, summary: pd.DataFrame) -> None:
    """Write the best runs, sorted as W&B sorts them."""
    columns = [name for name in panel.columns if name in summary]
    order = [name for name in (HEADLINE_MAS_PCC,) if name in columns]
    best = (summary.sort_values(order, ascending=False) if order else summary).head(TABLE_ROWS)[columns]
    digits = [1 if name.startswith("cost/") else 3 for name in columns]
    cells = [[_cell(*value) for value in zip(row, digits, strict=True)] for row in best.to_numpy(object)]
    axes.set_axis_off()
    heads = [name.rpartition("/")[2].rpartition(".")[2] for name in columns]
    table = axes.table(cells, colLabels=heads, loc="upper center", cellLoc="right", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(6.5)
    table.auto_set_column_width(list(range(len(columns))))


def _cell(value: Any, digits: int) -> str:
    return number(value, digits) if isinstance(value, float) else str(value)
