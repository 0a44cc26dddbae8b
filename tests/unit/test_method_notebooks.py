"""What the notebooks on attention patterns, the logit lens and activation patching say is what the demo model does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import xarray as xr

import interpwidgets as iw
from interpwidgets.engine.interventions import Intervention

MADRID, BERLIN = "Tokyo is in Japan. Madrid is in", "Tokyo is in Japan. Berlin is in"
AUTHOR = "The author of Romeo and Juliet is William"
CAPITALS = "The capital of Germany is the city of ... The capital of Japan is the city of"
STORY = "Anna put the key in the drawer and the phone in the bag. The"
CLEAN, CORRUPTED = f"{STORY} key is in the", f"{STORY} phone is in the"
DRAWER, BAG = " drawer", " bag"
LARGEST = ((20, 1), (17, 4), (19, 2), (24, 4), (19, 1), (18, 6))
HELPING = ((20, 1), (17, 4), (19, 1), (18, 6))
OTHERS = (
    ("Peter", "key", "car", "phone", "kitchen"),
    ("Mary", "key", "garage", "phone", "bedroom"),
    ("Mary", "book", "box", "cup", "basket"),
    ("Anna", "book", "car", "cup", "kitchen"),
    ("Anna", "pen", "closet", "watch", "fridge"),
    ("Tom", "pen", "desk", "watch", "kitchen"),
    ("Peter", "knife", "drawer", "ring", "bag"),
    ("Mary", "knife", "box", "ring", "basket"),
    ("Peter", "letter", "drawer", "coin", "bag"),
    ("Peter", "letter", "closet", "coin", "fridge"),
)


@pytest.fixture(scope="module")
def session():
    return iw.load()


@pytest.fixture(scope="module")
def by_head(session) -> xr.DataArray:
    """Heads of the story patched, as the notebook's map."""
    return iw.patch_sweep(session, CLEAN, CORRUPTED, "z", DRAWER, BAG)


def log_probabilities(session: iw.Session, prompt: str, *experiments: Intervention) -> np.ndarray:
    logits = np.asarray(session.run(prompt, interventions=experiments).logits[-1], np.float64)
    return logits - np.logaddexp.reduce(logits)


def probability(session: iw.Session, prompt: str, token: str, *experiments: Intervention) -> float:
    return float(np.exp(log_probabilities(session, prompt, *experiments)[session.token_id(token)]))


def top(session: iw.Session, prompt: str, *experiments: Intervention) -> str:
    return session.tokenizer.decode([int(log_probabilities(session, prompt, *experiments).argmax())])


def largest(effect: xr.DataArray, n: int) -> list[tuple[int, int]]:
    """(layer, head) of the n largest, largest first."""
    return [divmod(int(i), effect.shape[1]) for i in np.argsort(-np.abs(effect.values), axis=None)[:n]]


def close(value: float) -> object:
    """To the two digits that are written."""
    return pytest.approx(value, abs=0.0055)


# 02_attention_patterns


def test_zero_mean_and_resample_name_different_heads(session) -> None:
    def sweep(how: str, reference: str | None = None) -> xr.DataArray:
        return iw.ablation_sweep(session, MADRID, "z", how, reference, answer=" Spain", metric="log_probability")

    zero, mean, resample = sweep("zero"), sweep("mean"), sweep("resample", BERLIN)
    assert zero.size == 270
    assert largest(zero, 5) == [(1, 5), (0, 6), (23, 4), (0, 7), (0, 2)]
    assert largest(mean, 1) == [(23, 4)]
    assert largest(resample, 3) == [(23, 4), (29, 1), (23, 5)]
    at = {"layer": [1, 23], "head": [5, 4]}
    expected = {"zero": [-3.00, -0.56], "mean": [0.05, -0.28], "resample": [0.00, -3.64]}
    for effect in (zero, mean, resample):
        layers, heads = at["layer"], at["head"]
        assert effect.values[layers, heads] == pytest.approx(expected[effect.attrs["how"]], abs=0.0055)
    assert float(mean[23, 4] / zero[23, 4]) == pytest.approx(0.5, abs=0.05)
    assert 6 < float(resample[23, 4] / zero[23, 4]) < 7


