"""Knock-outs equal predictions made anew, and find the drivers that a cohort was planted with."""

import h5py
import numpy as np
import pytest
import torch
from fitted import inputs, trained

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.files import InputError
from methyl_lightning.interpret.knockout import Expression, knock_out, knock_out_set
from methyl_lightning.networks import CpgFeatures, MethylationNetwork

EXACT = [
    ("LevyJurgenson", {}),
    ("LevyJurgenson", {"variant": 1}),
    ("LevyJurgenson", {"without": ["far_genes"]}),
    ("LevyJurgenson", {"without": ["sequence", "sequence_attention", "expression_attention"]}),
    ("LevyJurgenson", {"without": ["distance_attention", "sequence_attention"]}),
    ("BilinearRidge", {}),
    ("OwnLabelRidge", {}),
    ("CisLinear", {}),
    ("MethylationFactors", {}),
]


def naive(network: MethylationNetwork, cpgs: CpgFeatures, samples: Expression, genes: list[int]) -> np.ndarray:
    """Predict everything again: change of beta [C, S]."""
    changed_SG = samples.expression_SG.clone()
    changed_SG[:, genes] = samples.mean_G[genes]
    with torch.no_grad():
        return (network(cpgs, changed_SG) - network(cpgs, samples.expression_SG)).numpy()


@pytest.mark.parametrize(("name", "settings"), EXACT)
def test_it_equals_predicting_again(name: str, settings: dict, datamodule: GridDataModule) -> None:
    module = trained(name, datamodule, **settings).module
    cpgs, samples = inputs(datamodule, module)
    class_BC = np.stack([np.full(30, 1 / 30), np.repeat([0.1, 0.0], [10, 20])])
    with torch.no_grad():
        encoded = module.network.encode_cpgs(cpgs)
    found = knock_out(module.network, encoded, samples, class_BC, n_exact=40)
    changes = np.stack([naive(module.network, cpgs, samples, [g]) for g in range(40)], axis=2)
    assert found.exact_G.all() and np.abs(changes).max() > 1e-3
    np.testing.assert_allclose(found.change_SG, np.abs(changes).mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(found.change_BG[1], np.abs(changes[:10]).mean(axis=(0, 1)), atol=2e-6)
    z_SG = ((samples.expression_SG - samples.mean_G) / samples.deviation_G.clamp(min=1e-9)).numpy()
    z_SG[:, samples.deviation_G.numpy() == 0] = 0
    effect_CG = -(changes * z_SG).sum(axis=1) / (z_SG**2).sum(axis=0).clip(1e-12)
    np.testing.assert_allclose(found.effect_CG, effect_CG, atol=5e-6)
    together = knock_out_set(module.network, encoded, samples, [2, 5, 7])
    np.testing.assert_allclose(together, naive(module.network, cpgs, samples, [2, 5, 7]), atol=2e-6)


def test_first_order_screens_and_the_largest_are_exact(datamodule: GridDataModule) -> None:
    module = trained("LevyJurgenson", datamodule).module
    cpgs, samples = inputs(datamodule, module)
    with torch.no_grad():
        encoded = module.network.encode_cpgs(cpgs)
    class_BC = np.full((1, 30), 1 / 30)
    screened, exact = (knock_out(module.network, encoded, samples, class_BC, n) for n in (3, 40))
    assert screened.exact_G.sum() == 3
    assert set(np.flatnonzero(screened.exact_G)) == set(np.argsort(-screened.first_order_G)[:3])
    assert np.corrcoef(screened.first_order_G, exact.change_SG.mean(axis=0))[0, 1] > 0.95
    difference_G = np.abs(screened.change_SG - exact.change_SG).max(axis=0)
    assert difference_G[screened.exact_G].max() == 0 < difference_G[~screened.exact_G].max()


def test_drivers_come_first(planted: GridDataModule) -> None:
    ridge = trained("BilinearRidge", planted)
    cpgs, samples = inputs(planted, ridge.module)
    with torch.no_grad():
        encoded = ridge.module.network.encode_cpgs(cpgs)
    found = knock_out(ridge.module.network, encoded, samples, np.full((1, 30), 1 / 30), 0)
    with h5py.File(planted.store.path.with_name(planted.store.attributes["provenance"]["truth"])) as truth:
        drivers = truth["drivers/gene"][:]
    rank_G = np.argsort(np.argsort(-found.change_SG.mean(axis=0)))
    assert rank_G[drivers].max() < 5  # of 100


@pytest.mark.parametrize("name", ["Constant", "SequenceOnly"])
def test_a_network_without_attention_or_slopes_is_refused(name: str, datamodule: GridDataModule) -> None:
    module = trained(name, datamodule).module
    cpgs, samples = inputs(datamodule, module)
    with torch.no_grad():
        encoded = module.network.encode_cpgs(cpgs)
    with pytest.raises(InputError, match=f"network={name}: has neither attention nor slopes"):
        knock_out(module.network, encoded, samples, np.full((1, 30), 1 / 30), 0)
