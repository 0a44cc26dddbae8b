"""The picture of RESULTS.md: seconds of every workload by tool, on a logarithmic axis."""

from __future__ import annotations

import math
from html import escape

from .outcome import OURS, Outcome

_MARKS = {"floor": "#999", OURS: "#d9480f", "TransformerLens": "#1971c2", "nnsight": "#2f9e44"}
_LEFT, _WIDTH, _LINE = 330, 860, 24


def plot(outcomes: list[Outcome]) -> str:
    """SVG; grey that shows on white and on black."""
    seconds = [{"floor": o.floor} | {tool: o.median(tool) for tool in o.seconds} for o in outcomes]
    every = [s for row in seconds for s in row.values()]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    bottom = 40 + _LINE * len(outcomes)

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * (math.log10(value) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at:.0f} 28V{bottom}" stroke="#8884"/>')
        parts.append(f'<text x="{at:.0f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g} s</text>')
    for i, (name, colour) in enumerate(_MARKS.items()):
        parts.append(f'<circle cx="{_LEFT + 130 * i}" cy="12" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 10 + 130 * i}" y="16">{name}</text>')
    for i, (o, row) in enumerate(zip(outcomes, seconds, strict=True)):
        y = 44 + _LINE * i
        label = f"{o.workload.name}, {o.workload.model}" + ("" if o.workload.dtype == "float32" else ", bfloat16")
        label += "" if o.workload.device == "cpu" else f", {o.workload.device}"
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts += [f'<circle cx="{x(s):.1f}" cy="{y}" r="5" fill="{_MARKS[tool]}"/>' for tool, s in row.items()]
    size = f'width="{_WIDTH}" height="{bottom + 24}" font-family="system-ui,sans-serif" font-size="12" fill="#868e96"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(parts) + "\n</svg>\n"
