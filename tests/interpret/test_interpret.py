"""The command: what it writes and says of a run, of several, and of wrong words."""

import html
import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from conftest import assert_refused, command, files, tiny_store
from fitted import trained
from wandb_files import read_wandb

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.interpret.interpretation import interpret_networks
from methyl_lightning.interpret.recovery import CERTAIN, N_DECOYS, decoys, rank, read_truth, verdict
from methyl_lightning.interpret.selection import Settings
from methyl_lightning.report.page import write_report

FEW = ["most_cpgs=30", "most_samples=10", "mutate=2", "exact=3", "top=5"]


def test_a_run_is_interpreted(workplace: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.gmt"
    sets.write_text("odd\tx\tGENE00001\tGENE00003\nall\tx\t" + "\t".join(f"GENE{g:05d}" for g in range(40)) + "\n")
    shutil.copytree(workplace / "run", tmp_path / "run")
    typed = [f"checkpoint={tmp_path}/run/best.ckpt", f"gene_sets={sets}", "knock_out=[GENE00001,GENE00002]"]
    result = command("interpret", [*typed, *FEW, "cis=GENE00004", "insert=[TTACGG]"], workplace)
    assert result.status == 0, result.err
    out = tmp_path / "run" / "interpretation"
    tables = {"genes", "genes_by_class", "attention_changes", "stability", "cis", "cis_map", "enrichment", "recovery"}
    tables |= {"knocked_out_set", "filters", "mutagenesis", "insertions"}
    drawn = {"genes", "cis", "cis_map", "filters", "mutagenesis"}
    expected = {f"{name}.csv" for name in tables} | {f"{name}.png" for name in drawn}
    assert files(out) == expected | {"filters.meme", "interpretation.json"}
    assert all(matplotlib.image.imread(out / f"{name}.png").std() > 0.01 for name in drawn)
    said = json.loads((out / "interpretation.json").read_text())["sentences"]
    assert said[0].startswith("CpG density") and said[1].startswith("Knock-out: 40 genes × ")
    assert result.out == "\n".join([*said, f"interpretation: {out}", ""])
    genes = pd.read_csv(out / "genes.csv")
    assert len(genes) == 40 and genes["exact"].sum() == 3 and genes["knock_out"].is_monotonic_decreasing
    assert {"attention_expression", "attention_distance", "attention_sequence"} <= set(genes)
    assert genes["attention_distance"].sum() == pytest.approx(1, abs=1e-3)
    mutagenesis = pd.read_csv(out / "mutagenesis.csv")
    assert len(mutagenesis) == 2 * 100
    assert set(mutagenesis.loc[mutagenesis["place"].isin([0, 1]), "base"]) == {"C", "G"}
    assert (pd.read_csv(out / "cis_map.csv")["gene"] == "GENE00004").all()
    assert pd.read_csv(out / "insertions.csv")["motif"].tolist() == ["TTACGG"]
    assert pd.read_csv(out / "enrichment.csv").set_index("set").loc["all", "p"] == 1
    write_report(str(tmp_path / "run"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    section = page[page.index('<section id="interpretation"') : page.index('<section id="training"')]
    assert all(html.escape(sentence, quote=False) in section.replace("&#39;", "'") for sentence in said)
    assert section.count("<img src=") == len(drawn) and genes["symbol"][0] in section


def test_w_and_b_gets_what_was_written(workplace: Path, tmp_path: Path) -> None:
    typed = ["checkpoint=run/best.ckpt", f"output={tmp_path}/out", "logger=wandb", *FEW]
    result = command("interpret", typed, workplace, WANDB_MODE="offline", WANDB_SILENT="true")
    assert result.status == 0, result.err
    assert "W&B ran offline; upload the run with: wandb sync" in result.out
    told, out = read_wandb(tmp_path / "out"), tmp_path / "out"
    assert (told["name"], told["job"], told["exit"]) == ("interpret run", "interpret", 0)
    assert told["tags"] == ["simulated", "LevyJurgenson"]
    assert told["config"]["checkpoint"] == ["run/best.ckpt"] and told["config"]["top"] == 5
    (history,) = told["history"]
    sizes = {path.stem: len(pd.read_csv(path)) for path in out.glob("*.csv")}
    sizes["sentences"] = len(json.loads((out / "interpretation.json").read_text())["sentences"])
    kinds = {key.removesuffix("._type"): kind for key, kind in history.items() if key.endswith("._type")}
    tables = {key: history[f"{key}.nrows"] for key, kind in kinds.items() if kind == "table-file"}
    assert tables == {f"interpretation/{name}": size for name, size in sizes.items()}
    figures = {key for key, kind in kinds.items() if kind == "image-file"}
    assert figures == {f"interpretation/figure_{path.stem}" for path in out.glob("*.png")}
    assert set(told["artifacts"]["interpretation"]) == {path.name for path in out.iterdir() if path.is_file()}


def test_several_networks_are_interpreted_together(datamodule: GridDataModule) -> None:
    one, other = trained("BilinearRidge", datamodule), trained("MethylationFactors", datamodule)
    chosen = Settings(most_cpgs=20, most_samples=10, mutate=1, top=5, seed=1)
    alone, both = interpret_networks([one], chosen), interpret_networks([one, other], chosen)
    assert not {"attention_changes", "filters"} & set(both.tables)
    assert any("no attention on genes" in sentence for sentence in both.sentences)
    assert any(sentence.startswith("Over 2 checkpoints knock out has") for sentence in both.sentences)
    assert both.tables["stability"]["checkpoints"].tolist() == [2]
    changed = both.tables["genes"]["knock_out"].sort_index() - alone.tables["genes"]["knock_out"].sort_index()
    assert changed.abs().max() > 0
    with pytest.raises(InputError, match="LevyJurgenson: has not the attention that BilinearRidge has"):
        interpret_networks([one, trained("LevyJurgenson", datamodule)], chosen)


def test_drivers_and_their_cpgs_are_recovered(planted: GridDataModule) -> None:
    made = interpret_networks([trained("MethylationFactors", planted)], Settings(mutate=1, top=10))
    table = made.tables["recovery"].set_index(["planted", "method"])
    drivers = table.loc[("drivers", "knock_out")]
    assert drivers["auroc"] > 0.95 and drivers["verdict"] == "recovers it" and drivers["n"] == 2
    assert table.loc[("CpGs of a driver", "knock_out"), "auroc"] > 0.8
    assert table.loc[("near genes of a CpG", "knock_out"), "auroc"] > 0.6
    assert any(sentence.startswith("Planted drivers, knock out: recovers it") for sentence in made.sentences)
    assert "holds against chance alone: no control" in made.sentences[-1]


def test_recovery_is_said_by_a_rule() -> None:
    inside_N = np.arange(40) < 10
    _, _, auroc, precision, p = rank(inside_N, np.arange(40, 0, -1.0))
    assert (auroc, precision) == (1, 1) and verdict(auroc, p < CERTAIN) == "recovers it"
    _, _, auroc, precision, p = rank(inside_N, np.arange(40.0))
    assert (auroc, precision) == (0, 0) and verdict(auroc, p < CERTAIN).startswith("does not recover it")
    assert verdict(0.7, True).startswith("better than chance, but")
    assert verdict(0.99, True, above_control=False) == "does not recover it: no better than of permuted labels"
    _, _, auroc, _, p = rank(np.full(4, False), np.arange(4.0))
    assert verdict(auroc, p < CERTAIN) == "cannot be told"


def test_decoys_are_no_planted_motifs(store: Store, tmp_path: Path) -> None:
    assert read_truth(tiny_store(tmp_path / "cohort.h5")) is None  # of a cohort that nobody simulated
    truth = read_truth(store)
    assert truth is not None
    made = decoys(truth, 0)
    assert len(made) == N_DECOYS and not set(made) & set(truth.motif_D) and not any("CG" in motif for motif in made)
    assert {"".join(sorted(motif)) for motif in made} <= {"".join(sorted(motif)) for motif in truth.motif_D}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["cpgs=[cg00000001,cg9]"], ["cpgs=", "'cg9'", "not in the store"]),
        (["cpgs=nowhere.txt"], ["cpgs=nowhere.txt", "nor a file of names"]),
        (["samples=[nobody]"], ["samples=", "'nobody'", "not in the store"]),
        (["knock_out=[GENE00001,NODAL]"], ["knock_out=", "'NODAL'", "not in the store"]),
        (["mutate=[cg7]"], ["mutate=", "'cg7'", "not in the store"]),
        (["cis=NODAL"], ["cis=NODAL", "neither a CpG nor a gene"]),
        (["groupby=subtype"], ["groupby=subtype", "no column of the samples", "cohort"]),
        (["insert=[ACGN]"], ["insert=ACGN", "letters of ACGT"]),
        (["gene_sets=nowhere.gmt"], ["nowhere.gmt", "cannot be read"]),
        (["motifs=nowhere.meme"], ["nowhere.meme", "cannot be read as motifs"]),
        (["exact=-1"], ["exact=-1", "whole number of at least 0"]),
        (["top=many"], ["top=many"]),
        (["checkpoint=gone.ckpt"], ["gone.ckpt", "no such checkpoint"]),
        (["checkpoint=run/references/constant/best.ckpt"], ["config.yaml", "no such file"]),
    ],
)
def test_wrong_words_are_refused_in_a_line(typed: list[str], words: list[str], workplace: Path) -> None:
    given = [] if typed[0].startswith("checkpoint=") else ["checkpoint=run/best.ckpt"]
    result = command("interpret", [*given, *FEW, "output=refused", *typed], workplace)
    assert_refused(result, *words)
    assert not (workplace / "refused").exists()
