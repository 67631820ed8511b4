"""Threads: they sleep soon while they wait unless the environment says otherwise, and are as many as are granted."""

import json
from pathlib import Path

import pytest
from conftest import process

from methyl_lightning.command import threads

KEYS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


def groups(folder: Path, monkeypatch: pytest.MonkeyPatch, **quotas: str) -> None:
    """Make control groups /, /a and /a/b; this process is in /a/b."""
    (folder / "fs" / "a" / "b").mkdir(parents=True)
    for name, quota in quotas.items():
        path = {"root": folder / "fs", "a": folder / "fs" / "a", "b": folder / "fs" / "a" / "b"}[name]
        (path / "cpu.max").write_text(f"{quota} 100000\n")
    (folder / "cgroup").write_text("1:name=systemd:/\n0::/a/b\n")
    monkeypatch.setattr(threads, "CGROUPS", folder / "fs")
    monkeypatch.setattr(threads, "OWN_CGROUP", folder / "cgroup")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    for key in KEYS:
        monkeypatch.setenv(key, "")  # so that what is set is undone
        monkeypatch.delenv(key)


@pytest.mark.parametrize(
    ("quotas", "granted"),
    [
        ({"a": "max", "b": "250000"}, 2),
        ({"root": "400000", "a": "800000", "b": "max"}, 4),
        ({"b": "50000"}, 1),
        ({"a": "max"}, None),
        ({}, None),
    ],
)
def test_no_more_threads_than_are_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotas: dict[str, str], granted: int | None
) -> None:
    groups(tmp_path, monkeypatch, **quotas)
    assert threads.granted_processors() == granted
    threads.share_processors()
    assert [threads.os.environ.get(key) for key in KEYS] == ["PASSIVE", granted and str(granted), "1000"]


def test_what_the_environment_says_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, b="200000")
    for key, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("OMP_NUM_THREADS", "7")):
        monkeypatch.setenv(key, value)
    threads.share_processors()
    assert [threads.os.environ.get(key) for key in KEYS] == ["ACTIVE", "7", None]
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    threads.share_processors()
    assert [threads.os.environ.get(key) for key in KEYS] == [None, "7", "1000"]


def test_without_control_groups_all_processors_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "OWN_CGROUP", tmp_path / "nowhere")
    assert threads.granted_processors() is None


def test_it_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """Record what the environment says at the moment at which a command imports torch."""
    watch = (
        "import importlib.abc, json, os, runpy, sys\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n"
        "            print(json.dumps(os.environ.get('OMP_WAIT_POLICY')))\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_module('methyl_lightning.' + sys.argv[0], run_name='__main__')\n"
    )
    for name in ("train", "predict"):
        result = process(["-c", watch, name], tmp_path)
        assert json.loads(result.out) == "PASSIVE", result.err
