"""Results as one table: the run's model, its references and the published figures."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from methyl_lightning.data.splits import TEST_VIEWS

HEADLINE = "test_cpg-test_sample"
DATA = "data.json"


COLUMNS = {
    "mae": "MAE",
    "spearman": "Spearman",
    "spearman_batch50": "Spearman, by 50",
    "pearson": "Pearson",
    "mas_pcc": "MAS-PCC",
    "mac_pcc": "MAC-PCC",
}


PUBLISHED = (
    ("paper (TensorFlow)", "TCGA BRCA + LUAD, private build", 0.14, 0.80),
    ("TensorFlow on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.173, 0.740),
    ("PyTorch port on rebuilt data", "TCGA BRCA + LUAD, rebuilt", 0.167, 0.742),
)


def results_table(folder: Path, label: str, cohort: str) -> list[list[str]]:
    """Gather this run, the references trained beside it and the published figures into rows of text.

    Parameters
    ----------
    folder
        Run folder with ``metrics.json`` and, perhaps, ``references/*/metrics.json``.
    label
        What to call the run's model.
    cohort
        The cohort that it was tested on.
    """
    references = sorted(folder.glob("references/*"), key=lambda path: (path.name == "ceiling", path.name))
    runs = {label: folder} | {path.name: path for path in references}
    metrics_of = {name: json.loads((path / "metrics.json").read_text()) for name, path in runs.items()}
    rows = []
    for view in reversed(TEST_VIEWS):
        for name, result in metrics_of.items():
            cells = [_cell(result[view][key], result[view][f"{key}_ci95"]) for key in COLUMNS]
            rows.append([view, name, cohort, *cells])
    for name, where, mae, spearman in PUBLISHED:
        rows.append(["published", name, where, f"{mae:g}", f"{spearman:g}", *["–"] * (len(COLUMNS) - 2)])
    return rows


def _cell(value: float | None, interval: list[float | None]) -> str:
    if value is None:
        return "–"
    low, high = interval
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f}–{high:.3f})"


TABLE_WIDTH = 212


HEADER = ("view", "model", "cohort", *COLUMNS.values())


def print_table(rows: list[list[str]], folder: Path) -> None:
    """Print the table and write it as ``table.md``; a terminal too narrow for the intervals shows values only."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    narrow = console.width < TABLE_WIDTH
    intervals = f"intervals in {folder / 'table.md'}" if narrow else "95 % interval over patients"
    title = f"Test views: value ({intervals}); Spearman pooled, and averaged over batches of 50 cells; Pearson pooled"
    table = Table(title=title, title_justify="left", padding=(0, 0 if narrow else 1))
    for i, name in enumerate(HEADER):
        table.add_column(name, no_wrap=i != HEADER.index("cohort"))
    for previous, row in zip([None, *rows], rows, strict=False):
        if previous is not None and previous[0] != row[0]:
            table.add_section()
        first = HEADER.index("MAE")
        table.add_row(*row[:first], *(cell.partition(" (")[0] if narrow else cell for cell in row[first:]))
    console.print(table)
