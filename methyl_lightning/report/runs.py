"""Run folders as data: find them, read what training and testing left there, name what differs between them."""

import glob
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field
from yaml import YAMLError

from methyl_lightning.data.sealed import DamagedError, check_seal
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.texts import read_json, read_table
from methyl_lightning.evaluate.table import CEILING, DATA, read_metrics, references
from methyl_lightning.files import InputError

# settings that say where and how a run was made, not what it is
ELSEWHERE = (
    *("name", "logger", "references", "raw", "ckpt_path", "checkpoint", "patience", "dilution"),
    "choices",  # of groups; what they set counts
    *("ablation", "ablations"),  # their names, and the list of what each leaves out
)
SAME = ("data.store", "data.split_file", "data.num_workers", "data.source.cohort")

INTERPRETATION, SAID = "interpretation", "interpretation.json"  # folder of a run, and the sentences in it


class SplitFile(BaseModel):
    """What ``split.json`` holds."""

    cpg: dict[str, list[str]]
    sample: dict[str, list[str]]
    how: dict[str, Any] = Field(default_factory=dict)


class DataFile(BaseModel):
    """What ``data.json`` holds."""

    n_cpgs: int
    n_samples: int
    n_patients: int
    n_genes: int
    window: int
    assembly: str
    units: str
    cohorts: dict[str, int]
    provenance: dict[str, Any]


class UsageFile(BaseModel):
    """What ``usage.json`` holds."""

    steps: int
    train_seconds: float
    peak_rss_gb: float


class Tested(NamedTuple):
    """One model as tested in one run.

    Attributes
    ----------
    label
        Name of the model, no other one of its test set has the same.
    own
        Whether it is the model that the run is about, not a reference trained beside it.
    folder
        Where its ``metrics.json`` lies.
    metrics
        Contents of ``metrics.json``: by view, values and ``<metric>_ci95``; of several seeds ``<metric>_sd``, too.
    usage
        Contents of ``usage.json``; empty where nothing was trained.
    folders
        Of several seeds, where those of each lie.
    """

    label: str
    own: bool
    folder: Path
    metrics: dict[str, dict[str, Any]]
    usage: dict[str, Any]
    folders: Sequence[Path] = ()


class Run(NamedTuple):
    """A run folder: resolved ``config.yaml``, ``split.json``, ``data.json`` (empty if older), and its models.

    ``repeats`` are the runs, this one among them, that :func:`methyl_lightning.report.seeds.gather_seeds` put into it.
    """

    folder: Path
    config: dict[str, Any]
    split: dict[str, dict[str, list[str]]]
    data: dict[str, Any]
    models: list[Tested]
    repeats: Sequence["Run"] = ()


class TestSet(NamedTuple):
    """Runs that were tested on the very same cells, so that their figures can be compared."""

    name: str
    runs: list[Run]
    models: list[Tested]


def find_runs(places: str | Sequence[str]) -> list[Path]:
    """Find the run folders that are named, or lie in the folders named; ``*`` and ``?`` are filled in.

    Raises
    ------
    InputError
        If a place holds none.
    """
    if not places:
        raise InputError("runs=[]: no run folder is named")
    found: list[Path] = []
    for place in [places] if isinstance(places, str) else places:
        folders = [Path(name) for name in sorted(glob.glob(place))]  # noqa: PTH207 - Path.glob takes no absolute one
        inside = [run for folder in folders for run in _runs_inside(folder)]
        if not inside:
            raise InputError(
                f"{place}: no run folder there; name one that methyl_lightning.train has finished (it holds "
                "config.yaml and metrics.json), or a folder of such"
            )
        found += inside
    return list(dict.fromkeys(found))


def _runs_inside(folder: Path) -> list[Path]:
    if (folder / "metrics.json").is_file():
        if not (folder / "config.yaml").is_file():
            raise InputError(f"{folder / 'config.yaml'}: no such file; a run is read with the settings it was made by")
        return [folder]
    # a reference has metrics, too, but no settings of its own
    return sorted(path.parent for path in folder.rglob("metrics.json") if (path.parent / "config.yaml").is_file())


