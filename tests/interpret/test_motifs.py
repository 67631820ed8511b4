"""Filters give the motif that they were set to, MEME files are read as written, and tomtom finds what is alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fitted import inputs, trained

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.files import InputError
from methyl_lightning.interpret.motifs import (
    Filter,
    density,
    filter_table,
    match,
    motif_stability,
    one_hot,
    read_collection,
    read_filters,
    similarity,
    write_meme,
)

MOTIF = "TTACGTAAGCA"


def made(name: str, motif: str, sites: int = 40) -> Filter:
    return Filter(name, one_hot(motif) * sites, 0.1, 0.0)


def test_a_filter_gives_the_motif_that_it_was_set_to(datamodule: GridDataModule) -> None:
    module = trained("LevyJurgenson", datamodule).module
    cpgs, samples = inputs(datamodule, module)
    convolution = module.network.motif[0]
    rng = np.random.default_rng(0)
    sequence_CL = torch.from_numpy(rng.integers(0, 4, (200, 100), dtype=np.uint8))
    planted = torch.tensor(["ACGT".index(letter) for letter in MOTIF], dtype=torch.uint8)
    sequence_CL[::2, 30:41] = planted
    sequence_CL[1, 30:40] = planted[:10]
    sequence_CL[1, 40] = 4  # what holds an N is no site
    with torch.no_grad():
        convolution.convolution.weight[7, :4] = torch.from_numpy(one_hot(MOTIF).T).float()
        convolution.convolution.weight[7, 4] = 1.0
        convolution.convolution.bias[7] = -8.0
        convolution.normalisation.running_mean[7], convolution.normalisation.running_var[7] = 0.0, 1.0
    before = convolution.convolution.weight.detach().clone()
    filters = read_filters(module.network, sequence_CL, cpgs, samples.expression_SG)
    assert torch.equal(convolution.convolution.weight, before)
    assert len(filters) == 128 and [one.effect for one in filters] == sorted((f.effect for f in filters), reverse=True)
    found = next(one for one in filters if one.name == "motif_7")
    assert found.consensus == MOTIF and 100 <= found.sites <= 103
    assert found.count_WA.sum() == 11 * found.sites and 19 < found.information < 22
    table = filter_table(filters).set_index("filter")
    assert bool(table.loc["motif_7", "has_cpg"]) and table.loc["motif_7", "sites"] == found.sites


def test_density_counts_cpgs() -> None:
    assert density(torch.tensor([[1, 2, 1, 2, 0], [0, 1, 1, 2, 2]])).tolist() == pytest.approx([0.5, 0.25])


def test_similarity_knows_both_strands_and_shifts() -> None:
    turned = one_hot(MOTIF)[::-1, ::-1]
    assert similarity(one_hot(MOTIF), one_hot(MOTIF)) == pytest.approx(1)
    assert similarity(one_hot(MOTIF), turned) == pytest.approx(1)
    assert similarity(one_hot(MOTIF), one_hot("GGG" + MOTIF)[:11]) == pytest.approx(1)
    assert similarity(one_hot("ACACACACACA"), one_hot("TTTTTTTTTTT")) < 0.5


def test_motifs_are_stable_where_filters_are_the_same() -> None:
    runs = [[made("a", MOTIF), made("b", "GGATTACATCC")], [made("c", "GGATTACATCC"), made("d", MOTIF)]]
    real, shuffled = motif_stability(runs, 2, 0)
    assert real == pytest.approx(1) and shuffled < 0.8


def test_meme_is_read_as_it_was_written_and_matched(tmp_path: Path) -> None:
    filters = [made("motif_1", MOTIF), made("motif_2", "AAAAAAAAAAA", sites=3)]
    write_meme(tmp_path / "filters.meme", filters, np.full(4, 0.25))
    (name, motif_WA), *others = read_collection(tmp_path / "filters.meme").items()
    assert name == f"motif_1 {MOTIF}" and not others  # the other has too few sites
    np.testing.assert_allclose(motif_WA, one_hot(MOTIF))
    rng = np.random.default_rng(0)
    collection = {f"M{i}": rng.dirichlet(np.full(4, 0.3), 10) for i in range(30)} | {"ours": motif_WA[1:]}
    found = match(filters, collection)
    assert found["target"].tolist() == ["ours"] and found["q"][0] < 1e-3
    assert found["p"][0] <= found["q"][0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not motifs\n", "holds no motif"),
        ("MOTIF a\nletter-probability matrix: alength= 4 w= 2\n0.5 x 0 0\n", "cannot be read as motifs"),
        ("MOTIF a\nletter-probability matrix: alength= 4 w= 2\n0.5 0.5 0 0\n", "it ends in a motif"),
        ("letter-probability matrix: alength= 4 w= 1\n0.5 0.5 0 0\n", "cannot be read as motifs"),
        (None, "cannot be read as motifs"),
    ],
)
def test_what_is_no_collection_is_refused(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "collection.meme"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_collection(path)
