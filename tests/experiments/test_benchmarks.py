"""What preparing is measured on is read like any cohort; what speed is measured against is the same network."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.benchmarks import busy, dilution
from experiments.benchmarks.dense_pairs import DensePairs
from experiments.benchmarks.write_cohort import COHORTS, N_CPGS, N_GENES, write_cohort
from methyl_lightning.data.store import Store
from methyl_lightning.networks import LevyJurgenson
from methyl_lightning.prepare.tcga import tcga

SCALE = 0.001


def test_cohorts_of_any_size_can_be_written_and_prepared(tmp_path: Path) -> None:
    write_cohort(tmp_path, SCALE)
    names = {"methylation": "HumanMethylation450.gz", "expression": "HiSeqV2.gz"}
    cohorts = {name: {key: str(tmp_path / name / file) for key, file in names.items()} for name in COHORTS}
    files = {name: tmp_path / file for name, file in (("genes", "genes.tsv.gz"), ("genome", "genome.fa"))}
    tcga(tmp_path / "cohort.h5", cohorts=cohorts, probe_map=tmp_path / "probeMap.tsv", **files)
    store = Store(tmp_path / "cohort.h5")
    assert store.beta_steps_CS.shape == (round(SCALE * N_CPGS), sum(COHORTS.values()))
    assert store.samples["cohort"].value_counts().to_dict() == COHORTS
    assert len(store.genes) == round(SCALE * N_GENES)
    record = store.attributes["provenance"]
    assert record["sequences"]["cg_at_0"] == len(store.cpgs)
    assert 0.01 < record["counts"]["missing_share"] < 0.03
    assert len(store.distances.bp_N) > 0 and store.genes["start"].min() >= 0
    with gzip.open(tmp_path / "LUAD" / names["methylation"], "rt") as file:
        *_, last = file
    expected = [np.nan if text == "NA" else float(text) for text in last.rstrip("\n").split("\t")[1:]]
    of_luad = np.flatnonzero(store.samples["cohort"] == "LUAD")
    beta_S = store.beta(np.array([len(store.cpgs) - 1]), of_luad)[0]
    assert beta_S.tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_the_cost_of_dilutions_is_a_row(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(dilution, "ROUNDS", 1)
    monkeypatch.setattr(dilution, "LEVELS", (3, 300))
    name, *seconds, ratio = (cell.strip() for cell in dilution.measure(Path("run/best.ckpt")).strip("|").split("|"))
    assert name == "simulated (40 genes, 12 CpGs × 4 samples)"
    assert all(float(cell.removesuffix(" s")) >= 0 for cell in seconds) and float(ratio) > 0


def test_the_published_form_has_the_layers_of_the_network() -> None:
    dense, grid = DensePairs(60, 100), LevyJurgenson(60, 100)
    shapes = [sorted(parameter.numel() for parameter in network.parameters()) for network in (dense, grid)]
    assert shapes[0] == shapes[1]
    sequence_NL = torch.randint(0, 5, (8, 100))
    assert dense(sequence_NL, torch.rand(8, 60), torch.rand(8, 60)).shape == (8,)


def test_training_beside_a_busy_program_is_a_row(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = busy.measure(str(store.path), 2)
    assert found["rate"] > 0 and found["processor"] > 0
    asked: list[dict[str, str]] = []

    def run(command: list[str], env: dict[str, str], **settings: Any) -> SimpleNamespace:
        asked.append({key: value for key, value in env.items() if key.startswith(("OMP_", "GOMP_"))})
        return SimpleNamespace(stdout=json.dumps({"rate": len(asked), "processor": 0.25}))

    monkeypatch.setattr(busy.subprocess, "run", run)
    monkeypatch.setattr(busy.sys, "argv", ["busy", "cohort.h5", "--rounds=1", "--neighbours", "0", "1"])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    busy.main()
    assert asked == [*busy.WAYS.values()] * 2  # none of what stands in the environment
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| threads | 0 busy | 1 busy |" and lines[2] == "| as it comes | 1.00 (0.25 s) | 5.00 (0.25 s) |"
