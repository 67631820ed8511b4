"""Predict sections and cells with trained runs, check what can be checked, write tables and figures.

usage: python -m experiments.spatial RUN [RUN …] --sections A1.h5ad … [--cells pbmc68k_reduced.h5ad]
           --dilution dilution.csv --output FOLDER
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import anndata
import numpy as np
import pandas as pd

from experiments.spatial import figures
from experiments.spatial.cells import cell_rows
from experiments.spatial.cis import cohort_relation
from experiments.spatial.diluted_bulk import ALL_LEVELS, thinned_bulk
from experiments.spatial.inputs import Run, open_run, read_section
from experiments.spatial.sections import SETTINGS, Section, examine, label_means
from methyl_lightning.files import InputError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def _spot_rows(data: anndata.AnnData, left_out: int, dilution: pd.DataFrame) -> pd.DataFrame:
    """Describe the spots themselves: rows quantities, columns settings."""
    columns = {}
    for setting, settings in SETTINGS.items():
        genes_N = data.obs["distinct_around" if "aggregate" in settings else "distinct"].to_numpy(np.float64)
        retention_N = figures.equivalent_retention(genes_N, dilution)
        columns[setting] = {
            "spots": len(data),
            "spots_left_out": left_out,
            "molecules": data.obs["counts"].median(),
            "distinct_genes": np.median(genes_N),
            "equivalent_retention": np.median(retention_N),
        }
    return pd.DataFrame(columns)


def all_rows(
    args: argparse.Namespace, run: Run, dilution: pd.DataFrame
) -> tuple[dict[str, Section], dict[str, pd.DataFrame]]:
    """Do everything with one run: sections by name, and tables by name."""
    sections, summaries, labels = {}, [], []
    cohort_cis_C = cohort_relation(run)
    read = {path.stem: read_section(path, run.expression_SG.columns) for path in args.sections}
    for name, (data, left_out) in read.items():
        sections[name], found = examine(run, data, cohort_cis_C)
        found = pd.concat([_spot_rows(data, left_out, dilution), found]).dropna(how="all")
        summary = found.rename_axis("quantity").reset_index()
        summaries.append(summary.assign(run=run.name, section=name))
        labels.append(label_means(run, sections[name]))
        print(f"{run.name}: {name}, {len(data)} spots, {left_out} left out", flush=True)
    genes = run.expression_SG.columns
    for data, _ in read.values():
        genes = genes[genes.isin(data.var_names)]
    molecules_N = np.concatenate([data.obs["matched_counts"].to_numpy() for data, _ in read.values()])
    bulk = thinned_bulk(run, cohort_cis_C, genes, molecules_N, ALL_LEVELS)
    tables = {"sections": pd.concat(summaries), "labels": pd.concat(labels), "thinned_bulk": bulk}
    if args.cells is not None:
        tables["cells"] = pd.DataFrame([{"run": run.name, **cell_rows(run, args.cells)}])
    covered = run.module.card.get("coverage", {})
    tables["coverage"] = pd.DataFrame([{"run": run.name, "view": view, "covered": covered[view]} for view in covered])
    return sections, tables


def run(args: argparse.Namespace) -> None:
    """Do what the arguments ask; files appear in the output folder only when all are complete."""
    start = time.perf_counter()
    runs = [open_run(folder) for folder in args.runs]
    dilution = figures.read_dilution(args.dilution)
    gathered: dict[str, list[pd.DataFrame]] = {}
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.output) as scratch:
            folder = Path(scratch)
            for number, one in enumerate(runs):
                sections, tables = all_rows(args, one, dilution)
                for name, table in tables.items():
                    if name != "labels" or number == 0:
                        gathered.setdefault(name, []).append(table)
                drawn = figures.of_run(one, sections) if number == 0 else {}
                if number < args.maps:
                    drawn[f"tissue_{one.name}"] = figures.tissue(one, sections)
                if number == 0:
                    shown = sections
                for name, figure in drawn.items():
                    figure.savefig(folder / f"{name}.png", dpi=90)
            bulk = pd.concat(gathered["thinned_bulk"][: args.maps])
            figures.dilution_level(dilution, shown, bulk).savefig(folder / "dilution.png", dpi=90)
            for name, parts in gathered.items():
                table = pd.concat(parts, ignore_index=True)
                table = table[["run", *(column for column in table if column != "run")]]
                table.to_csv(folder / f"{name}.csv", index=False, float_format="%.3g")
            for path in folder.iterdir():
                path.replace(args.output / path.name)
    except OSError as error:
        raise InputError(f"cannot write to --output {args.output}: {error.strerror or error}") from None
    print(f"written to {args.output} in {time.perf_counter() - start:.0f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and run; what a person can mend ends in one line on standard error and exit status 2."""
    parser = _Parser(prog="python -m experiments.spatial", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; figures show the first")
    parser.add_argument("--sections", type=Path, nargs="+", required=True, help=".h5ad with coordinates and labels")
    parser.add_argument("--cells", type=Path, help=".h5ad with .raw, bulk_labels and n_counts")
    parser.add_argument("--dilution", type=Path, required=True, help="dilution.csv of the dilution test")
    parser.add_argument("--maps", type=int, default=1, help="so many runs are drawn as maps and curves, default 1")
    parser.add_argument("--output", type=Path, default=Path("outputs/spatial/report"), help="default %(default)s")
    warnings.filterwarnings("ignore", "Mean of empty slice")
    try:
        run(parser.parse_args(argv))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
