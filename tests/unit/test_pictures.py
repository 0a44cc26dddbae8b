"""README's pictures are there, and small."""

from __future__ import annotations

import re

from tests.readme import README


def test_pictures_of_readme_are_there_and_small() -> None:
    names = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(names) == 4
    sizes = {name: (README.parent / name).stat().st_size for name in names}
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}
