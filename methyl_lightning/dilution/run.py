"""The dilution test: retention levels × repeats on the headline view, with the CpG side encoded once.

Legend: C CpGs, S samples, G genes, R repeats.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student_t

from methyl_lightning.data.batches import read_expression
from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.expression import check_dilution, dilute
from methyl_lightning.data.splits import HEADLINE, Split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.model.depth import MASK, MOLECULES, ExpressionEstimator, estimate_diluted
from methyl_lightning.model.grid import encode_cpgs, keep, predict_blocks
from methyl_lightning.model.module import MethylationModule

SCORES = ("mae", "spearman", "spearman_batch50", "spearman_upstream", "mas_pcc", "mac_pcc")
UPSTREAM_BATCHES = 20  # of 50 cells: upstream's test had about 1,000 pairs a repeat
MATCHES = ("scaler", "refit", "depth")
AS_IS = "none"  # of what was not diluted
DILUTED, UNDILUTED, MEAN_EXPRESSION = "diluted", "undiluted", "mean expression"
COLUMNS_AT_ONCE = 2 * BLOCK[1]  # diluted samples that are kept encoded at once
BINS = 40


class DilutionResult(NamedTuple):
    """What a dilution test gives, as long-format frames.

    Attributes
    ----------
    repeats
        One row a (match, level, repeat), and one each for the undiluted test samples and for the training mean:
        ``test`` (diluted, undiluted, mean expression), ``method``, ``match`` (scaler, refit, depth; none where nothing
        was drawn), ``retention`` (NaN there), ``repeat``, ``seed``, ``genes`` (distinct genes above 0, mean over
        samples) and the scores.
    expression
        ``retention``, ``sample``, ``gene``, ``value`` (units of the store) of a subset, as the first repeat drew it.
    histograms
        ``quantity`` (expression, predicted, measured), ``retention``, ``low``, ``high``, ``share`` of all values, of
        the first repeat, predicted by the first match.
    facts
        ``n_cpgs``, ``n_samples``, ``n_genes``, ``units``, ``n_draws``.
    """

    repeats: pd.DataFrame
    expression: pd.DataFrame
    histograms: pd.DataFrame
    facts: dict[str, Any]


def dilution_test(
    module: MethylationModule,
    store: Store,
    split: Split,
    retention: float | Sequence[float],
    *,
    repeats: int = 10,
    method: str = "mask",
    match: str | Sequence[str] = "scaler",
    seed: int = 0,
    samples: int | Sequence[str] = 16,
    genes: int | Sequence[str] = 60,
) -> DilutionResult:
    """Test a trained module on diluted expression of the test samples, on CpGs and patients never seen.

    The draws of a repeat follow from (seed, level, repeat) alone, so levels can be tested together or one by one.

    Parameters
    ----------
    module
        Trained module; it is put into evaluation mode.
    store, split
        The cohort and its division.
    retention
        Level or levels, see :func:`methyl_lightning.data.expression.dilute`.
    repeats
        Dilutions of each level.
    method
        Of :func:`methyl_lightning.data.expression.dilute`.
    match
        How diluted samples come to the training's scale, in one way or in several, side by side: ``scaler``, as they
        are, by the range of the undiluted training samples; ``refit``, by their own range, as upstream did; ``depth``,
        estimated from training samples that are as thin (:mod:`methyl_lightning.model.depth`).
    seed
        Of the draws.
    samples, genes
        The subset whose expression is kept: so many test samples and genes, evenly spaced, or their names (sample ids,
        gene symbols).

    Returns
    -------
    DilutionResult
        All levels × repeats, the undiluted samples, and the training mean.

    Raises
    ------
    InputError
        If a setting is out of its range, a name is not known, or a sample cannot be diluted.
    """
    levels, matches = check_levels(retention, repeats, method, match)
    cpg_C, sample_S = split.view(HEADLINE)
    sample_ids = store.samples["id"].to_numpy(str)[sample_S]
    shown_S = _chosen(samples, sample_ids, "sample")
    symbols = store.genes["symbol"]
    gene_names = np.where(symbols.duplicated(keep=False), store.genes["id"], symbols).astype(str)
    shown_G = _chosen(genes, gene_names, "gene")
    expression_SG = read_expression(store, sample_S).numpy()
    measured_CS = store.beta(cpg_C, sample_S)
    module.eval()

    mean_1G = read_expression(store, split.sample["train"]).mean(dim=0, keepdim=True).numpy()
    expressions = _Expressions(expression_SG, mean_1G, sample_ids, method, seed)
    scale = _Scale(module, method, _estimator(module, method) if "depth" in matches else None)
    tests = [_Test(DILUTED, own, level, repeat) for own in matches for level in levels for repeat in range(repeats)]
    tests += [_Test(UNDILUTED, AS_IS, math.nan, 0), _Test(MEAN_EXPRESSION, AS_IS, math.nan, 0)]
    predicted_RCS, genes_R = _predict(module, store, cpg_C, expressions, tests, scale)
    rows = [
        {"test": test, "method": method, "match": own, "seed": seed}
        | {"retention": level, "repeat": repeat, "genes": math.nan if test == MEAN_EXPRESSION else n_genes}
        | dict(_scores(measured_CS, beta_hat_CS, repeat))
        for (test, own, level, repeat), n_genes, beta_hat_CS in zip(tests, genes_R, predicted_RCS, strict=True)
    ]
    shown, histograms = [], [_histogram("measured", math.nan, measured_CS)]
    for (test, own, level, repeat), beta_hat_CS in zip(tests, predicted_RCS, strict=True):
        if repeat or test == MEAN_EXPRESSION or own not in (matches[0], AS_IS):
            continue
        values_SG = expressions(test, level, repeat)
        grid_SG = pd.DataFrame(values_SG[np.ix_(shown_S, shown_G)], sample_ids[shown_S], gene_names[shown_G])
        grid = grid_SG.rename_axis("sample").reset_index().melt("sample", var_name="gene")
        shown.append(grid.assign(retention=level))
        histograms += [_histogram("expression", level, values_SG), _histogram("predicted", level, beta_hat_CS)]
    facts = {
        "n_cpgs": len(cpg_C),
        "n_samples": len(sample_S),
        "n_genes": len(gene_names),
        "units": store.attributes["units"],
        "n_draws": len(levels) * repeats,
    }
    return DilutionResult(
        pd.DataFrame(rows), pd.concat(shown, ignore_index=True), pd.concat(histograms, ignore_index=True), facts
    )


def check_levels(
    retention: float | Sequence[float], repeats: int, method: str, match: str | Sequence[str]
) -> tuple[list[float], list[str]]:
    """List levels and matches, each once, and raise the errors that depend on the settings alone."""
    levels = list(dict.fromkeys(retention if isinstance(retention, Sequence) else [retention]))
    for level in levels:
        check_dilution(method, level)
    if repeats < 1 or not levels:
        raise InputError(f"dilution.repeats={repeats}, dilution.retention={levels}: at least one of each")
    matches = list(dict.fromkeys([match] if isinstance(match, str) else match))
    if not matches or not set(matches) <= set(MATCHES):
        raise InputError(f"dilution.match={match}: must be one or several of {', '.join(MATCHES)}")
    return levels, matches


class _Test(NamedTuple):
    """What is tested: which expression, how it is matched, at which level, for the how-manieth time."""

    test: str
    match: str
    level: float
    repeat: int


class _Scale(NamedTuple):
    """How the expression of a test becomes what the network reads."""

    module: MethylationModule
    method: str
    estimator: ExpressionEstimator | None

    def __call__(self, values_SG: np.ndarray, match: str, level: float) -> torch.Tensor:
        if match == "depth":
            assert self.estimator is not None
            values_SG = estimate_diluted(self.estimator, values_SG, self.method, level)
        expression_SG, scaler = torch.from_numpy(values_SG).to(self.module.device), self.module.scaler
        if match == "refit":
            scaler = type(scaler)(expression_SG.shape[1]).to(self.module.device)
            scaler.fit(expression_SG)
        return scaler(expression_SG)


def _estimator(module: MethylationModule, method: str) -> ExpressionEstimator:
    record = module.training_record()
    assert record is not None
    return ExpressionEstimator(record, module.provenance["units"], draws=MASK if method == "mask" else MOLECULES)


class _Expressions(NamedTuple):
    """The expression [S, G] of each test, the same at every call; the training mean is one sample."""

    expression_SG: np.ndarray
    mean_1G: np.ndarray
    sample_S: np.ndarray
    method: str
    seed: int

    def __call__(self, test: str, level: float, repeat: int) -> np.ndarray:
        if test == DILUTED:
            rng = np.random.default_rng([self.seed, *float(level).as_integer_ratio(), repeat])
            return dilute(self.expression_SG, self.method, level, rng, list(self.sample_S))
        return self.expression_SG if test == UNDILUTED else self.mean_1G


def _predict(
    module: MethylationModule,
    store: Store,
    cpg_C: np.ndarray,
    expressions: _Expressions,
    tests: list[_Test],
    scale: _Scale,
) -> tuple[np.ndarray, list[float]]:
    """Predict [R, C, S] for the tests, and count their distinct genes [R]; a few repeats of a level go side by side."""
    n_samples = len(expressions.expression_SG)
    # a level's repeats keep their company whatever other levels are tested, and so the last digit of their results
    groups = [
        part.tolist()
        for _, same in groupby(range(len(tests)), key=lambda at: tests[at][:3])
        for part in chunks(np.array(list(same)), max(1, COLUMNS_AT_ONCE // n_samples))
    ]
    genes_R: list[float] = []
    with TemporaryFile() as file:  # on disk, as a large view times many draws may not fit into memory
        predicted_RCS = np.memmap(file, np.float32, "w+", shape=(len(tests), len(cpg_C), n_samples))
    with keep(encode_cpgs(module, store, chunks(cpg_C, BLOCK[0]))) as cpgs:
        for group in groups:
            _, match, level, _ = tests[group[0]]
            values_RSG = [expressions(tests[at].test, level, tests[at].repeat) for at in group]
            genes_R += map(_distinct, values_RSG)
            scaled_SG = torch.cat([scale(values_SG, match, level) for values_SG in values_RSG])
            columns = [scaled_SG[part] for part in chunks(np.arange(len(scaled_SG)), BLOCK[1])]
            for rows, beta_CS in predict_blocks(module, cpgs, columns):
                predicted_RCS[group, rows] = beta_CS.reshape(len(beta_CS), len(group), -1).swapaxes(0, 1)
    return predicted_RCS, genes_R


def _distinct(values_SG: np.ndarray) -> float:
    return float((values_SG > 0).sum(axis=1).mean())


def _scores(measured_CS: np.ndarray, predicted_CS: np.ndarray, repeat: int) -> dict[str, float]:
    batched = metrics.spearman_batch50
    return {
        "mae": metrics.mae(measured_CS, predicted_CS),
        "spearman": metrics.spearman(measured_CS, predicted_CS),
        "spearman_batch50": batched(measured_CS, predicted_CS, seed=repeat),
        "spearman_upstream": batched(measured_CS, predicted_CS, n_batches=UPSTREAM_BATCHES, seed=repeat),
        "mas_pcc": metrics.mas_pcc(measured_CS, predicted_CS),
        "mac_pcc": metrics.mac_pcc(measured_CS, predicted_CS),
    }


def _histogram(quantity: str, level: float, values: np.ndarray) -> pd.DataFrame:
    bounds = (0.0, max(1.0, math.ceil(float(values.max())))) if quantity == "expression" else (-0.1, 1.1)
    shown = np.clip(values[np.isfinite(values)], *bounds)
    share, edges = np.histogram(shown, BINS, bounds)
    return pd.DataFrame(
        {"quantity": quantity, "retention": level, "low": edges[:-1], "high": edges[1:], "share": share / shown.size}
    )


def _chosen(wanted: int | Sequence[str], names: np.ndarray, kind: str) -> np.ndarray:
    """Find the places of some names, or of so many evenly spaced ones."""
    if isinstance(wanted, int):
        if wanted < 1:
            raise InputError(f"dilution.{kind}s={wanted}: at least one {kind}, or a list of their names")
        return np.unique(np.linspace(0, len(names) - 1, min(wanted, len(names))).astype(int))
    places = {name: at for at, name in enumerate(names)}
    for name in wanted:
        if name not in places:
            raise InputError(
                f"dilution.{kind}s: no {kind} {name!r} in the test view; for example {names[0]!r} is there"
            )
    return np.array([places[name] for name in dict.fromkeys(wanted)])


def summarise(repeats: pd.DataFrame) -> pd.DataFrame:
    """Compute mean, standard deviation and 95 % interval of the mean (Student's t) over the repeats of each level.

    Returns
    -------
    pandas.DataFrame
        One row a match and level, in ascending order, then the undiluted samples and the training mean: ``test``,
        ``match``, ``retention``,
        ``repeats``, and for ``genes`` and each score ``<name>``, ``<name>_sd``, ``<name>_low``, ``<name>_high`` (NaN
        with a single repeat or where the score is not defined).
    """
    rows = []
    for test in (DILUTED, UNDILUTED, MEAN_EXPRESSION):
        own = repeats[repeats["test"] == test]
        groups = own.groupby(["match", "retention"], dropna=False)
        for (match, retention), group in sorted(groups, key=lambda item: (*MATCHES, AS_IS).index(item[0][0])):
            row = {"test": test, "match": match, "retention": retention, "repeats": len(group)}
            for name in ("genes", *SCORES):
                values = group[name].dropna()
                mean, sd, n = values.mean(), values.std(), len(values)
                margin = student_t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
                row |= {name: mean, f"{name}_sd": sd, f"{name}_low": mean - margin, f"{name}_high": mean + margin}
            rows.append(row)
    return pd.DataFrame(rows)