def test_the_country_comes_from_l23h4_at_madrid(session) -> None:
    tokens = session.tokenize(MADRID).strings
    assert (tokens[7], tokens[9], len(tokens)) == ("␣Madrid", "␣in", 10)
    assert probability(session, MADRID, " Spain") == close(0.87)
    assert probability(session, MADRID, " Spain", iw.Ablate("z", layer=1, head=5)) == close(0.04)
    assert probability(session, MADRID, " Spain", iw.Ablate("z", layer=23, head=4)) == close(0.50)

    scaled, left = (iw.CutEdge(23, 4, 9, 7, renormalize=renormalize) for renormalize in (True, False))
    run = session.run(MADRID, capture=["pattern"], interventions=[scaled])
    assert float(run["pattern"].sel(layer=23, head=4)[-1, 5]) == close(0.48)
    assert tokens[5] == "␣Japan"
    assert top(session, MADRID, scaled) == " Japan"
    assert probability(session, MADRID, " Japan", scaled) == close(0.74)
    assert top(session, MADRID, left) == " Spain"
    assert probability(session, MADRID, " Spain", left) == close(0.50)

    resampled = iw.Ablate("z", layer=23, head=4, how="resample", reference=BERLIN)
    assert probability(session, MADRID, " Germany") < 0.001
    assert probability(session, MADRID, " Germany", resampled) == close(0.39)


def test_l1h5_matters_at_the_first_position_on_which_heads_rest(session) -> None:
    run = session.run(MADRID, capture=["pattern", "resid_post"])
    pattern = run["pattern"].values  # (layer, head, query, key)
    assert pattern[23, 4, -1, 7] == close(0.85)
    read = {run.tokens.strings[key] for key in np.argsort(-pattern[1, 5, -1])[:4]}
    assert read == {"␣in", "␣is", "."}
    resting = pattern[:, :, -1, 0]
    assert ((resting > 0.5).sum(), resting.size) == (149, 270)
    assert resting[18, 8] > 0.995
    assert probability(session, MADRID, " Spain", iw.Ablate("z", layer=18, head=8)) == close(0.87)
    length = np.linalg.norm(run["resid_post"].sel(layer=11).values, axis=-1)
    assert length[0] == pytest.approx(25_000, rel=0.01)
    assert 160 < length[1:].max() < 170

    first, *rest = (iw.Ablate("z", layer=1, head=5, position=position) for position in range(10))
    assert probability(session, MADRID, " Spain", first) == close(0.30)
    assert probability(session, MADRID, " Spain", *rest) == close(0.87)
    disturbed = session.run(MADRID, capture=["pattern"], interventions=[first])["pattern"]
    assert float(disturbed.sel(layer=23, head=4)[-1, 7]) == close(0.60)


# 03_logit_lens


@pytest.fixture(scope="module")
def read_by_hand(session) -> torch.Tensor:
    """Log-probabilities of the author's prompt, (layer, position, token), from Hugging Face alone; row 0: embedding."""
    model = session.model
    with torch.no_grad():
        states = model(torch.tensor([session.tokenize(AUTHOR).ids]), output_hidden_states=True).hidden_states
        rows = [model.lm_head(model.model.norm(state)) for state in states[:-1]] + [model.lm_head(states[-1])]
        twice = model.lm_head(model.model.norm(states[-1]))[0, -1].softmax(-1)
    assert float(twice[session.token_id(" Shakespeare")]) == close(0.08)
    return torch.stack([row[0].double().log_softmax(-1) for row in rows])


def test_the_lens_is_what_is_read_by_hand(session, read_by_hand) -> None:
    lens = iw.logit_lens(session, AUTHOR, ["rank", "entropy", "kl"], track=[" Shakespeare"])
    shakespeare = session.token_id(" Shakespeare")
    by_hand = read_by_hand[:, :, shakespeare].exp().numpy()
    assert lens["tracked_probability"].values[0] == pytest.approx(by_hand, abs=1e-5)
    last = read_by_hand[:, -1]  # (layer, token)
    assert lens["entropy"].values[:, -1] == pytest.approx((-(last.exp() * last).sum(-1)).numpy(), abs=1e-3)
    divergence = (last[-1].exp() * (last[-1] - last)).sum(-1).numpy()
    assert lens["kl"].values[:, -1] == pytest.approx(divergence, abs=1e-3)
    assert lens["rank"].values[:, -1] == pytest.approx((last > last[:, [shakespeare]]).sum(-1).numpy())


def test_himself_then_shakespeare(session, read_by_hand) -> None:
    last = read_by_hand[:, -1]  # (layer, token), row 0 is the embedding
    said = [session.tokenizer.decode([int(token)]) for token in last.argmax(-1)]
    assert set(said[1:25]) == {" and", "."}
    assert said[25:27] == [" himself"] * 2
    assert said[27:] == [" Shakespeare"] * 4
    shakespeare, himself = (session.token_id(token) for token in (" Shakespeare", " himself"))
    rank = (last > last[:, [shakespeare]]).sum(-1).tolist()
    assert (rank[24], rank[25], last.shape[1]) == (64, 1, 49_152)
    assert float(last[24, shakespeare].exp()) == pytest.approx(0.0001, abs=0.00005)
    assert float(last[25, himself].exp()) == close(0.98)
    assert float(last[-1, shakespeare].exp()) == close(0.88)
    assert int((last[-1] > last[-1, himself]).sum()) == pytest.approx(6209, abs=5)
    entropy = -(last.exp() * last).sum(-1)
    assert float(entropy[25]) == close(0.19)
    assert int(entropy[23:].argmin()) == 2  # of the rows that the notebook prints, layers 22 to 29
    assert float((last[-1].exp() * (last[-1] - last[25])).sum()) == pytest.approx(5.3, abs=0.05)


