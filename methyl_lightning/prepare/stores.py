"""The store that a configuration names: made, opened, looked at."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from methyl_lightning.command.settings import check_arguments
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError, replacing
from methyl_lightning.prepare.check import describe, read_contents, store_page
from methyl_lightning.prepare.selection import Selection


class Cohort(NamedTuple):
    """What a file of conf/data holds, as far as a store is made by it."""

    name: str
    store: str
    source: dict[str, Any] | None = None  # None: of a store that is there


def check_store(path: str) -> None:
    """Say what a store holds and draw it on one page beside the store, ``<store stem>.png``."""
    store = Store(path)
    contents = read_contents(store)
    print(describe(store, contents))
    page = store.path.with_suffix(".png")
    with replacing(page, "figure") as temporary:
        store_page(store, contents).savefig(temporary, format="png", dpi=150)
    print(f"{page}: its figure")


def download_files(data: DictConfig) -> None:
    """Fetch the public files that ``data.source`` reads."""
    if "download" not in data:
        raise InputError(f"download=true: data={data.name} names no public files; only data=tcga_brca_luad does")
    instantiate(data.download, _convert_="all")


def check_cohort(data: DictConfig) -> None:
    """Refuse settings of a cohort that are of another type; names of files and cohorts stay text."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    cohort: dict[str, Any] = OmegaConf.to_container(data, resolve=True)  # type: ignore[assignment]
    check_arguments(cohort, Cohort, "data", typed)
    settings = cohort.get("source")
    if settings is None:
        return
    check_arguments(settings, get_method(data.source._target_), "data.source", typed)
    if settings.get("selection"):
        check_arguments(settings["selection"], Selection, "data.source.selection", typed)
    data.source, data.store = settings, cohort["store"]


def prepare_store(data: DictConfig) -> Store:
    """Make the store that ``data`` describes, taking the place of a former one, and say what it holds."""
    check_cohort(data)
    path = Path(data.store)
    if data.get("source") is None:
        why = "cannot be made again" if path.exists() else "no such store"
        raise InputError(f"data.store={path}: {why}, as there is no data.source to make it from; data=NAME has one")
    print(f"preparing {path}", flush=True)
    instantiate(data.source, store=str(path), _convert_="all")
    store = Store(path)
    print(
        f"{path}: {len(store.cpgs):,} CpGs × {len(store.samples):,} samples, {len(store.genes):,} genes, "
        f"window {store.window}, assembly {store.attributes['assembly']}, {path.stat().st_size / 1e6:,.1f} MB",
        flush=True,
    )
    return store


def ensure_store(data: DictConfig) -> Store:
    """Open the store that ``data`` describes, or make it first where there is none.

    Raises
    ------
    InputError
        If the store was prepared with other settings than ``data.source`` has now.
    """
    check_cohort(data)
    if not Path(data.store).exists():
        return prepare_store(data)
    store = Store(data.store)
    if data.get("source") is None:
        return store
    asked: dict[str, Any] = OmegaConf.to_container(data.source, resolve=True)  # type: ignore[assignment]
    had = store.attributes["provenance"]["settings"]
    for name, value in asked.items():
        if name in had and json.loads(json.dumps(value)) != had[name]:
            raise InputError(
                f"{store.path}: was prepared with {name}={had[name]!r}, data.source.{name} is now {value!r}; "
                "run methyl_lightning.prepare with the same settings to replace it, or name another data.store"
            )
    return store
