"""A dilution test as files: long-format CSV, table beside the published one, figures; and a sweep gathered into one."""

import json
import math
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from methyl_lightning.data.texts import read_json, read_table
from methyl_lightning.dilution import figures as dilution_figures
from methyl_lightning.dilution.figures import level_name
from methyl_lightning.dilution.run import DILUTED, MEAN_EXPRESSION, SCORES, UNDILUTED, DilutionResult, summarise
from methyl_lightning.files import InputError, replacing
from methyl_lightning.metrics.names import HEADINGS, UNDEFINED, number
from methyl_lightning.metrics.table import show_table, write_csv

REPEATS, EXPRESSION, HISTOGRAMS, FACTS = (
    "dilution.csv",
    "dilution_expression.csv",
    "dilution_histograms.csv",
    "dilution.json",
)
KEYS = {  # columns that tell rows apart
    REPEATS: ["test", "match", "retention", "repeat"],
    EXPRESSION: ["retention", "sample", "gene"],
    HISTOGRAMS: ["quantity", "retention", "low"],
}
# agotliber/CH3_project, 10 repeats on TCGA BRCA + LUAD: draws → MAE, Spearman averaged over batches of 50
PUBLISHED = {
    100.0: (0.23, 0.66),
    1_000.0: (0.22, 0.68),
    5_000.0: (0.19, 0.72),
    10_000.0: (0.18, 0.73),
    15_000.0: (0.17, 0.74),
    20_000.0: (0.17, 0.74),
}
COLUMNS = ("genes", *SCORES)
NAMES = HEADINGS | {"genes": "genes kept", "spearman_upstream": "Spearman, by 50 of 1,000"}
WAYS = {
    "scaler": "scaler, as they are, by the range of the undiluted training samples",
    "refit": "refit, by their own range, refitted on the diluted test samples themselves, as upstream did",
    "depth": "depth, full expression estimated from training samples that are as thin",
}
TESTS = (DILUTED, UNDILUTED, MEAN_EXPRESSION)
SETTINGS = ("method", "seed")


def write_results(result: DilutionResult, folder: Path) -> None:
    """Write everything a dilution test gives into a run folder, and print the table.

    ``dilution.csv`` has every repeat, ``dilution_expression.csv`` and ``dilution_histograms.csv`` what two of the
    figures show, ``dilution.json`` sizes, ``dilution.md`` the table, ``figures/dilution_*`` PNG and PDF.
    """
    for name, frame in ((REPEATS, result.repeats), (EXPRESSION, result.expression), (HISTOGRAMS, result.histograms)):
        write_csv(frame, folder / name)
    with replacing(folder / FACTS, "facts") as path:
        path.write_text(json.dumps(result.facts, indent=1))
    summary = summarise(result.repeats)
    for name, figure in _figures(result, summary).items():
        for kind in ("png", "pdf"):
            with replacing(folder / "figures" / f"dilution_{name}.{kind}", "figure") as path:
                figure.savefig(path, dpi=150, format=kind)
    show_table(
        folder / "dilution.md",
        ("match", "retention", *(NAMES[key] for key in COLUMNS), "published"),
        _table(summary, _published(result.repeats)),
        "Dilution of the test samples: mean ± sd ({intervals}) over repeats; published: MAE / Spearman",
        intervals="95 % interval",
        wide=190,
        notes=_notes(result, summary),
    )


def read_sweep(folder: Path) -> DilutionResult:
    """Gather the jobs of a multirun, one level or more each, as if they had been one test.

    Raises
    ------
    InputError
        If there is no finished job, or the jobs are not parts of one test.
    """
    jobs = sorted(path.parent for path in folder.glob(f"*/{REPEATS}"))
    if not jobs:
        raise InputError(f"{folder}: no dilution test in its subfolders; name the folder that a --multirun has written")
    frames = {name: pd.concat([read_table(job / name, key) for job in jobs]) for name, key in KEYS.items()}
    repeats = frames[REPEATS]
    for name in SETTINGS:
        if repeats[name].nunique() > 1:
            values = ", ".join(map(str, repeats[name].unique()))
            raise InputError(f"{folder}: the jobs differ in {name} ({values}); gather one sweep over levels at a time")
    key = KEYS[REPEATS]
    once = repeats.drop_duplicates(key)
    if len(repeats.drop_duplicates([*key, "mae"])) > len(once):
        raise InputError(
            f"{folder}: the jobs tested different models or cohorts; gather one sweep over levels at a time"
        )
    facts = [read_json(job / FACTS, ("units", "n_draws")) for job in jobs]
    return DilutionResult(
        once.sort_values(key, ignore_index=True),
        frames[EXPRESSION].drop_duplicates(KEYS[EXPRESSION], ignore_index=True),
        frames[HISTOGRAMS].drop_duplicates(KEYS[HISTOGRAMS], ignore_index=True),
        facts[0] | {"n_draws": sum(fact["n_draws"] for fact in facts), "n_jobs": len(facts)},
    )


