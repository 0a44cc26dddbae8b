"""Starts JupyterLab and Notebook 7, with settings and kernels of their own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext

from tests.browser import front_ends
from tests.browser.server import REPOSITORY, free_port, serving

IPYKERNEL_6 = Path(sys.prefix) / "ipykernel6"

SERVERS: dict[str, dict[str, Any]] = {
    front_ends.SUBSHELLS: {},
    front_ends.MAIN_THREAD: {"subshells": False},
    front_ends.KERNEL_6: {"kernel_packages": IPYKERNEL_6},
    front_ends.NOTEBOOK: {"app": "notebook"},
}
"""What `serve` is told for each row of README's table."""


@dataclass
class Server:
    """A running JupyterLab, or Notebook 7, which is made of its parts."""

    url: str
    root: Path
    app: str
    front_end: str
    """Its row in README's table."""
    context: BrowserContext
    """The browser's window on it, which keeps what the server has sent once."""


@contextmanager
def serve(
    browser: Browser,
    root: Path,
    front_end: str,
    subshells: bool = True,
    app: str = "lab",
    kernel_packages: Path | None = None,
) -> Iterator[Server]:
    """Run JupyterLab with settings of its own; `subshells`: whether comm messages may overtake busy cells.

    `app` is "lab" or "notebook"; kernels look into the folder `kernel_packages` before their environment.
    """
    settings = root / ".settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    comms = "perCommTarget" if subshells else "disabled"
    (settings / "kernels-settings.jupyterlab-settings").write_text(json.dumps({"commsOverSubshells": comms}))
    folders = {
        "JUPYTER_CONFIG_DIR": ".config", "JUPYTER_RUNTIME_DIR": ".run", "IPYTHONDIR": ".ipython",
        "JUPYTERLAB_SETTINGS_DIR": ".settings", "JUPYTERLAB_WORKSPACES_DIR": ".workspaces", "JUPYTER_PATH": ".share",
    }  # fmt: skip
    if kernel_packages is not None:
        _write_kernelspec(root / ".share/kernels/python3", kernel_packages)
    url = f"http://127.0.0.1:{(port := free_port())}"
    name = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}[app]
    command = [
        sys.executable, "-m", {"lab": "jupyterlab", "notebook": "notebook"}[app], "--no-browser", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}",
        "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True",
        f"--{name}.expose_app_in_browser=True",
    ]  # fmt: skip
    own = {variable: str(root / folder) for variable, folder in folders.items()}
    with serving(command, f"{url}/api/status", root, **own):
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        yield Server(url, root, app, front_end, context)
        context.close()


def _write_kernelspec(folder: Path, packages: Path) -> None:
    """Put a kernel in the place of the environment's own."""
    if not packages.is_dir():
        raise FileNotFoundError(f"{packages} is not there: `make .venv/{packages.name}.stamp` installs it")
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3", "language": "python",
        "env": {"PYTHONPATH": os.pathsep.join([str(packages), str(REPOSITORY)])},
    }  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(spec))
