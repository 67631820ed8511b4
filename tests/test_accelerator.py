"""On a GPU: what the commands give there is what they give on the processor, and a run that stopped goes on.

``METHYL_LIGHTNING_GPU=1 python -m pytest tests/test_accelerator.py``; all other tests leave a GPU alone.
"""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DATA, SMALL, command, process
from fitted import trained

from methyl_lightning import networks
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.store import Store
from methyl_lightning.model.grid import predict_grid

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and METHYL_LIGHTNING_GPU=1")
GPU = "trainer.accelerator=gpu"
NETWORKS = sorted(
    name
    for name in networks.__all__
    if issubclass(getattr(networks, name), networks.MethylationNetwork) and name != "MethylationNetwork"
)
RUN = [*SMALL, GPU, "seed=3", "model.learning_rate=0.01"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of eight steps has been trained on the GPU, and new samples lie."""
    folder = tmp_path_factory.mktemp("gpu")
    assert command("prepare", DATA, folder).status == 0
    result = command("train", [*RUN, "trainer.max_steps=8", "hydra.run.dir=run"], folder)
    assert result.status == 0, result.err
    store = Store(folder / "stores" / "simulated.h5")
    values_GS = pd.DataFrame(store.expression_SG[:6].T, index=store.genes["symbol"])
    values_GS.to_csv(folder / "new.tsv", sep="\t", index_label="gene")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_predicts_there_as_on_the_processor(name: str, datamodule: GridDataModule) -> None:
    module = trained(name, datamodule).module
    view = datamodule.split.view("test_cpg-test_sample")
    here_CS = predict_grid(module.cpu(), datamodule.store, *view)
    there_CS = predict_grid(module.cuda(), datamodule.store, *view)
    np.testing.assert_allclose(there_CS, here_CS, atol=2e-4)


def test_training_goes_on_as_if_it_had_not_stopped(place: Path) -> None:
    for overrides in (
        [*RUN, "trainer.max_steps=4", "hydra.run.dir=part"],
        ["ckpt_path=part/last.ckpt", "trainer.max_steps=8"],
    ):
        result = command("train", overrides, place)
        assert result.status == 0, result.err
    ends = [torch.load(place / run / "last.ckpt", weights_only=True)["state_dict"] for run in ("run", "part")]
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_bfloat16_keeps_float32_weights(place: Path) -> None:
    bf16 = ["trainer.precision=bf16-mixed", "trainer.max_steps=4", "hydra.run.dir=bf16"]
    result = command("train", [*RUN, *bf16], place)
    assert result.status == 0, result.err
    checkpoint = torch.load(place / "bf16" / "last.ckpt", weights_only=True)
    assert all(tensor.dtype != torch.bfloat16 for tensor in checkpoint["state_dict"].values())


def test_evaluation_and_dilution_give_the_figures_of_the_processor(place: Path) -> None:
    found = {}
    for device, hidden in (("gpu", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        again = ["-m", "methyl_lightning.evaluate", "checkpoint=run/best.ckpt"]
        result = process([*again, f"hydra.run.dir=evaluated-{device}"], place, **hidden)
        assert result.status == 0, result.err
        diluted = ["+experiment=dilution", "dilution.retention=[20]", "dilution.repeats=2"]
        result = process([*again, *diluted, f"hydra.run.dir=diluted-{device}"], place, **hidden)
        assert result.status == 0, result.err
        metrics = json.loads((place / f"evaluated-{device}" / "metrics.json").read_text())
        summary = pd.read_csv(place / f"diluted-{device}" / "dilution.csv")
        found[device] = metrics, summary.select_dtypes("number").to_numpy()
    for view in TEST_VIEWS:
        for name in ("mae", "spearman", "mas_pcc"):
            assert found["gpu"][0][view][name] == pytest.approx(found["cpu"][0][view][name], abs=0.01)
    np.testing.assert_allclose(found["gpu"][1], found["cpu"][1], atol=0.02, equal_nan=True)


def test_prediction_is_that_of_the_processor(place: Path) -> None:
    predicted = {}
    for device, hidden in (("gpu", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        new = ["checkpoint=run/best.ckpt", "expression=new.tsv", f"output={device}.h5ad", "match=none"]
        result = process(["-m", "methyl_lightning.predict", *new], place, **hidden)
        assert result.status == 0, result.err
        predicted[device] = anndata.read_h5ad(place / f"{device}.h5ad")
    np.testing.assert_allclose(predicted["gpu"].X, predicted["cpu"].X, atol=2e-4)


def test_a_network_is_interpreted_beside_one(place: Path) -> None:
    result = command("interpret", ["checkpoint=run/best.ckpt", "hydra.run.dir=why"], place)
    assert result.status == 0, result.err
