"""Imports run one way, every shipped configuration composes, and its settings are arguments of what it names."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

import methyl_lightning
from methyl_lightning import networks
from methyl_lightning.command.run import conf_folder
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.distances import within
from methyl_lightning.data.expression import SCALERS
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks.levy_jurgenson import ABLATIONS
from methyl_lightning.train.fit import build_datamodule

PACKAGE = Path(methyl_lightning.__file__).parent
ROOT = PACKAGE.parent
CONF = conf_folder()
# a room may import what stands above it, and its own files as long as they make no circle
ROOMS = [
    "files",
    "command",
    "metrics",
    "networks",
    "data",
    "readers",
    "model",
    "prepare",
    "dilution",
    "evaluate",
    "predict",
    "report",
    "train",
    "interpret",
]

COMMANDS = [path.stem for path in CONF.glob("*.yaml")]


@cache
def modules() -> dict[str, Path]:
    """Name every file of the package, without the package's own name."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items() if name != "__init__"}


def entry_points() -> set[str]:
    return {name for name, path in modules().items() if '__name__ == "__main__"' in path.read_text()}


@cache
def imports(path: Path) -> set[str]:
    """List all modules that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            for alias in node.names:  # what is imported may itself be a module: from methyl_lightning import networks
                name = f"{node.module}.{alias.name}"
                found.add(name if name.removeprefix(f"{PACKAGE.name}.") in modules() else node.module)
    return found


def inside(path: Path) -> set[str]:
    """Name the modules of the package that a file imports."""
    return {name.removeprefix(f"{PACKAGE.name}.") for name in imports(path) if name.startswith(f"{PACKAGE.name}.")}


def outside(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)} - {PACKAGE.name}


def room(name: str) -> str:
    """Name the room of a module, which must have a place in the order."""
    found = name.split(".")[0]
    assert found in ROOMS, f"{name} has no place in the order of rooms: say here what stands above it"
    return found


def reach(name: str) -> set[str]:
    """Follow the imports of a module through the package."""
    found, todo = set(), [name]
    while todo:
        found.add(one := todo.pop())
        todo += [other for other in inside(modules()[one]) if other not in found]
    return found


def test_imports_run_downwards() -> None:
    assert {room(name) for name in modules()} == set(ROOMS)
    assert {"prepare.__main__", "train.__main__", "evaluate.__main__"} <= entry_points()
    for name, path in modules().items():
        for imported in inside(path):
            assert ROOMS.index(room(imported)) <= ROOMS.index(room(name)), f"{name} imports {imported}"


def test_files_do_not_import_in_circles() -> None:
    for name in modules():
        assert all(name not in reach(imported) for imported in inside(modules()[name])), name


def test_nobody_imports_an_entry_point() -> None:
    importers = [*modules().values(), *(ROOT / "experiments").rglob("*.py")]
    for path in importers:
        assert not inside(path) & entry_points(), path


def test_only_commands_know_hydra() -> None:
    knowing = {name for name, path in modules().items() if outside(path) & {"hydra"}}
    shared = {"command.run", "command.run_folder", "prepare.stores", "train.fit", "train.requeue", "train.resume"}
    assert {"command.run", "train.__main__"} <= knowing <= entry_points() | shared


@pytest.mark.parametrize(
    ("start", "strangers"),
    [
        ("data.store", {"torch", "lightning", "anndata", "matplotlib"}),
        ("metrics.scores", {"torch", "lightning", "h5py", "matplotlib"}),
        ("evaluate.figures", {"torch", "lightning", "h5py"}),
        ("report.figures", {"torch", "lightning", "h5py", "anndata"}),
        ("report.tables", {"torch", "lightning", "matplotlib"}),
        ("report.runs", {"torch", "lightning", "matplotlib"}),
        ("networks", {"lightning", "hydra", "omegaconf", "anndata", "wandb", "matplotlib"}),
        ("prepare.tcga", {"lightning", "wandb", "matplotlib"}),
        ("data.splits", {"torch", "lightning"}),
    ],
)
def test_layers_do_not_know_what_is_not_theirs(start: str, strangers: set[str]) -> None:
    for name in reach(start):
        assert not outside(modules()[name]) & strangers, name


def test_networks_are_pure_torch() -> None:
    for name, path in modules().items():
        if name.split(".")[0] == "networks":
            assert {one for one in inside(path) if not one.startswith("networks")} <= set()
            growing_trees = {"sklearn", "numpy"} if name == "networks.baselines.boosting" else set()
            standard = {"abc", "collections", "contextlib", "functools", "math", "typing"}
            assert outside(path) <= {"torch"} | standard | growing_trees


def test_conf_is_one_level_and_small() -> None:
    paths = [path.relative_to(CONF) for path in CONF.rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} == {".yaml"}
    assert len(paths) <= 40  # a file a command, cohort, network and experiment
    assert max(len(path.parts) for path in paths) == 2
    assert {path.parent.name for path in paths} == {"", "data", "model", "trainer", "logger", "experiment", "launcher"}


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, ["hydra.runtime.output_dir=run", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # ${hydra:…} is resolved through it
    return cfg


def settings(command: str, *overrides: str) -> dict[str, Any]:
    """Compose a command's settings and resolve every interpolation; what must be given stays ``???``."""
    cfg = composed(command, *overrides)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return {"missing": OmegaConf.missing_keys(own), **OmegaConf.to_container(own, resolve=True)}


