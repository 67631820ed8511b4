"""Results as one table: the run's model, its references and the published figures."""

from pathlib import Path
from typing import Any

from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.texts import read_json
from methyl_lightning.files import InputError
from methyl_lightning.metrics.names import CALLS, COLUMNS, HEADINGS, UNDEFINED, with_interval
from methyl_lightning.metrics.schema import ViewMetrics
from methyl_lightning.metrics.table import show_table

DATA = "data.json"
CEILING = "ceiling"  # the planted truth of a simulated cohort, tested as if it were a model
PUBLISHED = (
    ("paper (TensorFlow)", "TCGA BRCA + LUAD, private build", 0.14, 0.80),
    ("TensorFlow on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.173, 0.740),
    ("PyTorch port on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.167, 0.742),
)


def references(folder: Path) -> list[Path]:
    """List the folders of the models that were tested beside a run's own, the ceiling last."""
    return sorted(folder.glob("references/*"), key=lambda path: (path.name == CEILING, path.name))


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """Read what testing a model has written: by view, sizes, values and their intervals.

    Raises
    ------
    InputError
        If ``metrics.json`` is missing or broken, or holds no metrics of a test view.
    """
    metrics = read_json(folder / "metrics.json", TEST_VIEWS)
    for view in TEST_VIEWS:
        if not isinstance(metrics[view], dict) or "n_pairs" not in metrics[view]:
            raise InputError(f"{folder / 'metrics.json'}: {view} holds no metrics; test the run's checkpoint again")
    return read_json(folder / "metrics.json", TEST_VIEWS, dict[str, ViewMetrics])


def results_table(folder: Path, label: str, cohort: str) -> list[list[str]]:
    """Gather this run, the references trained beside it and the published figures into rows of text, below a header.

    Parameters
    ----------
    folder
        Run folder with ``metrics.json`` and, perhaps, ``references/*/metrics.json``.
    label
        What to call the run's model.
    cohort
        The cohort that it was tested on.
    """
    runs = {label: folder} | {path.name: path for path in references(folder)}
    metrics_of = {name: read_metrics(path) for name, path in runs.items()}
    every = [result[view] for result in metrics_of.values() for view in TEST_VIEWS]
    columns = [*COLUMNS, *(key for key in CALLS if all(key in scores for scores in every))]
    rows = [
        [view, name, cohort, *(with_interval(result[view][key], *result[view][f"{key}_ci95"]) for key in columns)]
        for view in reversed(TEST_VIEWS)
        for name, result in metrics_of.items()
    ]
    for name, where, mae, spearman in PUBLISHED if columns == list(COLUMNS) else ():  # not of cells' calls
        known = {"mae": f"{mae:g}", "spearman": f"{spearman:g}"}
        rows.append(["published", name, where, *(known.get(key, UNDEFINED) for key in columns)])
    return [["view", "model", "cohort", *(HEADINGS[key] for key in columns)], *rows]


def print_table(rows: list[list[str]], folder: Path) -> None:
    """Print the table, its header first, and write it as ``table.md``."""
    show_table(
        folder / "table.md",
        rows[0],
        rows[1:],
        "Test views: value ({intervals}); Spearman pooled, and averaged over batches of 50 cells; Pearson pooled",
        intervals="95 % interval over patients",
        wide=235,
        names=3,
        wrapped=("cohort",),
    )
