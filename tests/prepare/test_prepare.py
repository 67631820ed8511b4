"""Preparing is all or nothing, whatever happens; and a store can be looked at."""

import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import assert_refused, command, files, rewrite, tiny_store
from raw_tables import make_cohort, write_cohort, write_table

from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.check import describe, read_contents

N_CPGS, N_SAMPLES = 300, 200


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Path]:
    """Write a cohort of which the scratch file, the sequences and the store take some time and room."""
    raw = write_cohort(tmp_path / "raw")
    rng = np.random.default_rng(0)
    samples = [f"TCGA-AA-{s:04d}-01" for s in range(N_SAMPLES)]
    betas = rng.random((N_CPGS, N_SAMPLES)).round(4).astype(str)
    expressions = rng.random((20, N_SAMPLES)).round(3).astype(str)
    cpgs, genes = [f"cg{c}" for c in range(N_CPGS)], ["PLUS", *(f"G{g}" for g in range(1, 20))]
    for name, keys, values in (("methylation", cpgs, betas), ("expression", genes, expressions)):
        rows = [[key, *row] for key, row in zip(keys, values, strict=True)]
        write_table(raw[name], [["sample", *samples], *rows])
    del raw["sequences"]
    return raw


def in_child(task: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=task)
    process.start()
    return process


def test_killed_at_any_moment_it_leaves_a_whole_store_or_none(cohort: dict[str, Path]) -> None:
    folder = cohort["methylation"].parent
    raw, store = files(folder), folder / "cohort.h5"

    def prepare_again_and_again() -> None:
        for k in count():
            make_cohort(cohort, window=1000, units=f"{os.getpid()} {k}")

    delays = np.random.default_rng(0).exponential(0.02, 12)
    for awaited, delay in zip(cycle([".part.rows", ".part", "cohort.h5"]), delays, strict=False):
        process = in_child(prepare_again_and_again)
        started = time.monotonic()
        while not any(path.name.endswith(awaited) for path in folder.iterdir()):
            assert time.monotonic() < started + 60
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if store.exists():
            contents = read_contents(Store(store))
            assert contents.missing_C.mean() == 0 and len(contents.missing_C) == N_CPGS
        assert all(name == "cohort.h5" or ".part" in name for name in files(folder) - raw)
    assert store.exists()
    make_cohort(cohort, window=1000)
    assert files(folder) - raw == {"cohort.h5"}


@pytest.mark.parametrize("room", [60_000, 300_000], ids=["for the scratch file", "for the store"])
def test_full_disk_leaves_the_former_store(cohort: dict[str, Path], room: int) -> None:
    folder = cohort["methylation"].parent
    make_cohort(cohort, window=1000, units="former")
    before = (files(folder), (folder / "cohort.h5").read_bytes())

    def prepare_in_little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # writing beyond fails, as on a full disk
        try:
            make_cohort(cohort, window=1000, units="new")
        except InputError as error:
            os._exit(7 if "cohort.h5: store not written" in str(error) and "\n" not in str(error) else 8)
        os._exit(9)

    process = in_child(prepare_in_little_room)
    process.join()
    assert process.exitcode == 7
    assert (files(folder), (folder / "cohort.h5").read_bytes()) == before


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    process = in_child(lambda: None)
    process.join()
    host = socket.gethostname()
    dead, living = (f".tiny.h5.{host}.{pid}.part" for pid in (process.pid, os.getppid()))
    kept = {living, f".tiny.h5.elsewhere.{process.pid}.part", f".other.h5.{host}.{process.pid}.part"}
    for name in (dead, *kept):
        (tmp_path / name).write_text("half")
    (tmp_path / f"{dead}.rows").mkdir()
    (tmp_path / f"{dead}.rows" / "0").write_text("half")
    tiny_store(tmp_path / "tiny.h5")
    assert files(tmp_path) == {"tiny.h5", *kept}
    assert not (tmp_path / f"{dead}.rows").exists()


def test_check_says_and_draws_what_a_store_holds(tmp_path: Path, store_path: Path) -> None:
    store = Store(store_path)
    tiny_store(tmp_path / "tiny.h5")
    result = command("prepare", ["check=tiny.h5"], tmp_path)
    assert (result.status, result.err) == (0, "")
    for words in (
        "assembly hg19",
        "CpGs         3, 2 with a position; Island 1, OpenSea 1, unknown 1",
        "samples      2 of 2 patients; X Primary Tumor 1, Y Solid Tissue Normal 1",
        "genes        2, 2 with coordinates",
        "beta         0.0000 to 1.0000; 16.67% missing, at most 50% of a CpG and 33% of a sample",
        "expression   0 to 7, log2(norm+1)",
        "sequences    window 4, 16.67% N; 0 with other bases than CG in the centre",
        "distances    3; 2 CpGs have a gene, the nearest at 380 bp (median)",
        "source       hand",
        "  window=4",
    ):
        assert words in result.out
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    contents = read_contents(store)
    beta_CS = store.beta(np.arange(len(store.cpgs)), np.arange(len(store.samples)))
    np.testing.assert_allclose(contents.missing_C, np.isnan(beta_CS).mean(axis=1))
    np.testing.assert_allclose(contents.missing_S, np.isnan(beta_CS).mean(axis=0))
    counted = np.histogram(beta_CS[np.isfinite(beta_CS)], bins=np.linspace(0, 1, 101) - 1e-6)[0]
    np.testing.assert_array_equal(np.sum(list(contents.beta_counts.values()), axis=0)[:-1], counted[:-1])
    assert contents.base_counts.tolist() == np.bincount(store.sequence_CL.ravel(), minlength=5).tolist()
    assert "source       simulated" in describe(store, contents)


@pytest.mark.parametrize("name", ["beta", "cpgs/sequence", "expression"])
def test_damaged_matrices_are_found(tmp_path: Path, store_path: Path, name: str) -> None:
    damaged = rewrite(Store(store_path), tmp_path / "damaged.h5").path
    with h5py.File(damaged, "r+") as file:
        file[name][5, 3] = 2 if file[name][5, 3] == 1 else 1
    assert_refused(
        command("prepare", ["check=damaged.h5"], tmp_path), f"damaged.h5: {name} is damaged", "make it again"
    )
    assert files(tmp_path) == {"damaged.h5"}


def test_check_needs_a_store(tmp_path: Path) -> None:
    assert_refused(command("prepare", ["check=none.h5"], tmp_path), "none.h5: no such store")


def test_a_store_needs_no_source_to_be_trained_on(tmp_path: Path, store_path: Path) -> None:
    given = ["data=grid", "data.name=given", "model=cpg_mean"]
    result = command("train", [*given, f"data.store={store_path}", "hydra.run.dir=run"], tmp_path)
    assert result.status == 0, result.err
    assert_refused(
        command("train", [*given, "data.store=none.h5", "hydra.run.dir=none"], tmp_path),
        "none.h5: no such store",
        "data=NAME",
    )


def test_only_public_cohorts_are_fetched(tmp_path: Path) -> None:
    assert_refused(command("prepare", ["download=true"], tmp_path), "data=simulated", "data=tcga_brca_luad")
    assert files(tmp_path) == set()
