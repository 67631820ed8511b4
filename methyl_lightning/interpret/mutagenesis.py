"""Mutations in silico: every base of a window becomes every other, on both strands, and motifs are put into windows.

A CpG is predicted as one that was never seen, so that its sequence counts and not its own labels. Where convolutions
read the sequence, a mutation changes two pools of their features, and only these are computed.

Legend: C CpGs, S samples, G genes, L bases, A letters ACGT, K units, F filters, P pools, M mutants, N mutants of
a pool, X strands, W bases of a crop, R units × samples, H hidden units, T genes of a tile.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_linear_bn_eval

from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork
from methyl_lightning.networks.levy_jurgenson import CpgEncoding, LevyJurgenson, SampleEncoding
from methyl_lightning.networks.products import times_transposed
from methyl_lightning.networks.sequence import ALPHABET_SIZE, POOL, SequenceConvolution

LETTERS = "ACGT"
UNKNOWN = 4  # the code of N
LOG2_E = math.log2(math.e)
UNSEEN = -1  # key and chromosome of a CpG that no training CpG is, or is near to
ROWS = 1200  # mutants predicted at once
TILE_GENES = 2048  # over which their attention is laid out: it stays in the processor's cache


class Track(NamedTuple):
    """What mutating a window does to its CpG: [X, L, A], 0 for the letter that is there, strand + first.

    Attributes
    ----------
    change_XLA
        Mean change of beta over the samples.
    interaction_XLA
        Standard deviation of the change over the samples: what acts through their expression.
    """

    change_XLA: np.ndarray
    interaction_XLA: np.ndarray

    def importance(self, what: str = "change") -> np.ndarray:
        """Return how much each base matters: the mean over strands and other letters, of what is there: [L]."""
        value_XLA = self.interaction_XLA if what == "interaction" else -self.change_XLA
        return value_XLA.sum(axis=2).mean(axis=0) / (len(LETTERS) - 1)


def reverse_complement(sequence_CL: Tensor) -> Tensor:
    """Read windows along the other strand, on which the CpG stands at the same place."""
    flipped_CL = sequence_CL.flip(-1)
    return torch.where(flipped_CL < UNKNOWN, 3 - flipped_CL, flipped_CL)


@torch.no_grad()
def mutate(network: MethylationNetwork, cpgs: Iterable[CpgFeatures], expression_SG: Tensor) -> list[Track]:
    """Predict every single mutation of the windows of CpGs, on each strand.

    Parameters
    ----------
    network
        In evaluation mode.
    cpgs
        One CpG each.
    expression_SG
        Scaled expression of a few samples that differ.
    """
    samples = network.encode_samples(expression_SG)
    fast = _FastMutants(network, samples) if isinstance(network, LevyJurgenson) else None
    return [_mutate(network, as_unseen(cpg, cpg.sequence_CL.to(torch.uint8)), samples, fast) for cpg in cpgs]


def as_unseen(cpgs: CpgFeatures, sequence_CL: Tensor) -> CpgFeatures:
    """Give CpGs other sequences, and let no network know them, or their neighbours, from training."""
    unseen_C = torch.full_like(cpgs.key_C, UNSEEN)
    return cpgs._replace(sequence_CL=sequence_CL, key_C=unseen_C, chrom_C=unseen_C)


def _mutate(network: MethylationNetwork, cpg: CpgFeatures, samples: Any, fast: "_FastMutants | None") -> Track:
    (forward_L,) = cpg.sequence_CL
    predict = partial(_predict_whole, network, cpg, samples) if fast is None else fast.of(network.encode_cpgs(cpg))
    track = np.zeros((2, 2, len(forward_L), len(LETTERS)), dtype=np.float32)
    for x, sequence_L in enumerate((forward_L, reverse_complement(forward_L))):
        whole_1S = predict(sequence_L, torch.zeros(1, dtype=torch.int64), sequence_L[:1].long())
        known_L = (sequence_L < UNKNOWN).nonzero().squeeze(1)
        position_M = known_L.repeat_interleave(len(LETTERS) - 1)
        step_M = torch.arange(1, len(LETTERS)).repeat(len(known_L))
        letter_M = (sequence_L.long()[position_M] + step_M) % len(LETTERS)
        for position, letter in zip(position_M.split(ROWS), letter_M.split(ROWS), strict=True):
            change_MS = predict(sequence_L, position, letter) - whole_1S
            deviation_M, mean_M = torch.std_mean(change_MS, dim=1, correction=0)
            track[0, x, position, letter], track[1, x, position, letter] = mean_M.numpy(), deviation_M.numpy()
    # along the other strand letters and bases stand in the opposite order
    return Track(*(np.stack([plus, minus[::-1, ::-1]]) for plus, minus in track))


def _predict_whole(
    network: MethylationNetwork,
    cpg: CpgFeatures,
    samples: Any,
    sequence_L: Tensor,
    position_M: Tensor,
    letter_M: Tensor,
) -> Tensor:
    """Predict mutants, each as a window of its own: beta_hat_MS."""
    mutant_ML = sequence_L.repeat(len(position_M), 1)
    mutant_ML[torch.arange(len(position_M)), position_M] = letter_M.to(mutant_ML.dtype)
    return network.combine(network.encode_cpgs(repeated(cpg, mutant_ML)), samples)


def repeated(cpg: CpgFeatures, sequence_ML: Tensor) -> CpgFeatures:
    """Repeat one CpG with its genes, each time with another sequence."""
    n, n_genes = len(sequence_ML), len(cpg.gene_N)
    return CpgFeatures(
        sequence_ML,
        cpg.gene_N.repeat(n),
        cpg.bp_N.repeat(n),
        torch.arange(n) * n_genes,
        *(part.repeat_interleave(n, dim=0) for part in (cpg.key_C, cpg.chrom_C, cpg.position_C, cpg.annotation_CP)),
    )


class _FastMutants:
    """Predicts mutants by the network of Levy-Jurgenson: what does not depend on the sequence once."""

    motif: Any
    sequence_attention: Any

    def __init__(self, network: LevyJurgenson, samples: SampleEncoding):
        self.network, self.samples = network, samples
        self.motif, self.sequence_attention = network.motif, network.sequence_attention
        if self.sequence_attention is not None:
            # mutants are many and samples few: their product with the weights is made once
            sequence_KG = network.connected.weight.split(network.widths, dim=1)[3]
            sequence_RG = (sequence_KG[:, None] * samples.expression_SG).flatten(0, 1)
            tiles = [tile.contiguous() for tile in sequence_RG.split(TILE_GENES, 1)]
            self.sequence_RT = [(tile, tile.to(factor_type(tile))) for tile in tiles]

    def of(self, encoded: CpgEncoding) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return the function that predicts the mutants of an encoded CpG."""
        nothing = CpgEncoding(torch.zeros_like(encoded.motif_CM), encoded.distance_attention_CG, None)
        return partial(self._predict, encoded.motif_CM, self.network.connect(nothing, self.samples)[:1])

    def _predict(
        self, motif_CM: Tensor, same_1KS: Tensor, sequence_L: Tensor, position_M: Tensor, letter_M: Tensor
    ) -> Tensor:
        connected_MKS = same_1KS
        if self.motif is not None:
            convolution, (layer, *activation), *rest = self.motif
            first_MM = mutant_layer(convolution, layer, sequence_L, position_M, letter_M)
            motif_MM = nn.Sequential(*activation, *rest)(first_MM)
            motif_KM = self.network.connected.weight.split(self.network.widths, dim=1)[0]
            connected_MKS = connected_MKS + functional.linear(motif_MM, motif_KM)[:, :, None]
        if self.sequence_attention is not None:
            convolution, hidden = self.sequence_attention.first
            hidden_MH = mutant_layer(convolution, hidden, sequence_L, position_M, letter_M)
            whole_1H = hidden(convolution(sequence_L[None]))
            product_MR = attend(self.sequence_attention.rest, whole_1H, hidden_MH, self.sequence_RT)
            connected_MKS = connected_MKS + product_MR.view(len(product_MR), *same_1KS.shape[1:])
        return self.network.finish(connected_MKS)