def read_run(folder: Path) -> Run:
    """Read a run folder and the references in it.

    Raises
    ------
    InputError
        If a file is missing or broken.
    """
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        label = str(config["model"]["network"])
        _ = config["data"]["name"]
    except (YAMLError, KeyError, TypeError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise InputError(f"{folder / 'config.yaml'}: not the settings of a training run ({error})") from error
    split = read_json(folder / "split.json", ("cpg", "sample"), SplitFile)
    data = read_json(folder / DATA, kind=DataFile) if (folder / DATA).is_file() else {}
    models = [_read_model(label, True, folder), *(_read_model(at.name, False, at) for at in references(folder))]
    return Run(folder, config, split, data, models)


def _read_model(label: str, own: bool, folder: Path) -> Tested:
    usage = read_json(folder / "usage.json", kind=UsageFile) if (folder / "usage.json").is_file() else {}
    return Tested(label, own, folder, read_metrics(folder), usage)


def read_predictions(model: Tested, view: str) -> anndata.AnnData | None:
    """Read the predictions of a view; None for the ceiling, which is tested without any that could be shown.

    Raises
    ------
    InputError
        If the file is missing or broken.
    """
    path = model.folder / f"predictions_{view}.h5ad"
    if not path.is_file() and model.folder.name == CEILING:
        return None
    remedy = "test the run's checkpoint again with methyl_lightning.evaluate"
    if not path.is_file():
        raise InputError(f"{path}: no such predictions; {remedy}")
    try:
        check_seal(path, remedy)
        return anndata.read_h5ad(path)
    except DamagedError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: truncated or not predictions; {remedy}") from error


def read_log(model: Tested) -> pd.DataFrame:
    """Read what was logged while the model trained: ``step``, metrics, and ``run``, which counts its seeds."""
    tables = [pd.DataFrame(columns=["step", "run"])]
    for run, folder in enumerate(model.folders or [model.folder]):
        # a run that was continued has several
        tables += [read_table(path).assign(run=run) for path in sorted(folder.glob("log/*/metrics.csv"))]
    return pd.concat(tables[1:] or tables, ignore_index=True)


def read_interpretation(model: Tested) -> dict[str, Any] | None:
    """Read the sentences and the genes of a run's interpretation, and name its figures; None where it has none."""
    folder = model.folder / INTERPRETATION
    if not (folder / SAID).is_file():
        return None
    said = read_json(folder / SAID, ("checkpoints", "sentences"))
    return said | {"genes": read_table(folder / "genes.csv"), "figures": sorted(folder.glob("*.png"))}


def test_sets(runs: Sequence[Run]) -> list[TestSet]:
    """Gather runs by the cells that they were tested on, and name every model by what sets it apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        parts = json.dumps([run.config["data"]["name"], *(run.split[axis] for axis in ("cpg", "sample"))])
        groups.setdefault(hashlib.sha256(parts.encode()).hexdigest(), []).append(run)
    firsts = [group[0] for group in groups.values()]
    cohorts = [run.config["data"]["name"] for run in firsts]
    names = []
    for run in firsts:
        same = [other for other, cohort in zip(firsts, cohorts, strict=True) if cohort == run.config["data"]["name"]]
        names.append(run.config["data"]["name"] + _apart(run, same, ("data", "seed")))
    return [
        TestSet(name, group, _named_models(group))
        for name, group in zip(_numbered(names), groups.values(), strict=True)
    ]


test_sets.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of the name


def _named_models(runs: list[Run]) -> list[Tested]:
    """Label the models of one test set; a reference that came out the same in several runs is shown once."""
    own = [
        run.models[0]._replace(
            label=run.models[0].label
            + _apart(run, [other for other in runs if other.models[0].label == run.models[0].label])
        )
        for run in runs
    ]
    beside: dict[str, Tested] = {}
    for run in runs:
        for model in run.models[1:]:
            beside.setdefault(json.dumps([model.label, model.metrics]), model)
    models = [*own, *sorted(beside.values(), key=lambda model: (model.label == CEILING, model.label))]
    return [
        model._replace(label=label) for model, label in zip(models, _numbered([m.label for m in models]), strict=True)
    ]


def _numbered(names: list[str]) -> list[str]:
    """Tell equal names apart by a number."""
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _apart(run: Run, runs: list[Run], parts: tuple[str, ...] = ()) -> str:
    """Write the name of a run, or where others have it, too, how it differs from them: ``, without=[sequence]``."""
    names = [other.config.get("name") for other in runs]
    if not parts and len(set(names)) == len(names) > 1:
        return f", {run.config.get('name')}"
    flat = [flat_settings(other.config, parts) for other in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    differing = [key for key in keys if len({one[key] for one in flat if key in one}) > 1]  # an older run lacks some
    mine = flat_settings(run.config, parts)
    return "".join(f", {key.rpartition('.')[2]}={mine[key]}" for key in differing if key in mine)


def flat_settings(value: Any, parts: tuple[str, ...] = (), prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to ``data.block`` → ``[64, 256]``, less those that do not say what a run is."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, item in value.items():
            if prefix or (key not in ELSEWHERE and (not parts or key in parts)):
                found |= flat_settings(item, (), f"{prefix}.{key}" if prefix else key)
        return found
    shown = "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
    shown = "null" if value is None else shown
    return {} if prefix in SAME else {prefix: shown}


def results(test_set: TestSet) -> pd.DataFrame:
    """Lay the metrics of a test set out in long form.

    Returns
    -------
    pandas.DataFrame
        ``test_set``, ``view`` (headline first), ``model``, ``own``, ``n_cpgs``, ``n_samples``, ``n_pairs``, ``metric``,
        ``value``, ``low``, ``high`` (95 % interval over patients), ``low_cpgs``, ``high_cpgs`` (over CpGs, where the
        run has them), ``sd`` over ``n_runs`` seeds (NaN of one); NaN where a metric is not defined.
    """
    rows = []
    for view in reversed(TEST_VIEWS):
        # of all models, as a run of an older version may lack a metric
        keys = dict.fromkeys(key for model in test_set.models for key in model.metrics[view])
        for model in test_set.models:
            values = model.metrics[view]
            sizes = {key: values[key] for key in ("n_cpgs", "n_samples", "n_pairs")}
            for key in [key for key in keys if f"{key}_ci95" in keys]:
                low, high = values.get(f"{key}_ci95") or (None, None)
                low_cpgs, high_cpgs = values.get(f"{key}_ci95_cpgs") or (None, None)
                bounds = {"low": low, "high": high, "low_cpgs": low_cpgs, "high_cpgs": high_cpgs}
                bounds |= {"sd": values.get(f"{key}_sd"), "n_runs": max(1, len(model.folders))}
                first = {"test_set": test_set.name, "view": view, "model": model.label, "own": model.own}
                rows.append(first | sizes | {"metric": key, "value": values.get(key)} | bounds)
    numbers = ["value", "low", "high", "low_cpgs", "high_cpgs", "sd"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))
