"""Palettes are told apart by everyone: with each colour-vision deficiency, in both themes."""

from __future__ import annotations

import pytest

from tests.palettes import Contrast, colours, contrasts

SEEN = pytest.mark.parametrize(
    "seen", list(contrasts()), ids=lambda c: f"{c.theme}-{c.palette}-{c.vision}".replace(" ", "-")
)
NOTICEABLE = 2.3


@SEEN
def test_magnitudes_grow_in_one_direction_by_steps_that_are_seen(seen: Contrast) -> None:
    assert seen.monotone
    assert seen.step > 2 * NOTICEABLE
    assert seen.arm > 2 * NOTICEABLE


@SEEN
def test_effects_of_opposite_sign_never_look_alike(seen: Contrast) -> None:
    assert seen.signs > 8 * NOTICEABLE


@SEEN
def test_tracked_tokens_have_lines_of_their_own(seen: Contrast) -> None:
    assert seen.tracks > 12 * NOTICEABLE


def test_a_palette_is_chosen_by_theme_and_name() -> None:
    assert (colours("light", "blue")["seq-0"] != colours("dark", "blue")["seq-0"]).any()
    assert (colours("light", "cividis")["seq-0"] == colours("dark", "cividis")["seq-0"]).all()
    assert (colours("dark", "cividis")["div-0"] != colours("light", "cividis")["div-0"]).any()