def test_the_bottom_row_repeats_what_was_read_or_says_the_longest(session, read_by_hand) -> None:
    ids = session.tokenize(AUTHOR).ids
    said = read_by_hand[0].argmax(-1).tolist()
    shows = [session.tokenizer.decode([token]) for token in said]
    assert [at for at, token in enumerate(ids) if said[at] == token] == [1, 2, 3, 5, 7]
    assert (read_by_hand[0].max(-1).values[[1, 2, 3, 5, 7]].exp() > 0.99).all()
    assert [shows[at] for at in (4, 6, 8)] == ["<filename>"] * 3
    assert session.model.get_output_embeddings().weight is session.model.get_input_embeddings().weight
    lengths = session.model.get_input_embeddings().weight.detach().norm(dim=-1)
    assert float(lengths[said[4]]) == pytest.approx(6.8, abs=0.05)
    assert float(lengths[session.token_id(" William")]) == pytest.approx(1.9, abs=0.05)


def test_a_state_that_reads_as_a_line_break_carries_berlin(session) -> None:
    strings = session.tokenize(CAPITALS).strings
    assert (strings[7:9], strings[17], len(strings)) == (("␣city", "␣of"), "␣of", 18)
    assert "Berlin" not in CAPITALS
    lens = iw.logit_lens(session, CAPITALS, track=[" Berlin"])
    tops = lens["top_token"].values[:, 8, 0]
    assert session.tokenizer.decode([int(tops[25])]) == "\n"
    assert int(lens["tracked_rank"].sel(layer=24)[0, 8]) == pytest.approx(294, abs=2)
    assert np.flatnonzero(tops == session.token_id(" Berlin")).tolist() == [30]

    def moved(layer: int, token: str) -> float:
        patch = iw.Patch("resid_post", layer=layer, position=17, source=CAPITALS, source_position=8)
        return probability(session, CAPITALS, token, patch)

    assert probability(session, CAPITALS, " Tokyo") == close(0.64)
    assert moved(24, " Berlin") == close(0.86)
    assert moved(23, " Berlin") == close(0.86)
    assert moved(22, " Tokyo") == close(0.83)


# 04_activation_patching


def gap(session: iw.Session, prompt: str, answer: str, foil: str) -> float:
    logits = log_probabilities(session, prompt)
    return float(logits[session.token_id(answer)] - logits[session.token_id(foil)])


def test_the_story_is_a_pair_and_a_longer_word_is_refused(session) -> None:
    assert (top(session, CLEAN), top(session, CORRUPTED)) == (DRAWER, BAG)
    assert gap(session, CLEAN, DRAWER, BAG) == pytest.approx(1.0, abs=0.05)
    assert gap(session, CORRUPTED, DRAWER, BAG) == pytest.approx(-2.2, abs=0.05)
    assert probability(session, CORRUPTED, DRAWER) == close(0.05)
    word = session.tokenize(" screwdriver is").strings
    assert len(word) == len(session.tokenize(" key is").strings) + 2
    with pytest.raises(ValueError, match="clean has 20, corrupted has 22; they differ first at position 16"):
        iw.patch_sweep(session, CLEAN, f"{STORY} screwdriver is in the")


def test_what_is_asked_moves_from_its_word_to_the_last_token(session) -> None:
    stream = iw.patch_sweep(session, CLEAN, CORRUPTED, "resid_pre", DRAWER, BAG).values
    assert (stream[:17, 16] > 0.9).all()
    assert stream[16, 16] == close(0.96)
    assert stream[22, [16, 19]] == pytest.approx([0.09, 0.74], abs=0.0055)
    assert stream[20, 16] == close(0.58)
    assert (np.abs(stream[20, 17:] - 0.235) < 0.02).all()
    assert stream[0, 16] == close(1.00)
    estimate = iw.attribution_sweep(session, CLEAN, CORRUPTED, "resid_pre", DRAWER, BAG)
    assert float(estimate[0, 16]) == close(-0.05)

    attention = iw.patch_sweep(session, CLEAN, CORRUPTED, "attn_out", DRAWER, BAG)
    assert [(layer, position) for layer, position in largest(attention, 3)] == [(23, 19), (20, 19), (24, 19)]
    assert attention.values[[23, 20, 24, 17], [19, 19, 19, 16]] == pytest.approx([0.69, 0.58, -0.45, 0.44], abs=0.0055)


