"""Genes: attention and knock-out side by side, with intervals over patients, between groups and over checkpoints.

Legend: C CpGs, S samples, G genes, B classes of CpGs, N samples or CpGs, R resamples.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control, hypergeom, rankdata

from methyl_lightning.files import InputError
from methyl_lightning.interpret.knockout import Knockout
from methyl_lightning.metrics.bootstrap import draw
from methyl_lightning.networks.contract import MethylationNetwork
from methyl_lightning.networks.levy_jurgenson import LevyJurgenson

N_RESAMPLES = 200
METHYLATED = 0.5  # mean beta from which a CpG counts as methylated


class GeneEffects(NamedTuple):
    """What one checkpoint says of genes: attention by branch, [S, G] or [C, G], and the knock-out."""

    attention: dict[str, np.ndarray]
    knockout: Knockout

    def measures(self) -> dict[str, np.ndarray]:
        """Return the mean of each measure a gene."""
        means = {f"attention_{branch}": values_NG.mean(axis=0) for branch, values_NG in self.attention.items()}
        return {"knock_out": self.knockout.change_SG.mean(axis=0)} | means


class Groups(NamedTuple):
    """What genes are compared between.

    Attributes
    ----------
    patient_S, group_S
        Patient and group of each sample.
    mean_C
        Mean measured beta of each CpG.
    classes
        Classes of CpGs and their members, bool [C].
    """

    patient_S: np.ndarray
    group_S: np.ndarray
    mean_C: np.ndarray
    classes: dict[str, np.ndarray]

    def class_shares(self) -> np.ndarray:
        """Return the classes as shares that add up to 1 in each: [B, C]."""
        return np.stack([members_C / members_C.sum() for members_C in self.classes.values()])


def cpg_classes(island_C: np.ndarray, mean_C: np.ndarray) -> dict[str, np.ndarray]:
    """Divide CpGs by their relation to an island, where it is known, and by their level."""
    classes = {str(name): island_C == name for name in np.unique(island_C) if name}
    classes |= {"methylated": mean_C >= METHYLATED, "unmethylated": mean_C < METHYLATED}
    return {name: members_C for name, members_C in classes.items() if members_C.any()}


@torch.no_grad()
def attentions(network: MethylationNetwork, cpgs: Any, expression_SG: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the attention on genes of each branch that there is: of samples [S, G] or of CpGs [C, G]."""
    if not isinstance(network, LevyJurgenson):
        return {}
    expression = network.expression_attention
    if network.near_G is not None:
        expression_SG = torch.where(network.near_G, expression_SG, 0.0)
    branches = {
        "expression": None if expression is None else expression(expression_SG),
        "distance": cpgs.distance_attention_CG,
        "sequence": cpgs.sequence_attention_CG,
    }
    return {name: values_NG.numpy() for name, values_NG in branches.items() if values_NG is not None}


def gene_table(genes: pd.DataFrame, runs: Sequence[GeneEffects], groups: Groups, seed: int) -> pd.DataFrame:
    """Lay out a row a gene, largest knock-out first; the mean over checkpoints where there are several.

    ``knock_out`` and each ``attention_…`` have 95 % intervals: those of what depends on the sample over patients, the
    others over CpGs. ``direction`` is the mean change of beta with one deviation more of expression; ``best_rank`` and
    ``worst_rank`` say where the checkpoints put the gene by knock-out.
    """
    table = genes[["symbol", "chrom", "start"]].copy()
    unit_S = np.unique(groups.patient_S, return_inverse=True)[1]
    measured = {"knock_out": [run.knockout.change_SG for run in runs]}
    for branch in runs[0].attention:
        measured[f"attention_{branch}"] = [run.attention[branch] for run in runs]
    for name, values in measured.items():
        value_NG = np.mean(values, axis=0)
        over_samples = name in ("knock_out", "attention_expression")
        weight_RN = _weights(unit_S if over_samples else np.arange(len(value_NG)), seed)
        table[name] = value_NG.mean(axis=0)
        table[f"{name}_low"], table[f"{name}_high"] = _bounds(_means(weight_RN, value_NG))
    table["direction"] = np.mean([run.knockout.effect_CG.mean(axis=0) for run in runs], axis=0)
    table["exact"] = np.all([run.knockout.exact_G for run in runs], axis=0)
    rank_NG = np.stack([rankdata(-run.measures()["knock_out"], method="ordinal") for run in runs])
    table["best_rank"], table["worst_rank"] = rank_NG.min(axis=0), rank_NG.max(axis=0)
    return table.sort_values("knock_out", ascending=False, kind="stable")


def class_table(genes: pd.DataFrame, runs: Sequence[GeneEffects], groups: Groups, top: pd.Index) -> pd.DataFrame:
    """Say what knocking out the top genes does to each class of CpGs: mean |change|, and direction."""
    parts = []
    for b, (name, members_C) in enumerate(groups.classes.items()):
        change_G = np.mean([run.knockout.change_BG[b] for run in runs], axis=0)
        direction_G = np.mean([run.knockout.effect_CG[members_C].mean(axis=0) for run in runs], axis=0)
        columns = {"knock_out": change_G[top], "direction": direction_G[top]}
        parts.append(pd.DataFrame({"symbol": genes["symbol"][top], "cpgs": name, "n_cpgs": members_C.sum(), **columns}))
    return pd.concat(parts, ignore_index=True)


