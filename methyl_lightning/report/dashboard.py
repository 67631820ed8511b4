"""The dashboard of a project: which panels stand in which section, and the saved view of W&B that shows them.

What a panel draws goes by the names that runs have in W&B: metrics of their summary or history, and settings.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import wandb

from methyl_lightning.files import InputError
from methyl_lightning.metrics.names import AXES
from methyl_lightning.report.scalars import RETENTION
from methyl_lightning.report.server import refusal

GROUP = "model.network"  # a colour, a line with its band, a bar
HEADLINE_MAE, HEADLINE_SPEARMAN, HEADLINE_MAS_PCC = (
    f"test/unseen_unseen/{metric}" for metric in ("mae", "spearman", "mas_pcc")
)
STEP = "trainer/global_step"


class Line(NamedTuple):
    """A metric of the history over another, a line a model: the mean, and a band of a standard deviation over runs."""

    title: str
    x: str
    y: str
    log_x: bool = False


class Scatter(NamedTuple):
    """Two metrics of the summary against each other, a point a run."""

    title: str
    x: str
    y: str


class Bars(NamedTuple):
    """A metric of the summary, a bar a model: the mean, and the standard deviation over runs."""

    title: str
    metric: str


class Parallel(NamedTuple):
    """Settings and metrics side by side, a line a run; those of ``log`` on a logarithmic axis."""

    title: str
    columns: Sequence[str]
    log: Sequence[str] = ()


class Runs(NamedTuple):
    """A table of runs."""

    title: str
    columns: Sequence[str]


Panel = Line | Scatter | Bars | Parallel | Runs

RUNS = Runs(
    "runs", ("data.name", GROUP, "seed", HEADLINE_MAE, HEADLINE_SPEARMAN, HEADLINE_MAS_PCC, "cost/train_seconds")
)
SECTIONS: Mapping[str, Sequence[Panel]] = {
    "reproduction": (
        RUNS,
        Scatter("MAE against MAS-PCC, unseen CpGs and patients", HEADLINE_MAE, HEADLINE_MAS_PCC),
        Line("validation while training", STEP, "val/spearman"),
    ),
    "dilution": tuple(
        Line(f"{AXES[score]} on diluted expression", RETENTION, f"dilution/{score}", log_x=True)
        for score in ("mae", "spearman", "mas_pcc")
    ),
    "seeds": (
        Bars("MAE over seeds", HEADLINE_MAE),
        Bars("MAS-PCC over seeds", HEADLINE_MAS_PCC),
        Parallel(
            "what a sweep changes, and what it gives",
            ("seed", "model.learning_rate", "cost/steps", HEADLINE_MAE, HEADLINE_SPEARMAN, HEADLINE_MAS_PCC),
            log=("model.learning_rate",),
        ),
    ),
    "cost": (
        Scatter("what training time gives", "cost/train_seconds", HEADLINE_MAE),
        Line("cells a second", STEP, "train/pairs_per_second"),
        Bars("peak memory, GB", "cost/peak_rss_gb"),
    ),
}


def is_metric(name: str) -> bool:
    """Tell a metric from a setting."""
    return "/" in name


def build_view(entity: str, project: str) -> Any:
    """Build the saved view of a project, a ``wandb_workspaces.workspaces.Workspace``, without a server.

    Raises
    ------
    InputError
        If wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError as error:
        raise InputError(
            f"dashboard={entity}/{project}: needs a package; python -m pip install wandb-workspaces"
        ) from error
    sections = [
        workspaces.Section(name=name, panels=[_panel(v2, panel) for panel in panels], is_open=True)
        for name, panels in SECTIONS.items()
    ]
    columns = ["run:displayName", *(f"{'summary' if is_metric(name) else 'config'}:{name}" for name in RUNS.columns)]
    order = [workspaces.Ordering(workspaces.Summary(HEADLINE_MAS_PCC), ascending=False)]
    settings = workspaces.RunsetSettings(pinned_columns=columns, order=order)
    return workspaces.Workspace(
        entity=entity, project=project, name="methyl_lightning", sections=sections, runset_settings=settings
    )


def save_view(place: str) -> str:
    """Save the view in a project, and return its address.

    Parameters
    ----------
    place
        ``ENTITY/PROJECT``.

    Raises
    ------
    InputError
        If there is no such project, no key, or no way to the server.
    """
    entity, _, project = place.partition("/")
    if not (entity and project) or "/" in project:
        raise InputError(f"dashboard={place}: not ENTITY/PROJECT, as in the address of the project")
    view = build_view(entity, project)
    if reason := refusal():
        raise InputError(
            f"dashboard={place}: {reason}; set WANDB_API_KEY or run wandb login where the server can be reached, or "
            "draw the runs of a folder with runs=FOLDER dashboard=PICTURE.png"
        )
    try:
        view.save()
    except (wandb.Error, ValueError, TypeError, KeyError) as error:  # whose message may hold what was sent
        raise InputError(
            f"dashboard={place}: not saved ({type(error).__name__}); name a project that this key may write into"
        ) from error
    return view.url


def _panel(v2: ModuleType, panel: Panel) -> Any:
    """Make a panel of W&B with ``wandb_workspaces.reports.v2``."""

    def source(name: str) -> Any:
        return v2.SummaryMetric(name) if is_metric(name) else v2.Config(name)

    bands = {"groupby": v2.Config(GROUP), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    bands["max_runs_to_show"] = 100
    match panel:
        case Line(title, x, y, log_x):
            return v2.LinePlot(title=title, x=x, y=[y], log_x=log_x or None, **bands)
        case Scatter(title, x, y):
            return v2.ScatterPlot(title=title, x=source(x), y=source(y))
        case Bars(title, metric):
            return v2.BarPlot(title=title, metrics=[metric], **bands)
        case Parallel(title, columns, log):
            axes = [v2.ParallelCoordinatesPlotColumn(metric=source(name), log=name in log or None) for name in columns]
            return v2.ParallelCoordinatesPlot(title=title, columns=axes)
        case Runs():
            return v2.RunComparer(diff_only="split")
