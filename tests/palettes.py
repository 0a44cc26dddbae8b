"""How well the palettes of theme.css tell steps apart, seen with each colour-vision deficiency.

`python -m tests.palettes` prints it.

Deficiencies are simulated in linear RGB with the matrices of Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15(6)) at
severity 1; differences are distances in CIELAB (CIE 1976), of which 2.3 are just noticeable (Mahy et al. 1994).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

import interpwidgets.widgets

THEME = Path(interpwidgets.widgets.__file__).parent / "static" / "theme.css"
THEMES, PALETTES = ("light", "dark"), ("blue", "cividis")
STEPS = 9

SEEN_WITH = {
    "normal vision": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


class Contrast(NamedTuple):
    """Of one theme, palette and kind of vision, distances in CIELAB."""

    theme: str
    palette: str
    vision: str
    step: float
    """The smallest between neighbours of nine even steps from nothing to most."""
    monotone: bool
    """Whether lightness goes one way along them."""
    arm: float
    """The smallest between neighbours of nine even steps from neutral to either end of the diverging palette."""
    signs: float
    """The smallest between effects of one size, a quarter of the scale or more, and opposite sign."""
    tracks: float
    """The smallest between lines of tracked tokens, which differ in their dashes too."""


def colours(theme: str, palette: str) -> dict[str, np.ndarray]:
    """Variables of theme.css as sRGB in 0 to 1, as the cascade gives them."""
    found: dict[str, np.ndarray] = {}
    text = re.sub(r"/\*.*?\*/", "", THEME.read_text(encoding="utf-8"), flags=re.S)
    for selector, body in re.findall(r"([^{}]+)\{([^}]*)\}", text):
        wants = dict(re.findall(r'\[data-iw-(theme|palette)="(\w+)"\]', selector))
        if wants.get("theme", theme) == theme and wants.get("palette", palette) == palette:
            for name, digits in re.findall(r"--iw-([\w-]+): #([0-9a-f]{6})", body):
                found[name] = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return found


def ramp(found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Colours at 257 even places of a palette, as color.js draws them: straight lines between the stops, in sRGB."""
    stops = np.array([found[f"{name}-{i}"] for i in range(5)])
    at = np.linspace(0, 4, 257)
    return np.stack([np.interp(at, range(5), stops[:, channel]) for channel in range(3)], 1)


def lab(srgb: np.ndarray, vision: str) -> np.ndarray:
    """CIELAB (D65) of sRGB colours (colour, channel) as they are seen."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(SEEN_WITH[vision]).T, 0, 1) @ _XYZ.T / _XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def contrasts() -> Iterator[Contrast]:
    """Every theme, palette and kind of vision."""
    for theme in THEMES:
        for palette in PALETTES:
            found = colours(theme, palette)
            tracks = np.array([found[f"track-{i}"] for i in range(6)])
            for vision in SEEN_WITH:
                even = lab(ramp(found, "seq")[np.linspace(0, 256, STEPS).astype(int)], vision)
                diverging = lab(ramp(found, "div"), vision)
                arms = [diverging[np.linspace(128, end, STEPS).astype(int)] for end in (0, 256)]
                lines = lab(tracks, vision)
                far = np.arange(32, 129)
                lightness = np.diff(even[:, 0])
                yield Contrast(
                    theme, palette, vision,
                    step=_nearest(pairwise(even)),
                    monotone=bool((lightness > 0).all() or (lightness < 0).all()),
                    arm=min(_nearest(pairwise(arm)) for arm in arms),
                    signs=float(np.linalg.norm(diverging[128 - far] - diverging[128 + far], axis=1).min()),
                    tracks=_nearest(combinations(lines, 2)),
                )  # fmt: skip


def report() -> str:
    """The contrasts as a table."""
    lines = [
        "| theme | palette | seen with | step | steps of one arm | signs | tracked lines |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for c in contrasts():
        step = f"{c.step:.1f}" if c.monotone else f"{c.step:.1f}, not monotone"
        lines.append(
            f"| {c.theme} | {c.palette} | {c.vision} | {step} | {c.arm:.1f} | {c.signs:.1f} | {c.tracks:.1f} |"
        )
    return "\n".join(lines)


def _nearest(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
    return min(float(np.linalg.norm(a - b)) for a, b in pairs)


if __name__ == "__main__":
    print(report())
