"""The parts of README that a command writes, each between two comments of its own."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def written(name: str, command: str) -> str:
    """What README says in a part."""
    return _parts(name, command)[1].strip()


def write(name: str, command: str, text: str) -> None:
    """Put a part in README, in the place of what it says there. Raises ValueError if README has no such part."""
    before, _, after = _parts(name, command)
    README.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")


def _parts(name: str, command: str) -> tuple[str, str, str]:
    """README up to the end of the opening comment, between both, and from the closing one on."""
    begin, end = f"<!-- {name}: written by `{command}` -->", f"<!-- end of {name} -->"
    before, opened, rest = README.read_text(encoding="utf-8").partition(begin)
    inside, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"README.md has no part between {begin} and {end}")
    return before + begin, inside, end + after
