"""The command line: `python -m interpwidgets fetch` puts the demo model into the cache."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

from interpwidgets.demo_model import DemoModelError, demo_model_path


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m interpwidgets", description="interpwidgets from a shell")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("fetch", help="download and convert the demo model, if it is not in the cache")
    arguments = parser.parse_args()
    if arguments.version:
        print(version("interpwidgets"))
    elif arguments.command == "fetch":
        try:
            print(demo_model_path())
        except (DemoModelError, ImportError) as error:
            sys.exit(str(error))
    else:
        parser.error("a command is needed: fetch")


if __name__ == "__main__":
    main()
