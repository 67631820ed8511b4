"""Files appear whole or not at all; nothing that lies in their way is written into, nor stops the next."""

import os
import socket
from pathlib import Path

import pandas as pd
import pytest
from conftest import assert_refused, command, files

from methyl_lightning.command.run import conf_folder
from methyl_lightning.command.run_folder import open_locked, read_config
from methyl_lightning.files import InputError, replacing, replacing_folder, scratch_folder
from methyl_lightning.metrics.table import without_formulas


def test_temporary_names_cannot_be_foreseen_and_are_new(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with replacing(tmp_path / "kept") as temporary:
            assert temporary.read_bytes() == b"" and temporary.stat().st_nlink == 1
            names.add(temporary.name)
            temporary.write_text("whole")
    assert len(names) == 20 and (tmp_path / "kept").read_text() == "whole" and files(tmp_path) == {"kept"}


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("methyl_lightning.files.secrets.token_hex", lambda n: "0" * 2 * n)
    name = f".kept.{socket.gethostname()}.{os.getpid()}.{'0' * 16}.part"
    (tmp_path / "folder" / name).parent.mkdir()
    (tmp_path / "folder" / name).symlink_to(victim)
    with pytest.raises(InputError, match="kept: file not written"), replacing(tmp_path / "folder" / "kept") as path:
        path.write_text("other")
    (tmp_path / "folder" / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="symbolic links"):
        open_locked(tmp_path / "folder" / ".lock", wait=False)
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()


def test_leftovers_of_a_process_with_the_same_number_are_no_obstacle(tmp_path: Path) -> None:
    own = f".kept.{socket.gethostname()}.{os.getpid()}"
    for ending in (".part", ".00ff.part"):
        (tmp_path / f"{own}{ending}").write_text("half")
    (tmp_path / f"{own}.00ff.part.rows").mkdir()
    with scratch_folder(tmp_path / "kept") as folder, replacing(tmp_path / "kept") as temporary:
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, temporary.name}
        temporary.write_text("whole")
    assert files(tmp_path) == {"kept"} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("length", [200, 255])
def test_every_name_that_a_disk_takes_is_written(tmp_path: Path, length: int) -> None:
    for name in ("a" * length, "ä" * (length // 2)):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


def test_a_longer_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not written.*File name too long"), replacing(tmp_path / ("a" * 300)):
        pass
    assert files(tmp_path) == set()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "new") as folder:
        (folder / "part").write_text("whole")
        assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="new: folder not written"), replacing_folder(tmp_path / "new") as folder:
        (folder / "part").write_text("other")
    assert files(tmp_path) == {"new/part"} and (tmp_path / "new" / "part").read_text() == "whole"


@pytest.mark.parametrize("text", ["data: {store: '${oc.env:HOME}'}", "data: [", "- 1", "data: {name: x}", ""])
def test_settings_of_a_stranger_are_not_resolved(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: ") as refused:
        read_config(tmp_path / "config.yaml", ("data.store",))
    assert os.environ["HOME"] not in str(refused.value).removeprefix(str(tmp_path))


def test_a_command_refuses_them_in_one_line(workplace: Path, tmp_path: Path) -> None:
    for name in ("best.ckpt", "split.json"):
        (tmp_path / name).symlink_to(workplace / "run" / name)
    text = (workplace / "run" / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("name: reproduce", "name: ${oc.env:HOME}"))
    result = command("evaluate", ["checkpoint=best.ckpt", "hydra.run.dir=new"], tmp_path)
    assert_refused(result, "config.yaml: not written by methyl_lightning.train: ${…} in it is not resolved")
    assert not (tmp_path / "new" / "config.yaml").exists()


def test_no_cell_is_a_formula() -> None:
    table = pd.DataFrame(
        {"=name": ["=1+1", "-1.5e-3", "@a", "+A1", "a=b", "-"], "value": [-1.0, 2.0, -3.0, 0.0, 1.0, 1.0]},
        index=["-A1", "cg1", "+1", "x", "y", "z"],
    )
    safe = without_formulas(table)
    assert safe["'=name"].tolist() == ["'=1+1", "-1.5e-3", "'@a", "'+A1", "a=b", "-"]
    assert safe["value"].tolist() == table["value"].tolist() and safe.index.tolist()[:3] == ["'-A1", "cg1", "+1"]


def test_configuration_resolves_only_what_is_shipped() -> None:
    resolved = {word for path in conf_folder().rglob("*.yaml") for word in path.read_text().split("${oc.env:")[1:]}
    assert {word.split(",")[0] for word in resolved} == {"METHYL_LIGHTNING_DATA"}
