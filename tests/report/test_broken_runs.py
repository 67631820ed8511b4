"""Broken runs and wrong words are one line, and nothing is written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_refused, command, files

from methyl_lightning.data.splits import HEADLINE, TEST_VIEWS
from methyl_lightning.data.texts import SUMS
from methyl_lightning.report.runs import read_run


@pytest.fixture
def copy(workplace: Path, tmp_path: Path) -> Path:
    return shutil.copytree(
        workplace / "run", tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt", "figures", SUMS)
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metrics.json", "{", ["metrics.json: missing or broken", "methyl_lightning.train or .evaluate"]),
        ("metrics.json", "{}", ["metrics.json: holds no 'test_cpg-train_sample'"]),
        ("metrics.json", json.dumps(dict.fromkeys(TEST_VIEWS, 1)), ["metrics.json: ", "holds no metrics"]),
        ("usage.json", '{"steps": "x", "train_seconds": 1, "peak_rss_gb": 1}', ["usage.json: steps: input should be"]),
        ("data.json", '{"n_cpgs": 5}', ["data.json: n_samples: field required"]),
        ("split.json", '{"cpg": 5, "sample": {}}', ["split.json: cpg: input should be an object"]),
        ("config.yaml", "\0", ["config.yaml: not the settings of a training run"]),
        ("references/constant/metrics.json", "", ["constant/metrics.json: missing or broken"]),
        ("config.yaml", "a: [", ["config.yaml: not the settings of a training run"]),
        ("config.yaml", "a: 1", ["config.yaml: not the settings of a training run"]),
        ("config.yaml", None, ["config.yaml: no such file"]),
        ("split.json", None, ["split.json: missing or broken"]),
        ("data.json", "{", ["data.json: missing or broken"]),
        (f"predictions_{HEADLINE}.h5ad", None, [f"predictions_{HEADLINE}.h5ad: no such predictions", "evaluate"]),
        (f"predictions_{HEADLINE}.h5ad", "HDF", [f"predictions_{HEADLINE}.h5ad: truncated or not predictions"]),
        ("strata.csv", "", ["strata.csv: not a table"]),
        ("log/0/metrics.csv", "", ["log/0/metrics.csv: not a table"]),
    ],
)
def test_a_broken_run_is_one_line_and_nothing_is_written(
    copy: Path, name: str, text: str | None, words: list[str]
) -> None:
    if text is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(text)
    before = files(copy.parent)
    result = command("report", ["runs=run"], copy.parent)
    assert_refused(result, *words)
    assert result.status == 2 and files(copy.parent) == before


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("metrics.json", "report"),
        ("strata.csv", "report"),
        ("log/0/metrics.csv", "report"),
        ("references/constant/metrics.json", "report"),
        ("split.json", "evaluate"),
    ],
)
def test_another_digit_is_noticed(workplace: Path, tmp_path: Path, name: str, by: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(workplace / "run", folder)
    path = folder / name
    text = path.read_text()
    places = [match.start() for match in re.finditer(r"(?<=\.\d)\d|(?<=\d{3})\d", text)]
    at = places[len(places) // 2]
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    given = ["checkpoint=run/best.ckpt", f"store={workplace / 'stores' / 'simulated.h5'}", "hydra.run.dir=again"]
    result = command(by, given if by == "evaluate" else ["runs=run"], tmp_path)
    assert_refused(result, f"{name}: damaged, its checksum is another; test", f"or remove {SUMS}")
    (folder / SUMS).unlink()  # as after a change on purpose
    assert read_run(folder).models


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mae", "bad"),
        ("mae", [1]),
        ("mae_ci95", "x"),
        ("mae_ci95", [1]),
        ("n_pairs", "x"),
        ("pearson", {}),
        ("mae", ...),
    ],
)
def test_metrics_that_are_text_are_one_line(copy: Path, name: str, value: Any) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics[HEADLINE].pop(name)
    if value is not ...:
        metrics[HEADLINE][name] = value
    (copy / "metrics.json").write_text(json.dumps(metrics))
    assert_refused(command("report", ["runs=run"], copy.parent), f"metrics.json: {HEADLINE}.{name}", "make it again")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["runs=FOLDER", "sweep=FOLDER"]),
        (["runs=a", "sweep=b"], ["runs=FOLDER", "not both"]),
        (["runs=nowhere"], ["nowhere: no run folder there", "methyl_lightning.train"]),
        (["runs=[]"], ["runs=[]", "no run folder"]),
        (["runs=nowhere", "output=page.txt"], ["output=page.txt: must end in .html"]),
        (["nonsense=1"], ["nonsense"]),
    ],
)
def test_wrong_words_are_one_line(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    assert_refused(command("report", overrides, tmp_path), *words)
    assert files(tmp_path) == set()
