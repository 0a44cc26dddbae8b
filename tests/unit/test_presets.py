"""What the presets promise: the demo model gets them right, and does what their lines say one should notice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import interpwidgets as iw
from interpwidgets.presets import PRESETS, Preset, preset_named

BY_NAME = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)


@pytest.fixture(scope="module")
def session():
    return iw.load()


def probability(session: iw.Session, prompt: str, token: str, ablated: tuple[int, int] | None = None) -> float:
    experiments = [] if ablated is None else [iw.Ablate("z", layer=ablated[0], head=ablated[1])]
    logits = torch.as_tensor(np.asarray(session.run(prompt, interventions=experiments).logits[-1]))
    return float(logits.softmax(-1)[session.token_id(token)])


def attention(session: iw.Session, prompt: str, layer: int, head: int) -> np.ndarray:
    """From the last token, (key)."""
    return session.run(prompt, capture=["pattern"])["pattern"].sel(layer=layer, head=head).values[-1]


def restored(session: iw.Session, preset: Preset, layer: int, position: int) -> float:
    """The share of the gap that patching the stream there restores."""
    sweep = iw.patch_sweep(
        session, clean=preset.clean, corrupted=preset.corrupted, site="resid_pre",
        answer=session.token_id(preset.answer), foil=session.token_id(preset.foil),
    )  # fmt: skip
    return float(sweep.sel(layer=layer).values[position])


def top_after(session: iw.Session, prompt: str) -> dict[int, str]:
    """The top token above the last one, by layer."""
    lens = iw.logit_lens(session, prompt)
    return {
        int(layer): session.tokenizer.decode([int(token)])
        for layer, token in zip(lens["layer"].values, lens["top_token"].values[:, -1, 0], strict=True)
    }


@BY_NAME
def test_the_demo_model_gets_both_prompts_right(session, preset: Preset) -> None:
    answer, foil = session.token_id(preset.answer), session.token_id(preset.foil)
    assert int(np.asarray(session.run(preset.clean).logits[-1]).argmax()) == answer
    assert int(np.asarray(session.run(preset.corrupted).logits[-1]).argmax()) == foil
    assert len(session.tokenize(preset.clean)) == len(session.tokenize(preset.corrupted))


@BY_NAME
def test_every_widget_has_a_line_to_notice(preset: Preset) -> None:
    assert set(preset.notice) == {"AttentionPattern", "LogitLens", "PatchingHeatmap"}
    assert all(20 < len(line) < 260 for line in preset.notice.values())


def test_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'Induction'"):
        preset_named("Inducton")


def test_indirect_object_lines_are_true(session) -> None:
    preset = preset_named("Indirect object")
    assert attention(session, preset.clean, 24, 4)[4] == pytest.approx(0.90, abs=0.005)
    assert probability(session, preset.clean, " Mary") == pytest.approx(0.90, abs=0.005)
    assert probability(session, preset.clean, " Mary", (24, 4)) == pytest.approx(0.96, abs=0.005)
    assert attention(session, preset.clean, 20, 0).argmax() == 10
    assert probability(session, preset.clean, " Mary", (20, 0)) == pytest.approx(0.72, abs=0.005)
    top = top_after(session, preset.clean)
    assert [layer for layer, token in top.items() if token == " Mary"] == [29]
    assert restored(session, preset, 19, 10) > 0.95
    assert restored(session, preset, 24, 14) > 0.8


def test_fact_recall_lines_are_true(session) -> None:
    preset = preset_named("Fact recall")
    assert set(np.argsort(attention(session, preset.clean, 23, 4))[-2:]) == {3, 4}
    assert probability(session, preset.clean, " Paris") == pytest.approx(0.43, abs=0.005)
    assert probability(session, preset.clean, " Paris", (23, 4)) == pytest.approx(0.17, abs=0.005)
    top = top_after(session, preset.clean)
    assert [layer for layer, token in top.items() if token == " Paris"] == [29]
    assert restored(session, preset, 4, 3) == pytest.approx(0.94, abs=0.005)
    assert restored(session, preset, 24, 9) > 0.7


def test_induction_lines_are_true(session) -> None:
    preset = preset_named("Induction")
    assert set(np.argsort(attention(session, preset.clean, 17, 5))[-2:]) == {7, 11}
    assert probability(session, preset.clean, " seven") == pytest.approx(0.29, abs=0.005)
    assert probability(session, preset.clean, " seven", (17, 5)) == pytest.approx(0.48, abs=0.005)
    assert probability(session, preset.clean, " seven", (23, 0)) == pytest.approx(0.11, abs=0.005)
    top = top_after(session, preset.clean)
    assert [layer for layer, token in top.items() if token == " seven"] == [29]
    shares = [restored(session, preset, 0, position) for position in (11, 7, 3)]
    assert shares == pytest.approx([0.83, 0.50, 0.27], abs=0.005)


def test_greater_than_lines_are_true(session) -> None:
    preset = preset_named("Greater than")
    assert attention(session, preset.clean, 20, 8)[10] == pytest.approx(0.92, abs=0.005)
    later = probability(session, preset.clean, "8") + probability(session, preset.clean, "9")
    assert later == pytest.approx(0.99, abs=0.005)
    top = top_after(session, preset.clean)
    assert {top[layer] for layer in range(24, 30)} == {"8"}
    assert top[23] != "8"
    assert restored(session, preset, 0, 10) == pytest.approx(1, abs=0.01)
    assert restored(session, preset, 20, 10) > 0.75
    assert restored(session, preset, 24, 17) > 0.95


def test_gendered_pronoun_lines_are_true(session) -> None:
    preset = preset_named("Gendered pronoun")
    assert attention(session, preset.clean, 25, 2)[2] == pytest.approx(0.28, abs=0.005)
    assert probability(session, preset.clean, " she") == pytest.approx(0.47, abs=0.005)
    assert probability(session, preset.clean, " she", (25, 2)) == pytest.approx(0.28, abs=0.006)
    top = top_after(session, preset.clean)
    assert {top[layer] for layer in (27, 28, 29)} == {" she"}
    assert top[26] != " she"
    assert restored(session, preset, 25, 2) > 0.8
    assert restored(session, preset, 27, 6) > 0.95


def test_code_bracket_lines_are_true(session) -> None:
    preset = preset_named("Code bracket")
    assert attention(session, preset.clean, 26, 6)[6] == pytest.approx(0.99, abs=0.005)
    assert probability(session, preset.clean, "])") == pytest.approx(0.65, abs=0.005)
    assert probability(session, preset.clean, "])", (26, 6)) == pytest.approx(0.35, abs=0.005)
    top = top_after(session, preset.clean)
    assert {top[layer] for layer in (24, 25, 26, 27)} == {"]"}
    assert {top[layer] for layer in (28, 29)} == {"])"}
    steps: Callable[[int], float] = lambda layer: restored(session, preset, layer, 7)  # noqa: E731
    assert steps(23) < 0.1 < 0.6 < steps(24) < 0.8 < 0.95 < steps(27)


def test_a_widget_shows_the_preset_that_is_asked_for(session) -> None:
    preset = preset_named("Code bracket")
    attention = iw.AttentionPattern(session, "Hello", linked=False)
    attention.preset("Code bracket")
    attention.wait(60)
    assert attention._prompt["text"] == preset.clean
    heatmap = iw.PatchingHeatmap(session, clean="one two", corrupted="one three", linked=False)
    heatmap.preset("Code bracket")
    heatmap.wait(120)
    assert [heatmap._prompts[side]["text"] for side in ("clean", "corrupted")] == [preset.clean, preset.corrupted]
    assert [heatmap._task[side]["text"] for side in ("answer", "foil")] == ["])", "))"]
    with pytest.raises(ValueError, match="Code bracket"):
        heatmap.preset("Code brackets")
    attention.close()
    heatmap.close()
