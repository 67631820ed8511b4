"""Run folders → tables, figures and one HTML page that needs nothing else.

Legend: C CpGs, S samples.
"""

import base64
import io
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from methyl_lightning import __version__
from methyl_lightning.data.splits import HEADLINE, PARTS, gap_line
from methyl_lightning.data.texts import read_table
from methyl_lightning.evaluate.comparisons import compare_runs
from methyl_lightning.evaluate.figures import training_curves
from methyl_lightning.evaluate.table import PUBLISHED
from methyl_lightning.files import InputError, replacing
from methyl_lightning.metrics.names import COLUMNS, HEADINGS, MAIN
from methyl_lightning.report import figures as page_figures
from methyl_lightning.report.runs import (
    Run,
    Tested,
    TestSet,
    find_runs,
    read_interpretation,
    read_log,
    read_predictions,
    read_run,
    results,
    test_sets,
)
from methyl_lightning.report.seeds import gather_seeds, seeds_of
from methyl_lightning.report.tables import (
    best_and_worst,
    calibration,
    calibration_error,
    cpg_scores,
    grids,
    in_short,
    number,
    p_value,
)

TEMPLATE = "page.html.jinja"
GENES_SHOWN = 20
VIEW_NAMES = {
    HEADLINE: "unseen CpGs × unseen patients",
    "train_cpg-test_sample": "seen CpGs × unseen patients",
    "test_cpg-train_sample": "unseen CpGs × seen patients",
}
DIVISION = ("fractions", "cpg_split", "most_variable", "gene_within_bp")  # settings of the data module
STRATA_NAMES = {
    "tss_distance": "distance to the nearest gene start",
    "island": "CpG-island relation",
    "variance": "variance over training samples",
    "cohort": "cohort",
}
# drawn beside the runs' own models: more points beside each other cannot be told apart; the table has all
MODELS_IN_STRATA, IN_STRATA = 6, ("expression_only", "sequence_only", "bilinear_ridge", "cpg_mean")


class Results(NamedTuple):
    """Everything that a report says about one test set; frames by model are of the headline view.

    Attributes
    ----------
    test_set
        The runs and their models.
    scores
        See :func:`methyl_lightning.report.runs.results`.
    logs
        By model, what was logged while it trained.
    cells
        By model, measured (NaN missing) and predicted beta as [C, S].
    cpgs
        By model, see :func:`methyl_lightning.report.tables.cpg_scores`.
    bins
        By model, see :func:`methyl_lightning.report.tables.calibration`.
    strata
        Of all models: ``model`` and the columns of ``strata.csv``; empty where the runs have none.
    comparisons
        Of all runs: the columns of ``comparisons.csv``; empty where the runs have none.
    """

    test_set: TestSet
    scores: pd.DataFrame
    logs: dict[str, pd.DataFrame]
    cells: dict[str, tuple[np.ndarray, np.ndarray]]
    cpgs: dict[str, pd.DataFrame]
    bins: dict[str, pd.DataFrame]
    strata: pd.DataFrame
    comparisons: pd.DataFrame


def gather(places: str | Sequence[str]) -> list[Results]:
    """Read run folders and work out what the report shows, one result a test set.

    Parameters
    ----------
    places
        Run folders, folders of run folders, or patterns of such.

    Raises
    ------
    InputError
        If there is no run, or a file of one is missing or broken.
    """
    return [_results(one) for one in test_sets(gather_seeds([read_run(folder) for folder in find_runs(places)]))]


def _results(test_set: TestSet) -> Results:
    logs, cells, cpgs, bins = {}, {}, {}, {}
    strata, comparisons = [], []
    for model in test_set.models:
        log = read_log(model)
        if "val/mae" in log:
            logs[model.label] = log
        predictions = read_predictions(model, HEADLINE)
        if predictions is not None:
            cells[model.label] = grids(predictions)
            cpgs[model.label] = cpg_scores(predictions)
            bins[model.label] = calibration(predictions)
        strata.append(read_table(model.folder / "strata.csv").assign(model=model.label))
        if model.own:
            comparisons.append(_comparisons(model))
    filled = ([table for table in tables if len(table)] for tables in (strata, comparisons))  # older runs have none
    frames = (pd.concat(tables, ignore_index=True) if tables else pd.DataFrame() for tables in filled)
    return Results(test_set, results(test_set), logs, cells, cpgs, bins, *frames)