def contrast_table(
    genes: pd.DataFrame, runs: Sequence[GeneEffects], groups: Groups, top: int, seed: int
) -> pd.DataFrame:
    """Compare attention between methylated and unmethylated CpGs, and between each group of samples and the others.

    The genes whose attention differs most, relative to its mean, of each comparison.
    """
    parts = []
    for branch in runs[0].attention:
        value_NG = np.mean([run.attention[branch] for run in runs], axis=0)
        if branch == "expression":
            unit_N = np.unique(groups.patient_S, return_inverse=True)[1]
            sides = {f"{name} − others": groups.group_S == name for name in np.unique(groups.group_S)}
        else:
            unit_N = np.arange(len(value_NG))
            sides = {"methylated − unmethylated": groups.mean_C >= METHYLATED}
        weight_RN = _weights(unit_N, seed)
        for name, in_N in sides.items():
            if in_N.all() or not in_N.any():
                continue
            change_G = value_NG[in_N].mean(axis=0) - value_NG[~in_N].mean(axis=0)
            first = np.argsort(-np.abs(change_G) / value_NG.mean(axis=0).clip(1e-12), kind="stable")[:top]
            resampled_RG = _means(weight_RN * in_N, value_NG[:, first]) - _means(weight_RN * ~in_N, value_NG[:, first])
            low_G, high_G = _bounds(resampled_RG)
            columns = {"change": change_G[first], "low": low_G, "high": high_G}
            table = {"symbol": genes["symbol"].to_numpy()[first], "mean": value_NG.mean(axis=0)[first]}
            parts.append(pd.DataFrame({"branch": branch, "comparison": name, **table, **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _weights(unit_N: np.ndarray, seed: int) -> np.ndarray:
    return draw(unit_N, N_RESAMPLES, np.random.default_rng([seed, 5])).astype(np.float32)


def _means(weight_RN: np.ndarray, value_NG: np.ndarray) -> np.ndarray:
    total_R1 = weight_RN.sum(axis=1, keepdims=True)
    mean_RG = weight_RN @ value_NG / np.maximum(total_R1, 1)
    return np.where(total_R1 > 0, mean_RG, np.nan).astype(np.float32)


def _bounds(resampled_RG: np.ndarray) -> np.ndarray:
    return np.nanpercentile(resampled_RG, [2.5, 97.5], axis=0)


def stability(runs: Sequence[GeneEffects], top: int) -> pd.DataFrame:
    """Compare checkpoints in pairs: rank correlation over all genes, and shared share of the top, by measure.

    ``by_chance`` is the share of the top that any two orders would have in common.
    """
    rows = []
    measures = [run.measures() for run in runs]
    for name in measures[0]:
        told = [measure for measure in measures if np.ptp(measure[name]) > 0]  # equal values have no order
        pairs = [
            (
                float(np.corrcoef(rankdata(one[name]), rankdata(other[name]))[0, 1]),
                len(np.intersect1d(np.argsort(-one[name])[:top], np.argsort(-other[name])[:top])) / top,
            )
            for one, other in combinations(told, 2)
        ]
        correlation, shared = np.mean(pairs, axis=0) if pairs else (np.nan, np.nan)
        chance = min(1.0, top / len(measures[0][name]))
        rows.append((name, len(runs), correlation, shared, chance))
    return pd.DataFrame(rows, columns=["measure", "checkpoints", "rank_correlation", "shared_top", "by_chance"])


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Read gene sets: a line a set, its name, a description and its genes, between tabs.

    Raises
    ------
    InputError
        If the file cannot be read as one.
    """
    try:
        lines = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name a GMT file of gene sets") from error
    for number, cells in enumerate(lines, 1):
        if len(cells) < 3:
            raise InputError(f"{path}: line {number} has no name, description and genes between tabs; not a GMT file")
    if not lines:
        raise InputError(f"{path}: holds no gene set; name a GMT file of gene sets")
    return {cells[0]: [gene for gene in cells[2:] if gene] for cells in lines}


def enrichment(ordered: Sequence[str], sets: dict[str, list[str]], top: int) -> pd.DataFrame:
    """Test whether sets have more of the top genes than drawn by chance from all genes, smallest p first.

    Parameters
    ----------
    ordered
        Symbols of all genes, the top first.
    sets
        Gene sets; genes that were not measured are left out.
    top
        How many count as top.

    Returns
    -------
    pandas.DataFrame
        Hypergeometric p, and q by Benjamini-Hochberg over the sets with any measured gene.
    """
    known, first = set(ordered), set(ordered[:top])
    rows = []
    for name, genes in sets.items():
        members = known.intersection(genes)
        if members:
            inside = sorted(members & first)
            p = float(hypergeom.sf(len(inside) - 1, len(known), len(members), len(first)))
            rows.append((name, len(members), len(inside), len(first) * len(members) / len(known), p, " ".join(inside)))
    table = pd.DataFrame(rows, columns=["set", "genes", "in_top", "expected", "p", "top_genes"])
    table.insert(5, "q", false_discovery_control(table["p"]) if len(table) else [])
    return table.sort_values("p", kind="stable", ignore_index=True)
