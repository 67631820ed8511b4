"""Mutants equal windows predicted whole, on both strands, and mutating finds a planted motif."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from fitted import inputs, trained

from methyl_lightning.data.batches import read_cpgs, read_expression
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.interpret.mutagenesis import (
    TILE_GENES,
    as_unseen,
    attend,
    factor_type,
    insert,
    mutant_layer,
    mutate,
    reverse_complement,
)
from methyl_lightning.interpret.recovery import read_truth, recover_sites
from methyl_lightning.networks import CpgFeatures
from methyl_lightning.networks.levy_jurgenson import Attention
from methyl_lightning.networks.sequence import SequenceConvolution


def test_the_other_strand_has_the_cpg_at_the_same_place() -> None:
    window = torch.tensor([[0, 4, 1, 2, 3, 3]], dtype=torch.uint8)  # AN CG TT
    assert reverse_complement(window).tolist() == [[0, 0, 1, 2, 4, 3]]  # AA CG NT


@pytest.mark.parametrize("window", [10, 20, 47, 100])
def test_a_layer_on_features_of_mutants_equals_that_on_whole_windows(window: int) -> None:
    torch.manual_seed(0)
    convolution = SequenceConvolution(window).eval()
    sequence_L = torch.randint(0, 4, (window,), dtype=torch.uint8)
    position_M = torch.arange(window).repeat(4)
    letter_M = torch.arange(4).repeat_interleave(window)
    mutant_ML = sequence_L.repeat(4 * window, 1)
    mutant_ML[torch.arange(4 * window), position_M] = letter_M.to(torch.uint8)
    with torch.no_grad():
        layer = torch.nn.Linear(convolution.n_out, 7)
        found = mutant_layer(convolution, layer, sequence_L, position_M, letter_M)
        torch.testing.assert_close(found, layer(convolution(mutant_ML)))


@pytest.mark.parametrize(("kind", "precision"), [(torch.float32, 1e-4), (torch.bfloat16, 2**-7)])
def test_a_change_of_attention_is_as_precise_as_its_factors(kind: torch.dtype, precision: float) -> None:
    torch.manual_seed(0)
    n_genes, n_mutants = TILE_GENES + 300, 50
    rest = Attention(torch.nn.Identity(), 20, n_genes).eval().requires_grad_(False).rest
    rest[2].weight *= 3
    whole_1H = torch.randn(1, 20)
    hidden_MH = whole_1H + 0.01 * torch.randn(n_mutants, 20)
    value_RG = torch.randn(8, n_genes)
    tiles = [(tile, tile.to(kind)) for tile in value_RG.split(TILE_GENES, 1)]
    whole_1R, product_MR = attend(rest, whole_1H, torch.cat([whole_1H, hidden_MH]), tiles).split([1, n_mutants])
    expected_MR = deepcopy(rest).double()(torch.cat([whole_1H, hidden_MH]).double()) @ value_RG.T.double()
    torch.testing.assert_close(whole_1R.double(), expected_MR[:1], rtol=1e-5, atol=0)
    change_MR, expected_MR = product_MR - whole_1R, expected_MR[1:] - expected_MR[:1]
    assert (change_MR - expected_MR).abs().max() < precision * expected_MR.abs().max()


def test_factors_are_rounded_where_the_processor_multiplies_them_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for can, expected in (({"avx512_bf16": True}, torch.bfloat16), ({"avx512_bf16": False}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can, raising=False)
        assert factor_type(torch.zeros(1)) == expected
        assert factor_type(torch.zeros(1, dtype=torch.float64)) == torch.float64
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert factor_type(torch.zeros(1)) == torch.float32


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LevyJurgenson", {}),
        ("LevyJurgenson", {"without": ["distance_attention"]}),
        ("LevyJurgenson", {"without": ["sequence_attention"]}),
        ("BilinearRidge", {}),
        ("MethylationFactors", {}),
    ],
)
def test_mutants_equal_windows_predicted_whole(
    name: str, settings: dict, rounds: bool, datamodule: GridDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": rounds}, raising=False)
    network = trained(name, datamodule, **settings).module.network
    _, samples = inputs(datamodule, trained(name, datamodule, **settings).module)
    cpg = read_cpgs(datamodule.store, np.array([4]))
    (track,) = mutate(network, [cpg], samples.expression_SG)
    (plus_L,) = cpg.sequence_CL

    def predicted(sequence_L: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return network(as_unseen(cpg, sequence_L[None]), samples.expression_SG)[0].numpy()

    for place, letter in ((0, 1), (48, 0), (49, 3), (50, 2), (77, 2), (99, 0)):
        if plus_L[place] == letter:
            continue
        mutant_L = plus_L.clone()
        mutant_L[place] = letter
        minus_L, mutant_minus_L = reverse_complement(torch.stack([plus_L, mutant_L]))
        for x, (one_L, other_L) in enumerate(((mutant_L, plus_L), (mutant_minus_L, minus_L))):
            change_S = predicted(one_L) - predicted(other_L)
            assert track.change_XLA[x, place, letter] == pytest.approx(change_S.mean(), abs=1e-5)
            assert track.interaction_XLA[x, place, letter] == pytest.approx(change_S.std(), abs=1e-5)
    reference_XL = np.take_along_axis(track.change_XLA, plus_L.numpy().astype(int)[None, :, None], axis=2)
    assert (reference_XL == 0).all() and np.abs(track.change_XLA).max() > 1e-4


def test_it_finds_a_planted_motif(planted: GridDataModule) -> None:
    ridge = trained("BilinearRidge", planted)
    truth = read_truth(planted.store)
    assert truth is not None
    holds_C = np.flatnonzero(truth.motif_C >= 0)[:15]
    expression_SG = ridge.module.scaler(read_expression(planted.store, np.arange(8)))
    windows = (read_cpgs(planted.store, np.array([c])) for c in holds_C)
    tracks = mutate(ridge.module.network, windows, expression_SG)
    by_method = {row[1]: row for row in recover_sites(truth, planted.store, holds_C, tracks)}
    _, _, planted_bases, bases, auroc, _, p = by_method["mutagenesis (interaction)"]
    assert planted_bases >= 15 * 20 and bases == 15 * 120
    assert auroc > 0.65 and p < 1e-6


def test_inserting_equals_writing(planted: GridDataModule) -> None:
    ridge = trained("BilinearRidge", planted)
    cpgs, samples = inputs(planted, ridge.module)
    change, interaction = insert(ridge.module.network, cpgs, samples.expression_SG, ["ACGTTG"], 70)
    written_CL = cpgs.sequence_CL.clone()
    written_CL[:, 70:76] = torch.tensor([0, 1, 2, 3, 3, 2], dtype=torch.uint8)

    def predicted(sequence_CL: torch.Tensor) -> torch.Tensor:
        features: CpgFeatures = as_unseen(cpgs, sequence_CL)
        with torch.no_grad():
            return ridge.module.network(features, samples.expression_SG)

    change_CS = (predicted(written_CL) - predicted(cpgs.sequence_CL)).numpy()
    assert change[0] == pytest.approx(change_CS.mean(), abs=1e-6)
    assert interaction[0] == pytest.approx(change_CS.std(axis=1).mean(), abs=1e-6)
