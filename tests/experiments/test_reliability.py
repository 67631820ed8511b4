"""The audit finds what it looks for, a killed process is noticed, and verdicts tell faults apart."""

from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from experiments.reliability import audit, trials
from experiments.reliability.baseline import SOURCE, STORE, half_written
from experiments.reliability.processes import kills_at, run


class Package:
    def __init__(self, **headers: str):
        self.metadata = Message()
        for name, value in headers.items():
            self.metadata[name.replace("_", "-")] = value


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"License_Expression": "MIT"}, "permissive"),
        ({"License_Expression": "GPL-3.0-only OR MIT"}, "permissive"),
        ({"License_Expression": "MIT AND AGPL-3.0-or-later"}, "strong copyleft"),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, "strong copyleft"),
        ({"Classifier": "License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"}, "weak copyleft"),
        ({"License": "Apache 2.0"}, "permissive"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "permissive"),
        ({"License": "as you please"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_licences_have_kinds(headers: dict[str, str], kind: str) -> None:
    package: Any = Package(**headers)
    assert audit.licence(package)[1] == kind


@pytest.mark.parametrize(
    ("line", "is_safe"),
    [
        ("import pickle", False),
        ("from pickle import loads", False),
        ("from pickle import UnpicklingError", True),
        ("import joblib.memory", False),
        ("torch.load(path)", False),
        ("torch.load(path, weights_only=False)", False),
        ("torch.load(path, weights_only=True)", True),
        ("Module.load_from_checkpoint(path)", False),
        ("trainer.fit(module)", True),
        ("trainer.fit(module, ckpt_path=path)", False),
        ("trainer.fit(module, ckpt_path=path, weights_only=True)", True),
        ("np.load(path)", True),
        ("np.load(path, allow_pickle=True)", False),
        ("np.load(path, allow_pickle=told)", False),
        ("yaml.load(text)", False),
        ("subprocess.run(line, shell=True)", False),
        ("eval(text)", False),
    ],
)
def test_what_could_run_is_found(tmp_path: Path, line: str, is_safe: bool) -> None:
    path = tmp_path / "source.py"
    path.write_text(f"{line}\n")
    assert (list(audit.pickles(path)) == []) == is_safe


def test_nothing_here_runs_what_it_loads_and_no_licence_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.check_sources() == [] and audit.check_licences() == []
    assert "| torch |" in capsys.readouterr().out


def test_a_killed_preparation_leaves_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    settings = [*SOURCE, f"data.store={STORE}"]
    killed = run("prepare", settings, tmp_path, kills_at("methyl_lightning.data.sealed:seal", 2))
    assert killed.status == -9 and killed.tidy
    assert half_written(tmp_path) == [path.name for path in (tmp_path / "stores").glob(".*.part")] != []
    assert run("prepare", settings, tmp_path).status == 0 and half_written(tmp_path) == []


def test_a_verdict_tells_wrong_numbers_and_tracebacks(tmp_path: Path) -> None:
    refused = run("predict", ["checkpoint=none", "expression=none", "output=x.h5ad"], tmp_path)
    assert refused.status == 2 and refused.tidy

    def broken() -> None:
        raise RuntimeError("on purpose")

    untidy = run("predict", [], tmp_path, broken)
    assert untidy.status == 1 and "on purpose" in untidy.err and not untidy.tidy
    assert trials._verdict(None, untidy)[0] == trials.UNTIDY
    assert trials._verdict(False, refused)[0] == trials.WRONG
    assert trials._verdict(None, refused)[0] == trials.SURVIVED
    assert trials._verdict(None, refused._replace(status=0))[0] == trials.LOST