def targets(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for item in value.values():
            yield from targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from targets(item)


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


NOT_GIVEN = {
    "tcga_xena": {"data.source.genes"},
}
CHOICES = [(group, choice) for group in ("data", "model", "trainer", "logger") for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), [*CHOICES, *(("+experiment", name) for name in choices("experiment"))])
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    given = ["data.name=shared"] if choice == "grid" else []  # what the other files of the group are made of
    for command in ["train", "prepare"] if group == "data" else ["train"]:
        found = settings(command, f"{group}={choice}", *given)
        assert found["missing"] == NOT_GIVEN.get(choice, set())
        named = list(targets(found))
        assert len(named) >= (3 if command == "train" else 1)
        for target in named:
            made = get_object(target["_target_"])
            own = set(target) - {"_target_"}
            if made is GridDataModule:
                own -= {"name", "source", "download"}  # the commands' own
            inspect.signature(made).bind_partial(**dict.fromkeys(own))


@pytest.mark.parametrize("choice", choices("data"))
def test_every_data_choice_makes_a_data_module(choice: str, store_path: Path) -> None:
    given = ["data.name=shared"] if choice == "grid" else []
    cfg = composed("train", f"data={choice}", f"data.store={store_path}", "model.variant=2", "seed=4", *given)
    datamodule = build_datamodule(cfg, MethylationModule("LevyJurgenson", 40, 100, variant=2))
    near_C = within(datamodule.store.distances, 10_000)
    assert 30 < near_C.sum() < 120
    assert sum(map(len, datamodule.split.cpg.values())) == near_C.sum()
    assert len(datamodule.split.cpg["test"]) == round(cfg.data.fractions[2] * near_C.sum())
    assert datamodule.seed == 4


def test_models_name_networks_and_take_their_settings() -> None:
    for choice in choices("model"):
        model = settings("train", f"model={choice}")["model"]
        network = getattr(networks, model["network"])
        own = set(model) - {"_target_", "network"} - set(inspect.signature(MethylationModule).parameters)
        assert own == set(inspect.signature(network).parameters) - {"n_genes", "window"}


def test_reproduce_is_the_paper_beside_what_it_must_beat() -> None:
    found = settings("train", "+experiment=reproduce")
    assert found["name"] == "reproduce" and found["seed"] == 0 and found["ckpt_path"] is None
    assert (found["model"]["network"], found["model"]["variant"]) == ("LevyJurgenson", 3)
    assert {name: model["network"] for name, model in found["references"].items()} == {
        "sequence_only": "SequenceOnly",
        "constant": "Constant",
        "cpg_mean": "CpgMean",
        "bilinear_ridge": "BilinearRidge",
        "expression_only": "ExpressionOnly",
        "methylation_factors": "MethylationFactors",
    }
    assert found["data"]["name"] == "simulated" and found["data"]["store"] == "stores/simulated.h5"
    assert found["data"]["fractions"] == [0.8, 0.1, 0.1] and found["data"]["sampling"] == "grid"
    assert found["data"]["source"]["_target_"] == "methyl_lightning.prepare.simulated.simulate"
    assert found["trainer"]["use_distributed_sampler"] is False and found["trainer"]["devices"] == 1
    assert found["logger"] == {}


