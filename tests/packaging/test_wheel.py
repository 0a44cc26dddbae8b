"""The built wheel carries everything and displays a widget where the sources are not."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "interpwidgets" / "widgets" / "static"

DISPLAY = """
import json
import interpwidgets as iw
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2,
)
widget = iw.AttentionPattern(iw.Session(LlamaForCausalLM(config).eval()), [1, 2, 3])
bundle = widget._repr_mimebundle_()
data = bundle[0] if isinstance(bundle, tuple) else bundle
sizes = {"esm": len(widget._esm), "css": len(widget._css)}
print(json.dumps({"file": iw.__file__, "mime types": list(data), **sizes}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it.

    Its dependencies are those of the running environment, put on the path by a .pth file: that shows every
    package there but follows none of their .pth files, so an editable install of the sources stays hidden.
    """
    venv = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    interpreter = venv / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    site_packages = sysconfig.get_path("purelib", "venv", {"base": str(venv)})
    (Path(site_packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_wheel_carries_the_javascript_the_css_and_the_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    static = {f"interpwidgets/widgets/static/{path.name}" for path in STATIC.iterdir()}
    assert {Path(name).suffix for name in static} == {".js", ".css"}
    assert static <= inside
    assert "interpwidgets/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests", "notebooks", "binder"))]


def test_widget_of_the_installed_wheel_displays(python: Path, tmp_path: Path) -> None:
    command = [python, "-I", "-c", DISPLAY]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    seen = json.loads(shown.stdout.splitlines()[-1])
    assert Path(seen["file"]).is_relative_to(python.parents[1])
    assert "application/vnd.jupyter.widget-view+json" in seen["mime types"]
    assert seen["esm"] > 0
    assert seen["css"] > 0
