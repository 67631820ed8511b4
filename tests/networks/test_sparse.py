"""Grids that mostly miss their cells: means and slopes come from what is measured, and no more than it tells."""

import numpy as np
import torch

from methyl_lightning import networks
from methyl_lightning.networks.sparse import fill_sparse


def planted(spread: float, n_cpgs: int = 400, n_samples: int = 50, measured: float = 0.15) -> tuple[torch.Tensor, ...]:
    """Make calls whose chance is a value of the sample and one of the CpG."""
    rng = np.random.default_rng(0)
    sample_S, own_C = rng.uniform(0.2, 0.8, n_samples), spread * rng.choice([-1, 1], n_cpgs)
    chance_CS = np.clip(own_C[:, None] + sample_S, 0, 1)
    call_CS = (rng.random(chance_CS.shape) < chance_CS).astype(np.float32)
    call_CS[rng.random(chance_CS.shape) > measured] = np.nan
    return torch.from_numpy(call_CS), torch.from_numpy(own_C), torch.from_numpy(sample_S)


def test_a_grid_with_most_cells_stays_as_it_is() -> None:
    beta_CS = planted(0.1, measured=0.9)[0]
    assert fill_sparse(beta_CS) is beta_CS


def test_cpgs_that_do_not_differ_get_the_values_of_the_samples() -> None:
    beta_CS, _, sample_S = planted(0.0)
    filled_CS, known_CS = fill_sparse(beta_CS), ~beta_CS.isnan()
    assert torch.equal(filled_CS[known_CS], beta_CS[known_CS])
    error_CS = (filled_CS - sample_S)[~known_CS].abs()
    assert float(error_CS.mean()) < 0.06  # of 60 calls a sample
    assert float(filled_CS[~known_CS].std()) < 1.3 * float(sample_S.std())


def test_cpgs_that_differ_keep_a_share_of_it() -> None:
    beta_CS, own_C, sample_S = planted(0.2)
    filled_CS = torch.where(beta_CS.isnan(), fill_sparse(beta_CS), torch.nan)
    left_C = (filled_CS - sample_S).nanmean(1)
    assert float(torch.corrcoef(torch.stack([left_C, own_C.float()]))[0, 1]) > 0.75
    assert 0.05 < float((left_C * own_C.sign()).mean()) < 0.2


def test_a_sample_or_cpg_without_any_call_is_an_average_one() -> None:
    beta_CS, _, _ = planted(0.1)
    beta_CS[3], beta_CS[:, 4] = torch.nan, torch.nan
    filled_CS = fill_sparse(beta_CS)
    assert filled_CS.isfinite().all()
    others = [s for s in range(50) if s != 4]
    assert abs(float(filled_CS[3, 4]) - float(filled_CS[3, others].mean())) < 0.02


def test_slopes_are_not_those_of_missing_cells() -> None:
    """Expression tells one number a sample; a network that took missing cells for average ones would see a sixth."""
    rng = np.random.default_rng(1)
    beta_CS, _, sample_S = planted(0.0)
    expression_SG = torch.from_numpy(np.outer(sample_S, np.ones(20)) + 0.01 * rng.normal(size=(50, 20))).float()
    network = networks.ExpressionOnly(20, 5)
    cpgs = networks.CpgFeatures(*(torch.zeros(400, 1) for _ in range(8)))
    view = networks.TrainingView(cpgs, expression_SG, beta_CS, None)
    network.fit_statistics(networks.TrainingData(lambda: None, lambda _: view))
    predicted_S = network.combine(
        network.encode_cpgs(cpgs._replace(offset_C=torch.zeros(1))), network.encode_samples(expression_SG)
    )[0]
    slope = np.polyfit(sample_S.numpy(), predicted_S.numpy(), 1)[0]
    assert 0.8 < slope < 1.2