def _comparisons(model: Tested) -> pd.DataFrame:
    """Read how a run's model compares with its references, or work it out over seeds."""
    table = read_table(model.folder / "comparisons.csv").assign(model=model.label)
    if not model.folders or table.empty:
        return table
    return pd.concat(
        compare_runs(model.folders, [folder / "references" / name for folder in model.folders]).assign(
            model=model.label, reference=name
        )
        for name in table["reference"].unique()
        if all((folder / "references" / name).is_dir() for folder in model.folders)
    )


def _shown_seed(test_set: TestSet) -> int | None:
    """Tell which seed stands for the others where a test set has runs of several; None where it has none such."""
    return next((seeds_of(run)[0] for run in test_set.runs if run.repeats), None)


def draw(found: Results) -> dict[str, Figure]:
    """Draw the figures of a test set, by name; none where the runs do not hold what it shows."""
    models = [model.label for model in found.test_set.models]
    colour = page_figures.colours(models)
    figures = {
        "scores": page_figures.scores(found.scores, HEADLINE, colour),
        "density": page_figures.densities(found.cells),
        "correlations": page_figures.correlation_distributions(found.cpgs, colour),
        "calibration": page_figures.reliability(found.bins, colour),
    }
    if found.logs:
        figures["training"] = training_curves(found.logs, colour)
    if len(found.strata):
        own = [model.label for model in found.test_set.models if model.own]
        chosen = [*own, *(name for name in IN_STRATA if name in models)][:MODELS_IN_STRATA]
        shown = found.strata[(found.strata["view"] == HEADLINE) & found.strata["model"].isin(chosen)]
        if len(shown):
            named = shown.assign(by=shown["by"].replace(STRATA_NAMES))
            figures["strata"] = page_figures.strata(named, ("mae", "mas_pcc"), colour)
    return figures


def extremes(found: Results, model: str) -> pd.DataFrame:
    """List the ten CpGs that a model predicts best and the ten worst, ``which`` says which, by correlation."""
    best, worst = best_and_worst(found.cpgs[model])
    return pd.concat([best.assign(which="best"), worst.assign(which="worst")]).rename_axis("cpg").reset_index()


def write_report(places: str | Sequence[str], output: Path) -> Path:
    """Write the page, and its figures as PNG into the folder of the same name beside it.

    Parameters
    ----------
    places
        See :func:`gather`.
    output
        The page, ``….html``.

    Returns
    -------
    pathlib.Path
        Folder of the figures.

    Raises
    ------
    InputError
        If a run cannot be read, or the page not be written.
    """
    if output.suffix != ".html":
        raise InputError(f"output={output}: must end in .html; figures go into the folder of the same name beside it")
    everything = gather(places)
    folder = output.with_suffix("")
    parts: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for position, found in enumerate(everything, 1):
        images = {kind: _png(figure) for kind, figure in draw(found).items()}
        files |= {f"{position}_{_slug(found.test_set.name)}_{kind}.png": image for kind, image in images.items()}
        parts.append(_contents(found, images))
    page = render(parts)
    for name, image in files.items():
        with replacing(folder / name, "figure") as path:
            path.write_bytes(image)
    with replacing(output, "report") as path:
        path.write_text(page, encoding="utf-8")
    return folder


def render(parts: list[dict[str, Any]]) -> str:
    """Fill the template; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "count": "{:,}".format, "p_value": p_value, "gap_line": gap_line}
    return environment.get_template(TEMPLATE).render(
        parts=parts,
        several=len(parts) > 1,
        version=__version__,
        written=datetime.now().strftime("%-d %B %Y, %H:%M"),
        n_runs=sum(run["n_runs"] for part in parts for run in part["runs"]),
        published=PUBLISHED,
        view_names=VIEW_NAMES,
        headline=HEADLINE,
        main_metrics={key: HEADINGS[key] for key in MAIN},
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    return buffer.getvalue()


def _embedded(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def _interpretation(model: str, said: dict[str, Any]) -> dict[str, Any]:
    """Lay out what a model's interpretation says, the first genes and the figures."""
    return {
        "model": model,
        "sentences": said["sentences"],
        "genes": said["genes"].head(GENES_SHOWN).to_dict("records"),
        "images": {path.stem: _embedded(path.read_bytes()) for path in said["figures"]},
    }


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")


