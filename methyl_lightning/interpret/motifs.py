"""Motifs: what the first convolution's filters respond to, as frequency matrices; and matches to known motifs.

Legend: C CpGs, S samples, L bases, A letters ACGT, F filters, W bases of a motif.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control
from torch import Tensor
from torch.nn import functional

from methyl_lightning.files import InputError
from methyl_lightning.interpret.mutagenesis import LETTERS, as_unseen
from methyl_lightning.networks.baselines.features import cpg_density
from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork
from methyl_lightning.networks.sequence import ALPHABET_SIZE, SequenceConvolution

ROWS = 32  # windows filtered at once
ACTIVE = 0.5  # of a filter's largest activation
LEAST_SITES = 10  # of a motif
OVERLAP = 7  # bases by which two motifs are compared, at least


class Filter(NamedTuple):
    """One filter of a first convolution.

    Attributes
    ----------
    name
        Branch and number.
    count_WA
        Letters of the subsequences that activate it.
    effect
        Mean |change of beta| when it always says its mean.
    density
        Correlation, over windows, of its largest activation with the CpG density.
    """

    name: str
    count_WA: np.ndarray
    effect: float
    density: float

    @property
    def sites(self) -> int:
        """Return the number of activating subsequences."""
        return int(self.count_WA[0].sum())

    @property
    def frequency_WA(self) -> np.ndarray:
        """Return the shares of the letters; without any site all alike."""
        return (self.count_WA + 0.25) / (self.sites + 1)

    @property
    def information(self) -> float:
        """Return the information content in bits."""
        return float(information(self.frequency_WA).sum())

    @property
    def consensus(self) -> str:
        """Return the commonest letters."""
        return "".join(LETTERS[a] for a in self.frequency_WA.argmax(axis=1))


def information(frequency_WA: np.ndarray) -> np.ndarray:
    """Return bits of each base of a motif, against letters that are all alike: [W]."""
    return 2 + (frequency_WA * np.log2(frequency_WA.clip(1e-12))).sum(axis=1)


def convolutions(network: MethylationNetwork) -> dict[str, SequenceConvolution]:
    """Name the first convolutions of a network by their branch."""
    return {
        name.split(".")[0]: layer for name, layer in network.named_modules() if isinstance(layer, SequenceConvolution)
    }


@torch.no_grad()
def read_filters(
    network: MethylationNetwork, sequence_CL: Tensor, cpgs: CpgFeatures, expression_SG: Tensor
) -> list[Filter]:
    """Read the filters of a network's first convolutions, the most effective first.

    Parameters
    ----------
    network
        In evaluation mode.
    sequence_CL
        Windows in which activating subsequences are sought.
    cpgs, expression_SG
        A few hundred CpGs and scaled expression of a few samples on which the effect is measured.
    """
    density_C = density(sequence_CL)
    samples = network.encode_samples(expression_SG)
    unseen = as_unseen(cpgs, cpgs.sequence_CL)
    whole_CS = network.combine(network.encode_cpgs(unseen), samples)
    filters = []
    for branch, convolution in convolutions(network).items():
        count_FWA, largest_CF, mean_F = _activating(convolution, sequence_CL)
        for f in range(convolution.N_FILTERS):
            with _silenced(convolution, f, float(mean_F[f])):
                change_CS = network.combine(network.encode_cpgs(unseen), samples) - whole_CS
            varies = np.ptp(largest_CF[:, f]) > 0 and np.ptp(density_C) > 0
            correlation = float(np.corrcoef(largest_CF[:, f], density_C)[0, 1]) if varies else 0.0
            filters.append(Filter(f"{branch}_{f}", count_FWA[f], float(change_CS.abs().mean()), correlation))
    return sorted(filters, key=lambda one: -one.effect)


def density(sequence_CL: Tensor) -> np.ndarray:
    """Return CpGs a base of each window: [C]."""
    return cpg_density(sequence_CL)[:, 0].numpy()


def _activating(convolution: SequenceConvolution, sequence_CL: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return letters of activating subsequences [F, W, A], largest activations [C, F], means before normalising [F]."""
    layer, width = convolution.convolution, convolution.WIDTH
    largest, total_F, n = [], torch.zeros(convolution.N_FILTERS, dtype=torch.float64), 0

    def filtered() -> Iterator[tuple[Tensor, Tensor]]:
        for rows_CL in sequence_CL.split(ROWS):
            one_hot_CAL = functional.one_hot(rows_CL.long(), ALPHABET_SIZE).to(layer.weight.dtype).transpose(1, 2)
            yield one_hot_CAL, functional.conv1d(one_hot_CAL, layer.weight, layer.bias)  # whole subsequences alone

    for _, raw_CFL in filtered():
        largest.append(convolution.normalisation(raw_CFL).amax(2))
        total_F += raw_CFL.sum((0, 2)).double()
        n += raw_CFL.shape[0] * raw_CFL.shape[2]
    largest_CF = torch.cat(largest)
    least_F1 = ACTIVE * largest_CF.amax(0)[:, None]
    count_FWA = torch.zeros(convolution.N_FILTERS, width, len(LETTERS))
    for one_hot_CAL, raw_CFL in filtered():
        known_CL = one_hot_CAL[:, -1].unfold(1, width, 1).sum(2) == 0
        active_CFL = (convolution.normalisation(raw_CFL) > least_F1) & (least_F1 > 0) & known_CL[:, None]
        for w in range(width):
            letters_CAL = one_hot_CAL[:, : len(LETTERS), w : w + raw_CFL.shape[2]]
            count_FWA[:, w] += torch.einsum("cfl,cal->fa", active_CFL.to(letters_CAL.dtype), letters_CAL)
    return count_FWA.numpy(), largest_CF.numpy(), (total_F / n).numpy()


