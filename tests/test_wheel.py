"""The wheel alone, in an environment of its own, runs the main command from any folder."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import REPRODUCE, files, process
from omegaconf import OmegaConf

from methyl_lightning.command.run import conf_folder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = process(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    assert built.status == 0, built.out + built.err
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_its_conf(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "methyl_lightning").rglob("*.py")}
    conf = {f"methyl_lightning/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(conf) > 10
    assert held == package | {"methyl_lightning/report/page.html.jinja"} | conf


def test_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "somewhere"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    installed = process(install, tmp_path)
    assert installed.status == 0, installed.err
    # the dependencies are those of the tests, last on the path; a path in a .pth file brings no editable install along
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = process(["-c", "import methyl_lightning as m; print(m.__file__, m.__version__)"], folder, str(python))
    assert where.out.split() == [str(packages / "methyl_lightning" / "__init__.py"), "0.1.0"]

    done = process(["-m", "methyl_lightning.train", *REPRODUCE, "trainer.max_steps=2"], folder, str(python))
    assert done.status == 0, done.err
    assert {"run/metrics.json", "run/best.ckpt", "run/table.md", "run/references/constant/metrics.json"} <= files(
        folder
    )
    sources = OmegaConf.load(folder / "run" / ".hydra" / "hydra.yaml").hydra.runtime.config_sources
    (used,) = [source.path for source in sources if source.provider == "main"]
    assert Path(used) == packages / "methyl_lightning" / "conf" != conf_folder()
    assert (folder / "stores" / "simulated.h5").is_file()
