"""What the gallery says to look at, beside what presets promise, is what the demo model does."""

from __future__ import annotations

import numpy as np
import pytest

import interpwidgets as iw
from interpwidgets.presets import preset_named

IOI, FACT = preset_named("Indirect object"), preset_named("Fact recall")
TWO_CITIES = "The Colosseum is in the city of Rome. The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def session():
    return iw.load()


def probability(session: iw.Session, token: str, experiments: list) -> float:
    logits = np.asarray(session.run(TWO_CITIES, interventions=experiments).logits[-1], np.float64)
    return float(np.exp(logits[session.token_id(token)] - np.logaddexp.reduce(logits)))


def test_without_l20h0_l24h4_looks_less_at_mary(session) -> None:
    def attention(*experiments: iw.Ablate) -> float:
        run = session.run(IOI.clean, capture=["pattern"], interventions=experiments)
        return float(run["pattern"].sel(layer=24, head=4).values[-1, 4])

    assert attention() == pytest.approx(0.90, abs=0.005)
    assert attention(iw.Ablate("z", layer=20, head=0)) == pytest.approx(0.56, abs=0.005)


def test_transplanting_the_colosseum_moves_the_tower_to_rome(session) -> None:
    assert session.tokenize(TWO_CITIES).strings[4] == "um"
    assert session.tokenize(TWO_CITIES).strings[14:16] == ("iffel", "␣Tower")
    lens = iw.LogitLens(session, TWO_CITIES, linked=False)
    lens.transplant((4, 4), (4, 14))
    lens.transplant((4, 4), (4, 15))
    lens.wait()
    moved = list(lens.experiments)
    assert probability(session, " Rome", []) < 0.001
    assert probability(session, " Paris", []) == pytest.approx(0.95, abs=0.005)
    assert probability(session, " Rome", moved) == pytest.approx(0.45, abs=0.006)
    assert probability(session, " Paris", moved) == pytest.approx(0.01, abs=0.005)
    lens.close()


def test_layer_23_carries_the_fact(session) -> None:
    by_site = {
        site: iw.patch_sweep(session, FACT.clean, FACT.corrupted, site, FACT.answer, FACT.foil).values
        for site in ("attn_out", "mlp_out")
    }
    assert np.unravel_index(by_site["attn_out"].argmax(), by_site["attn_out"].shape) == (23, 9)
    assert by_site["attn_out"].max() == pytest.approx(0.67, abs=0.005)
    sets = [[iw.Site("z", 23, head, 9)] for head in (4, 5)]
    heads = iw.patch_sets(session, FACT.clean, FACT.corrupted, sets, FACT.answer, FACT.foil).values
    assert heads == pytest.approx([0.35, 0.24], abs=0.006)
    assert (np.sort(by_site["mlp_out"][:8, 3])[-4:] > 0.25).all()


def test_shares_of_the_indirect_object_do_not_add_up(session) -> None:
    heads = [iw.Site("z", 23, 3), iw.Site("z", 20, 0), iw.Site("z", 29, 1)]
    sets = [*([head] for head in heads), heads[:2], heads]
    shares = iw.patch_sets(session, IOI.clean, IOI.corrupted, sets, IOI.answer, IOI.foil).values
    assert shares[:4] == pytest.approx([0.63, 0.39, 0.32, 0.93], abs=0.006)
    assert shares[4] <= shares[3]


def test_one_gradient_misses_l20h0_and_five_find_half_of_it(session) -> None:
    one, five = (
        iw.attribution_sweep(session, IOI.clean, IOI.corrupted, "z", IOI.answer, IOI.foil, steps=steps).values
        for steps in (1, 5)
    )
    assert abs(one[20, 0]) < 0.05
    assert five[20, 0] == pytest.approx(0.19, abs=0.01)
    assert one[[23, 29], [3, 1]] == pytest.approx([0.53, 0.33], abs=0.006)