@contextmanager
def _silenced(convolution: SequenceConvolution, f: int, value: float) -> Iterator[None]:
    """Let a filter say the same everywhere, as long as the block lasts."""
    layer = convolution.convolution
    assert layer.bias is not None
    weight_AW, bias = layer.weight[f].clone(), layer.bias[f].clone()
    layer.weight[f], layer.bias[f] = 0.0, value
    try:
        yield
    finally:
        layer.weight[f], layer.bias[f] = weight_AW, bias


def filter_table(filters: Sequence[Filter]) -> pd.DataFrame:
    """Lay out a row a filter."""
    rows = [
        (one.name, one.consensus, one.sites, one.information, one.effect, one.density, "CG" in one.consensus)
        for one in filters
    ]
    columns = ["filter", "consensus", "sites", "information_bits", "effect", "density_correlation", "has_cpg"]
    return pd.DataFrame(rows, columns=columns)


def write_meme(path: Path, filters: Sequence[Filter], background_A: np.ndarray) -> None:
    """Write the motifs of filters with enough sites in MEME's format."""
    shares = " ".join(f"{letter} {share:.5f}" for letter, share in zip(LETTERS, background_A, strict=True))
    lines = [
        "MEME version 4",
        "",
        f"ALPHABET= {LETTERS}",
        "",
        "strands: +",
        "",
        "Background letter frequencies",
        shares,
    ]
    for one in filters:
        if one.sites >= LEAST_SITES:
            width = len(one.count_WA)
            lines += ["", f"MOTIF {one.name} {one.consensus}"]
            lines.append(f"letter-probability matrix: alength= 4 w= {width} nsites= {one.sites} E= 0")
            share_WA = one.count_WA / one.sites
            lines += [" ".join(f"{share:.6f}" for share in share_A) for share_A in share_WA]
    path.write_text("\n".join(lines) + "\n")


