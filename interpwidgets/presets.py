"""Prompts for a first look: pairs that differ in what one behaviour turns on, and what there is to see in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .engine.names import unknown


@dataclass(frozen=True)
class Preset:
    """A pair of prompts of one length for one behaviour, and the token that follows each.

    `notice`: by the name of a widget, what the demo model does there (`tests/unit/test_presets.py` measures it);
    another model may do it otherwise.
    """

    name: str
    clean: str
    corrupted: str
    answer: str
    """The token that follows `clean`."""
    foil: str
    """The token that follows `corrupted`."""
    notice: Mapping[str, str]


PRESETS: tuple[Preset, ...] = (
    Preset(
        "Indirect object",
        clean="When John and Mary went to the store, John gave a drink to",
        corrupted="When John and Mary went to the store, Mary gave a drink to",
        answer=" Mary",
        foil=" John",
        notice={
            "AttentionPattern": "At the last token, L24H4 puts 0.90 of its attention on Mary. Ablate it: Mary "
            "becomes more likely, 0.96 after 0.90. Looking at a token is not causing it. L20H0 looks at the "
            "second John; without it, Mary falls to 0.72.",
            "LogitLens": "Above the last token, Mary is on top after the last layer only.",
            "PatchingHeatmap": "Up to layer 20 all of the difference sits at the second name. By layer 24 it has "
            "moved to the last token: the heads in between carry it there.",
        },
    ),
    Preset(
        "Fact recall",
        clean="The Eiffel Tower is in the city of",
        corrupted="The Colosseum is in the city of",
        answer=" Paris",
        foil=" Rome",
        notice={
            "AttentionPattern": "At the last token, L23H4 looks at iffel and Tower. Ablate it: Paris falls from 0.43 "
            "to 0.17.",
            "LogitLens": "Above the last token, Paris is on top after the last layer only.",
            "PatchingHeatmap": "By layer 4 the name is gathered at iffel: patching that token alone restores 0.94 of "
            "the gap. At layer 24 the last token has it.",
        },
    ),
    Preset(
        "Induction",
        clean=" lamp river seven green lamp river seven green lamp river seven green lamp river",
        corrupted=" lamp river eight green lamp river eight green lamp river eight green lamp river",
        answer=" seven",
        foil=" eight",
        notice={
            "AttentionPattern": "L17H5 looks one step behind the earlier rivers, at seven: an induction head. Ablate "
            "it and seven becomes more likely, 0.48 after 0.29. Ablate L23H0 and it falls to 0.11.",
            "LogitLens": "Above the last token, seven is on top after the last layer only.",
            "PatchingHeatmap": "Each earlier seven alone restores a part, the latest most: 0.83, 0.50 and 0.27 of "
            "the gap at layer 0. They add up to more than 1: each would do much of the work by itself.",
        },
    ),
    Preset(
        "Greater than",
        clean="The war lasted from the year 1782 to the year 17",
        corrupted="The war lasted from the year 1732 to the year 17",
        answer="8",
        foil="3",
        notice={
            "AttentionPattern": "At the last token, L20H8 puts 0.92 on the 8 of 1782. Of the predictions, 8 and 9 "
            "have 0.99 together: the digits of a later year.",
            "LogitLens": "Above the last token, 8 is on top from layer 24 on, much earlier than the words of other "
            "presets.",
            "PatchingHeatmap": "The digit carries all of it; between layers 20 and 24 it moves to the last token.",
        },
    ),
    Preset(
        "Gendered pronoun",
        clean="The queen closed the door because",
        corrupted="The king closed the door because",
        answer=" she",
        foil=" he",
        notice={
            "AttentionPattern": "At the last token, L25H2 puts 0.28 on queen. Ablate it: she falls from 0.47 to 0.28.",
            "LogitLens": "Above the last token, she is on top from layer 27 on.",
            "PatchingHeatmap": "queen keeps what matters up to layer 25; by layer 27 the last token has it.",
        },
    ),
    Preset(
        "Code bracket",
        clean="a = foo(bar[0",
        corrupted="a = foo(bar(0",
        answer="])",
        foil="))",
        notice={
            "AttentionPattern": "At the last token, L26H6 puts 0.99 on the open bracket. Ablate it: ]) falls from "
            "0.65 to 0.35.",
            "LogitLens": "Above the last token, ] is on top from layer 24 on, ]) from layer 28: first the kind, then "
            "how many.",
            "PatchingHeatmap": "The bracket's share moves to the last token in two steps, by layer 24 and by layer 27.",
        },
    ),
)
"""The presets that a widget offers where its model continues text."""


def preset_named(name: str) -> Preset:
    """The preset of this name. Raises ValueError, with the nearest name, if there is none."""
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise unknown("preset", name, (preset.name for preset in PRESETS))