def _figures(result: DilutionResult, summary: pd.DataFrame) -> dict[str, Figure]:
    units, repeats = result.facts["units"], result.repeats
    retention = "share of molecules" if repeats["method"].iloc[0] == "binomial" else "draws a sample"
    return {
        "heatmap": dilution_figures.expression_heatmaps(result.expression, retention, units),
        "distributions": dilution_figures.repeat_distributions(repeats, retention),
        "histograms": dilution_figures.histogram_grid(result.histograms, retention, units),
        "retention": dilution_figures.scores_against_retention(summary, retention, _published(repeats)),
    }


def _published(repeats: pd.DataFrame) -> dict[float, tuple[float, float]]:
    """Choose the published figures of the levels tested; there are none for a method that is not upstream's."""
    levels = set(repeats.loc[repeats["method"] == "mask", "retention"])
    return {level: scores for level, scores in PUBLISHED.items() if level in levels}


def _table(summary: pd.DataFrame, published: dict[float, tuple[float, float]]) -> list[list[str]]:
    rows = []
    for _, row in summary.iterrows():
        name = level_name(row["retention"]) if row["test"] != MEAN_EXPRESSION else "training-mean\nexpression"
        match = row["match"] if row["test"] == DILUTED else UNDEFINED
        mae, spearman = published.get(row["retention"], (None, None))
        cells = [_cell(row, key, "{:,.1f}" if key == "genes" else "{:.3f}") for key in COLUMNS]
        rows.append([match, name, *cells, UNDEFINED if mae is None else f"{mae:.2f} / {spearman:.2f}"])
    return rows


def _cell(row: pd.Series, key: str, form: str) -> str:
    if math.isnan(row[key]):
        return UNDEFINED
    if math.isnan(row[f"{key}_sd"]):
        return form.format(row[key])
    mean, sd, low, high = (form.format(row[name]) for name in (key, f"{key}_sd", f"{key}_low", f"{key}_high"))
    return f"{mean} ± {sd}\n({low} to {high})"


def _notes(result: DilutionResult, summary: pd.DataFrame) -> list[str]:
    facts, first = result.facts, result.repeats.iloc[0]
    levels = summary.to_dict("records")
    lowest, full, mean = (next(row for row in levels if row["test"] == test) for test in TESTS)
    matched = [WAYS[match] for match in WAYS if (result.repeats["match"] == match).any()]
    jobs = f" in {facts['n_jobs']} jobs" if "n_jobs" in facts else ""
    view = f"{facts['n_cpgs']:,} CpGs × {facts['n_samples']:,} samples, both unseen in training"
    kept, lost = ("not defined" if math.isnan(row["mas_pcc"]) else number(row["mas_pcc"]) for row in (full, lowest))
    return [
        f"{view}; {facts['n_genes']:,} genes; {facts['n_draws']} dilutions{jobs}; method {first['method']}, "
        f"seed {first['seed']}.",
        f"Matched to the training: {'; '.join(matched)}.",
        "Intervals: of the mean over repeats of the draw (Student's t); patients and model stay the same throughout.",
        f"Training-mean expression: every sample has the mean expression of the training samples, so what is left is "
        f"sequence and distances. Of the pooled Spearman {full['spearman']:.3f}, {mean['spearman']:.3f} remains there, "
        f"MAE goes from {full['mae']:.3f} to {mean['mae']:.3f}; MAS-PCC, {kept} undiluted and "
        f"{lost} at {level_name(lowest['retention'])}, is not defined there, as nothing differs "
        "between samples.",
        "Published (MAE / Spearman): another cohort (TCGA BRCA + LUAD, about 20,000 genes), mask, scaler refitted on "
        "the diluted test samples, Spearman averaged over batches of 50 of about 1,000 pairs.",
    ]