def read_collection(path: Path) -> dict[str, np.ndarray]:
    """Read a collection of motifs in MEME's format: shares [W, A] by name.

    Raises
    ------
    InputError
        If the file cannot be read as one.
    """
    remedy = "take a collection in MEME's format, such as JASPAR's"
    motifs: dict[str, np.ndarray] = {}
    try:
        lines = iter(path.read_text().splitlines())
        for line in lines:
            if line.startswith("MOTIF"):
                name = " ".join(line.split()[1:])
            elif line.startswith("letter-probability"):
                width = int(line.split("w=")[1].split()[0])
                share_WA = np.array([next(lines).split() for _ in range(width)], dtype=float)
                motifs[name] = share_WA.reshape(width, len(LETTERS))
    except (OSError, ValueError, IndexError, NameError, StopIteration, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read as motifs ({str(error) or 'it ends in a motif'}); {remedy}"
        ) from error
    if not motifs:
        raise InputError(f"{path}: holds no motif; {remedy}")
    return motifs


def match(filters: Sequence[Filter], collection: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Match filters to a collection by tomtom: the best target of each, with q by Benjamini-Hochberg over all pairs.

    Raises
    ------
    InputError
        If memelite is not installed.
    """
    try:
        from memelite import tomtom  # numba behind it is large
    except ImportError as error:
        raise InputError("motifs=: needs memelite; pip install 'methyl_lightning[interpret]'") from error
    queries = [one for one in filters if one.sites >= LEAST_SITES]
    if not queries:
        return pd.DataFrame(columns=["filter", "consensus", "target", "p", "q"])
    names = list(collection)
    p_QT = tomtom([one.frequency_WA.T for one in queries], [collection[name].T for name in names])[0]
    q_QT = false_discovery_control(p_QT.clip(0, 1), axis=None).reshape(p_QT.shape)
    best_Q = p_QT.argmin(axis=1)
    rows = [
        (one.name, one.consensus, names[t], p_QT[i, t], q_QT[i, t])
        for i, (one, t) in enumerate(zip(queries, best_Q, strict=True))
    ]
    return pd.DataFrame(rows, columns=["filter", "consensus", "target", "p", "q"]).sort_values("q", kind="stable")


def one_hot(motif: str) -> np.ndarray:
    """Write a sequence as a motif: [W, A]."""
    return np.eye(len(LETTERS))[[LETTERS.index(letter) for letter in motif]]


def similarity(one_WA: np.ndarray, other_WA: np.ndarray) -> float:
    """Compare two motifs at their best overlap, on either strand: mean cosine of columns, centred on equal letters."""
    best = -1.0
    for turned_WA in (other_WA, other_WA[::-1, ::-1]):
        columns = [
            centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
            for centred in (one_WA - 0.25, turned_WA - 0.25)
        ]
        cosine_WW = columns[0] @ columns[1].T
        overlap = min(OVERLAP, *cosine_WW.shape)
        offsets = range(overlap - cosine_WW.shape[0], cosine_WW.shape[1] - overlap + 1)
        best = max(best, *(float(np.diagonal(cosine_WW, offset).mean()) for offset in offsets))
    return best


def motif_stability(runs: Sequence[Sequence[Filter]], top: int, seed: int) -> tuple[float, float]:
    """Compare top filters of checkpoints in pairs: mean similarity to the nearest, and that of shuffled ones.

    Shuffled motifs have the same columns in another order.
    """
    rng = np.random.default_rng([seed, 6])
    real, shuffled = [], []
    for one, other in combinations(runs, 2):
        targets = [target.frequency_WA for target in other[:top] if target.sites >= LEAST_SITES]
        for query in (query for query in one[:top] if query.sites >= LEAST_SITES and targets):
            real.append(max(similarity(query.frequency_WA, target_WA) for target_WA in targets))
            mixed_WA = rng.permutation(query.frequency_WA)
            shuffled.append(max(similarity(mixed_WA, target_WA) for target_WA in targets))
    return (float(np.mean(real)), float(np.mean(shuffled))) if real else (np.nan, np.nan)