def factor_type(value: Tensor) -> torch.dtype:
    """Return bfloat16 for float32 values on a processor that multiplies it faster, elsewhere their own type."""
    # releases of torch that do not say what a processor can multiply as before
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    pays = value.device.type == "cpu" and value.dtype == torch.float32 and capabilities.get("avx512_bf16", False)
    return torch.bfloat16 if pays else value.dtype


def attend(rest: Any, whole_1H: Tensor, hidden_MH: Tensor, tiles_RT: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Average values over genes by the attention that hidden units give [M, R], and never lay it out: tile by tile.

    The average of the unmutated window is made of values, what differs from it of values as factors. Where these are
    bfloat16, changes of beta are wrong by at most .002 of a window's largest (trained networks of LGG and BRCA HM27).

    Parameters
    ----------
    rest
        Layers of an attention from its hidden units on, with ELU.
    whole_1H, hidden_MH
        Hidden units of the unmutated window and of mutants.
    tiles_RT
        What is averaged, ``TILE_GENES`` genes a tile: values, and the same as factors.
    """
    normalisation, elu, wide, wide_normalisation, *_ = rest
    layer = fuse_linear_bn_eval(wide, wide_normalisation)
    # to the base of two, whose powers take a third of the time of those of e
    weight_GH = torch.cat([layer.weight, layer.bias[:, None]], 1) * LOG2_E
    hidden_MH = functional.pad(elu(normalisation(torch.cat([whole_1H, hidden_MH]))), (0, 1), value=1.0)
    # rows are alike, so that what is taken off all of them keeps the power of each within bounds
    largest = float((weight_GH @ hidden_MH[0]).amax().clamp(min=0))
    total_M1, whole_1R = hidden_MH.new_zeros(len(hidden_MH), 1), hidden_MH.new_zeros(1, len(tiles_RT[0][0]))
    change_MR = hidden_MH.new_zeros(len(hidden_MH), whole_1R.shape[1])
    for weight_TH, (value_RT, factor_RT) in zip(weight_GH.split(TILE_GENES), tiles_RT, strict=True):
        share_MT = hidden_MH @ weight_TH.T
        below_MT = share_MT.clamp(max=0).exp2_()  # of ELU
        share_MT.clamp_(min=0).add_(below_MT, alpha=LOG2_E).sub_(LOG2_E + largest).exp2_()
        total_M1 += share_MT.sum(1, keepdim=True)
        whole_1T = share_MT[:1].clone()
        whole_1R += functional.linear(whole_1T, value_RT)
        change_MR += times_transposed(share_MT.sub_(whole_1T).to(factor_RT.dtype), factor_RT)
    return ((whole_1R + change_MR) / total_M1)[1:]


def mutant_layer(
    convolution: SequenceConvolution, layer: nn.Linear, sequence_L: Tensor, position_M: Tensor, letter_M: Tensor
) -> Tensor:
    """Return what a convolution and the layer on it make of single mutants of a window; only what changes is computed.

    Laying out the features of all mutants would cost more than what is made of them.
    """
    n_filters, reach = convolution.N_FILTERS, convolution.WIDTH // 2
    whole_FP = convolution(sequence_L[None]).view(n_filters, -1)
    n_pools = min(2, whole_FP.shape[1])  # filters are narrower than two pools
    first_M = ((position_M - reach) // POOL).clamp(0, whole_FP.shape[1] - n_pools)
    width = n_pools * POOL + 2 * reach
    outside = functional.pad(sequence_L.long(), (reach, reach + width), value=ALPHABET_SIZE)
    crop_MW = outside[first_M[:, None] * POOL + torch.arange(width)]
    at_M = position_M - first_M * POOL + reach
    inside_M = at_M < width  # behind the last whole pool nothing is read
    crop_MW[inside_M.nonzero().squeeze(1), at_M[inside_M]] = letter_M[inside_M]
    one_hot_MAW = functional.one_hot(crop_MW, ALPHABET_SIZE + 1)[..., :-1].transpose(1, 2).to(whole_FP.dtype)
    filters = convolution.convolution
    filtered_MFW = convolution.normalisation(functional.conv1d(one_hot_MAW, filters.weight, filters.bias))
    local_MFP = convolution.pool(convolution.activation(filtered_MFW))
    made_MH = layer(whole_FP.view(1, -1)).repeat(len(position_M), 1)
    weight_HFP = layer.weight.view(len(layer.weight), *whole_FP.shape)
    for first in first_M.unique().tolist():
        pools = slice(first, first + n_pools)
        mutant_N = (first_M == first).nonzero().squeeze(1)
        change_NFP = local_MFP[mutant_N] - whole_FP[:, pools]
        made_MH[mutant_N] += change_NFP.flatten(1) @ weight_HFP[:, :, pools].flatten(1).T
    return made_MH


@torch.no_grad()
def insert(
    network: MethylationNetwork, cpgs: CpgFeatures, expression_SG: Tensor, motifs: Sequence[str], start: int
) -> tuple[np.ndarray, np.ndarray]:
    """Write each motif into the windows of CpGs, at one place, and predict what that changes.

    Returns
    -------
    tuple
        Mean change of beta, and its standard deviation over the samples averaged over the CpGs: a value a motif.
    """
    sequence_CL = cpgs.sequence_CL.to(torch.uint8)
    samples = network.encode_samples(expression_SG)
    whole_CS = network.combine(network.encode_cpgs(as_unseen(cpgs, sequence_CL)), samples)
    found = []
    for motif in motifs:
        written_CL = sequence_CL.clone()
        letters = [LETTERS.index(letter) for letter in motif]
        written_CL[:, start : start + len(motif)] = torch.tensor(letters, dtype=torch.uint8)
        change_CS = network.combine(network.encode_cpgs(as_unseen(cpgs, written_CL)), samples) - whole_CS
        found.append((float(change_CS.mean()), float(change_CS.std(1, correction=0).mean())))
    return tuple(np.array(found).reshape(-1, 2).T)  # type: ignore[return-value]