def test_baselines_are_all_there_beside_the_model() -> None:
    found = settings("train", "+experiment=baselines", "model=bilinear_ridge")
    assert found["name"] == "baselines" and found["model"]["network"] == "BilinearRidge"
    references = found["references"]
    assert {model["network"] for model in references.values()} == {
        name for name in networks.__all__ if name.endswith(("Only", "Mean", "Linear", "Ridge", "Constant", "Gbm"))
    }
    assert all(model["network"].lower() == name.replace("_", "") for name, model in references.items())


def test_every_ablation_is_a_job_of_its_own_model() -> None:
    cfg = composed("train", "+experiment=ablations")
    swept = cfg.hydra.sweeper.params.ablation.replace(" ", "").split(",")
    assert swept == list(cfg.ablations)
    found = {name: settings("train", "+experiment=ablations", f"ablation={name}") for name in swept}
    assert {name: one["name"] for name, one in found.items()} == {name: name for name in swept}
    assert not any(one["references"] for one in found.values())
    models = [(tuple(one["model"]["without"]), one["model"]["expression_scaling"]) for one in found.values()]
    assert len(set(models)) == len(models) and models[0] == ((), "minmax")
    assert {part for without, _ in models for part in without} == set(ABLATIONS)
    assert {scaling for _, scaling in models} == set(SCALERS)
    for one in found.values():
        model = {key: value for key, value in one["model"].items() if key != "_target_"}
        MethylationModule(n_genes=12, window=20, **model)


def test_choices_reach_every_part_of_an_experiment() -> None:
    overrides = [
        "data=tcga_lgg_hm27",
        "model=constant",
        "trainer=ddp",
        "logger=wandb",
        "seed=3",
        "data.source.window=50",
    ]
    found = settings("train", "+experiment=reproduce", *overrides)
    assert found["data"]["name"] == found["data"]["source"]["cohort"] == "tcga_lgg_hm27"
    assert found["data"]["store"] == "stores/tcga_lgg_hm27.h5" and found["data"]["source"]["window"] == 50
    assert found["model"]["network"] == "Constant" and found["seed"] == 3
    assert (found["trainer"]["strategy"], found["trainer"]["devices"]) == ("ddp_find_unused_parameters_true", 2)
    assert found["logger"]["wandb"]["name"] is None and found["logger"]["wandb"]["folder"] == "run"
    assert "constant" in found["references"]


def test_evaluate_asks_for_a_checkpoint_only() -> None:
    assert settings("evaluate")["missing"] == {"checkpoint"}
    assert settings("evaluate", "checkpoint=x")["missing"] == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_only_settings_that_exist(command: str) -> None:
    """Every name=… line of a help text is a setting that can be overridden."""
    data = ["data=tcga_xena", *(f"{key}=x" for key in NOT_GIVEN["tcga_xena"])] if command == "prepare" else []
    cfg = composed(command, *data)
    shown = re.findall(r"^ {2}([\w.]+)=\S", cfg.hydra.help.template, flags=re.MULTILINE)
    assert shown
    for name in shown:
        simulated = composed(command, "data=simulated") if name.startswith("data.source.") else cfg
        assert any(OmegaConf.select(one, name, default="?") != "?" or has(one, name) for one in (cfg, simulated)), name


def has(cfg: DictConfig, name: str) -> bool:
    """Tell whether a setting exists, null or not given included."""
    parent, _, key = name.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return node is not None and key in node.keys()  # noqa: SIM118 - ``in`` leaves out what isn't given