def _contents(found: Results, images: dict[str, bytes]) -> dict[str, Any]:
    """Lay out what the template shows of a test set."""
    main = [model.label for model in found.test_set.models if model.own]
    return {
        "name": found.test_set.name,
        "images": {kind: _embedded(image) for kind, image in images.items()},
        "short": in_short(found.scores, found.comparisons),
        "runs": [_run_row(model, run) for model, run in zip(found.test_set.models, found.test_set.runs, strict=False)],
        "data": _data_facts(found),
        "seed": _shown_seed(found.test_set),
        "columns": {key: HEADINGS[key] for key in (*COLUMNS, *HEADINGS) if key in set(found.scores["metric"])},
        "views": {view: _wide(table, ["model", "own"]) for view, table in found.scores.groupby("view", sort=False)},
        "has_cpg_intervals": bool(found.scores["low_cpgs"].notna().any()),
        "comparisons": _wide(_headline(found.comparisons), ["model", "reference"]),
        "strata": {
            STRATA_NAMES.get(str(by), str(by)): _wide(table, ["group", "model"])
            for by, table in (_headline(found.strata).groupby("by", sort=False) if len(found.strata) else ())
        },
        "correlations": [_correlation_row(model, scores) for model, scores in found.cpgs.items()],
        "bins": {model: bins.to_dict("records") for model, bins in found.bins.items()},
        "errors": {model: calibration_error(bins) for model, bins in found.bins.items()},
        "extremes": {
            model: {which: part.to_dict("records") for which, part in extremes(found, model).groupby("which")}
            for model in main
        },
        "interpretations": [
            _interpretation(model.label, said)
            for model in found.test_set.models
            if model.own and (said := read_interpretation(model))
        ],
        "usage": [(model.label, model.usage) for model in found.test_set.models if model.usage],
    }


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    """Take the headline view and the main metrics of a long table, which may be empty."""
    return table[(table["view"] == HEADLINE) & table["metric"].isin(MAIN)] if len(table) else table


def _wide(table: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    """Lay a long table out as one row for each value of the keys, with a cell a metric."""
    if table.empty:
        return []
    return [
        dict(zip(keys, values, strict=True))
        | {"first": part.iloc[0].to_dict(), "cells": part.set_index("metric").to_dict("index")}
        for values, part in table.groupby(keys, sort=False)
    ]


def _run_row(model: Tested, run: Run) -> dict[str, Any]:
    settings = {key: value for key, value in run.config["model"].items() if key not in ("_target_", "network")}
    runs = run.repeats or [run]
    return {
        "model": model.label,
        "folder": ", ".join("/".join(one.folder.resolve().parts[-2:]) for one in runs),
        "settings": ", ".join(f"{key}={value}" for key, value in settings.items()) or "none",
        "seed": _listed([seeds_of(one)[0] for one in runs]),
        "n_runs": len(runs),
        "steps": model.usage.get("steps"),
        "references": ", ".join(other.folder.name for other in run.models[1:]) or "none",
    }


def _data_facts(found: Results) -> dict[str, Any]:
    run = found.test_set.runs[0]
    provenance = run.data.get("provenance") or {"settings": run.config["data"].get("source", {})}
    settings = {
        # where files lay is no one's matter
        key: Path(value).name if isinstance(value, str) and "/" in value else value
        for key, value in provenance["settings"].items()
        if not key.startswith("_")
    }
    return {
        "sizes": {part: {axis: len(run.split[axis].get(part, [])) for axis in ("cpg", "sample")} for part in PARTS},
        "stored": run.data,
        "how": run.split.get("how", {}),
        "source": provenance.get("source", run.config["data"]["name"]),
        "inputs": provenance.get("inputs", []),
        "missing": provenance.get("counts", {}).get("missing_share"),
        "settings": settings,
        "division": {key: run.config["data"].get(key) for key in DIVISION}
        | {"seed": _listed([seeds_of(one)[1] for one in run.repeats or [run]])},
    }


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(seeds)))


def _correlation_row(model: str, scores: pd.DataFrame) -> dict[str, Any]:
    values = scores["pearson"].dropna()
    quartiles = values.quantile([0.25, 0.5, 0.75]).tolist()
    share = float((values > 0.5).mean()) if len(values) else math.nan
    return {"model": model, "n": len(values), "of": len(scores), "quartiles": quartiles, "above_half": share}