def test_the_six_largest_heads_and_their_estimate(session, by_head) -> None:
    assert tuple(largest(by_head, 6)) == LARGEST
    one = iw.attribution_sweep(session, CLEAN, CORRUPTED, "z", DRAWER, BAG)
    assert set(largest(one, 10)) == set(largest(by_head, 10))
    assert float(one[20, 1]) == close(0.99)


def test_l17h4_finds_the_place_and_l20h1_reads_alike(session) -> None:
    clean, corrupted = (session.run(prompt, capture=["pattern"])["pattern"].values for prompt in (CLEAN, CORRUPTED))
    strings = session.tokenize(CLEAN).strings
    assert [strings[at] for at in (4, 5, 10, 11, 16)] == ["␣key", "␣in", "␣phone", "␣in", "␣key"]
    assert clean[17, 4, 16, 5] == close(0.77)
    assert corrupted[17, 4, 16, 11] == close(0.93)
    assert strings[7] == "␣drawer"
    assert clean[24, 4, -1, 7] == close(0.58)
    for pattern in (clean, corrupted):
        assert set(np.argsort(-pattern[20, 1, -1])[:3]) == {16, 17, 18}
    assert np.abs(clean[20, 1, -1] - corrupted[20, 1, -1]).max() < 0.07


def patched(session: iw.Session, base: str, source: str, heads: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The logits of one forward pass, not of a sweep."""
    patches = [iw.Patch("z", layer=layer, head=head, source=source) for layer, head in heads]
    return np.asarray(session.run(base, interventions=patches).logits[-1], np.float64)


def test_directions_metrics_and_heads_together(session, by_head) -> None:
    drawer, bag = session.token_id(DRAWER), session.token_id(BAG)
    ends = [gap(session, prompt, DRAWER, BAG) for prompt in (CORRUPTED, CLEAN)]

    def share(logits: np.ndarray) -> float:
        return (float(logits[drawer] - logits[bag]) - ends[0]) / (ends[1] - ends[0])

    def by_probability(logits: np.ndarray) -> float:
        low, high = (probability(session, prompt, DRAWER) for prompt in (CORRUPTED, CLEAN))
        return (math.exp(logits[drawer] - np.logaddexp.reduce(logits)) - low) / (high - low)

    one = {head: patched(session, CORRUPTED, CLEAN, (head,)) for head in LARGEST}
    shares = [share(one[head]) for head in LARGEST]
    assert shares == pytest.approx([0.74, 0.48, -0.48, -0.40, 0.38, 0.35], abs=0.0055)
    assert shares == pytest.approx([float(by_head[head]) for head in LARGEST], abs=1e-3)
    assert sum(share(one[head]) for head in HELPING) == pytest.approx(1.95, abs=0.01)
    assert [by_probability(one[head]) for head in ((19, 2), (24, 4))] == pytest.approx([-0.17, -0.15], abs=0.0055)
    assert share(patched(session, CORRUPTED, CLEAN, HELPING)) == close(0.90)
    for heads, left in {((20, 1),): 0.34, ((17, 4),): 0.83, HELPING: -0.07}.items():
        assert share(patched(session, CLEAN, CORRUPTED, heads)) == close(left)
    at_one_position = [[iw.Site("z", 20, 1, 19)], [iw.Site("z", 17, 4, 16)]]
    alone = iw.patch_sets(session, CLEAN, CORRUPTED, at_one_position, DRAWER, BAG)
    assert alone.values == pytest.approx([0.62, 0.44], abs=0.0055)


def test_ten_other_pairs(session) -> None:
    heads = (*LARGEST,)
    effects, gaps = [], []
    for who, a, here, b, there in OTHERS:
        text = f"{who} put the {a} in the {here} and the {b} in the {there}. The"
        clean, corrupted = f"{text} {a} is in the", f"{text} {b} is in the"
        answer, foil = f" {here}", f" {there}"
        assert (top(session, clean), top(session, corrupted)) == (answer, foil)
        sets = [[iw.Site("z", *head)] for head in heads]
        shares = iw.patch_sets(session, clean, corrupted, sets, answer, foil)
        effects.append(shares.values)
        gaps.append(shares.attrs["clean"] - shares.attrs["corrupted"])
    effect = np.array(effects)  # (pair, head)
    assert effect.mean(0)[:2] == pytest.approx([0.80, 0.15], abs=0.0055)
    assert int(np.argmin(gaps)) == int(effect[:, 0].argmax()) == 7
    assert gaps[7] == close(0.83)
    assert effect[7, 0] == close(1.58)
    flips = np.array(list(itertools.product((1, -1), repeat=10)))  # (flip, pair)
    p = (np.abs(flips @ effect) >= np.abs(effect.sum(0)) - 1e-9).mean(0)
    assert p[[0, 1]] == pytest.approx([2 / 1024, 8 / 1024])
