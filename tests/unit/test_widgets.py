"""The widgets without a browser: requests in, traits out, on a tiny real model."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import interpwidgets as iw
from tests.models import random_ids, tiny
from tests.sent import array, head, thumbnails, under_experiments

PROMPT = [5, 17, 3, 44, 17, 60, 8, 91]
CORRUPTED = [5, 17, 3, 21, 17, 60, 9, 91]


@pytest.fixture
def attention(session):
    widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)
    widget.wait(30)
    return widget


@pytest.fixture
def lens(session):
    widget = iw.LogitLens(session, PROMPT)
    widget.wait(30)
    return widget


@pytest.fixture
def heatmap(session):
    widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
    widget.wait(30)
    return widget


def click(widget, op, **arguments):
    """A request as the front end sends it."""
    request = {"id": widget._status["id"] + 1, "op": op, **arguments}
    content = {"data": {"method": "update", "state": {"_request": request}, "buffer_paths": []}}
    widget._handle_msg({"content": content, "buffers": []})
    return request["id"]


def test_detail_is_the_selected_heads_pattern(session, attention):
    expected = iw.attention_patterns(session, PROMPT)
    assert np.array_equal(head(attention), expected.sel(layer=1, head=2))
    click(attention, "select", layer=3, head=1)
    assert (attention.layer, attention.head) == (3, 1)
    assert np.array_equal(head(attention), expected.sel(layer=3, head=1))


def test_overview_holds_every_heads_pattern_in_bytes(session, attention):
    expected = iw.attention_patterns(session, PROMPT).values
    assert np.abs(thumbnails(attention) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_thumbnails_of_a_long_prompt_lose_no_spike(session):
    prompt = random_ids(60)
    widget = iw.AttentionPattern(session, prompt)
    widget.wait(30)
    edges = widget._baseline_overview["edges"]
    small = thumbnails(widget)
    pattern = iw.attention_patterns(session, prompt).values
    assert edges[:2] == [0, 1]
    assert edges[-1] == 60
    assert small.shape[-1] == len(edges) - 1 <= 32
    assert np.abs(small.max((2, 3)) / 255 - pattern.max((2, 3))).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(small[..., 0], np.rint(255 * np.maximum.reduceat(pattern[..., 0], edges[:-1], axis=2)))


def test_ablating_by_click_equals_ablating_in_python(session, attention):
    number = click(attention, "ablate", layer=1, head=2, how="mean")
    attention.wait(30)
    assert list(session.interventions) == [iw.Ablate("z", layer=1, head=2, how="mean")]
    assert attention._status["id"] == attention._overview["id"] == number
    logits = session.run(PROMPT, interventions=[iw.Ablate("z", layer=1, head=2, how="mean")]).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    for row in attention._predictions["rows"]:
        assert row["now"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)
    changed = array(attention._overview["changed"])
    assert (changed[:2] == 0).all()
    assert (changed[2:] > 0).all()
    click(attention, "ablate", layer=1, head=2, how="mean")
    attention.wait(30)
    assert len(session.interventions) == 0
    assert attention._overview["now"] is None


def test_cutting_an_edge_and_undoing_it(session, attention):
    click(attention, "cut", layer=1, head=2, query=6, key=3, renormalize=False)
    attention.wait(30)
    assert list(session.interventions) == [iw.CutEdge(layer=1, head=2, query=6, key=3, renormalize=False)]
    assert head(attention)[6, 3] == 0
    assert attention._overview["cut"] == [[1, 2, 6, 3]]
    click(attention, "undo")
    attention.wait(30)
    assert head(attention)[6, 3] > 0
    assert attention._history == {"undo": False, "redo": True}


def test_errors_are_drawn_with_what_would_be_right_and_the_picture_stays(attention):
    before = attention._overview
    number = click(attention, "select", layer=9, head=0)
    assert attention._status["state"] == "error"
    assert attention._status["id"] == number
    assert "layers 0 to 3, heads 0 to 3" in attention._status["error"]["text"]
    click(attention, "run", prompt="5, x, 3")
    assert "no tokenizer: type token ids" in attention._status["error"]["text"]
    click(attention, "explode")
    assert "unknown request 'explode'" in attention._status["error"]["text"]
    assert attention._overview is before
    click(attention, "run", prompt="5, 17, 3")
    attention.wait(30)
    assert attention._status["error"] is None
    assert [t["id"] for t in attention._prompt["tokens"]] == [5, 17, 3]


def test_an_error_in_a_run_is_drawn_and_raised_by_wait(session, attention):
    attention.cut(1, 2, 7, 3)
    attention.wait(30)
    attention.run([5, 17, 3])
    with pytest.raises(ValueError, match="position 7 is out of range"):
        attention.wait(30)
    assert attention._status["state"] == "error"
    assert "remove it" in attention._status["error"]["hint"]


def test_experiments_reach_linked_widgets_only(session, attention, lens):
    apart = iw.LogitLens(session, PROMPT, linked=False)
    apart.wait(30)
    attention.ablate(1, 2)
    lens.wait(30)
    apart.wait(30)
    assert lens._now is not None
    assert apart._now is None
    assert lens._experiments[0]["label"] == "z L1H2 → 0"
    assert apart._experiments == []


def test_the_strip_edits_the_list_that_acts(session, attention):
    session.interventions.extend([iw.Scale("mlp_out", 0.5, layer=1), iw.Ablate("z", layer=2, head=1)])
    click(attention, "set_strength", index=0, value=-2)
    click(attention, "move", index=0, to=1)
    click(attention, "group", indices=[0, 1], name="pair")
    click(attention, "rename", index=1, name="flip")
    assert session.interventions.entries == (
        iw.Experiment(iw.Ablate("z", layer=2, head=1), group="pair"),
        iw.Experiment(iw.Scale("mlp_out", -2.0, layer=1), group="pair", name="flip"),
    )
    sent = attention._experiments[1]
    assert (sent["label"], sent["name"], sent["group"]) == ("mlp_out L1 × -2", "flip", "pair")
    assert sent["strength"] == {"value": -2.0, "before": "mlp_out L1 ×", "after": ""}
    attention.wait(30)
    expected = session.run(PROMPT, interventions=list(session.interventions)).logits[-1]
    shown = session.ask(session.tokenize(PROMPT), (), tuple(session.interventions)).prediction
    assert np.allclose(shown, expected, atol=1e-5)
    click(attention, "toggle_group", group="pair")
    assert list(session.interventions) == []
    namespace = {"iw": iw, "session": session}
    code = attention.code().split("widget =")[0]
    before = session.interventions.entries
    session.interventions.clear()
    exec(code, namespace)
    assert session.interventions.entries == before
    click(attention, "set_strength", index=0, value=1)
    assert "no strength to set" in attention._status["error"]["text"]
    click(attention, "move", index="0", to=1)
    assert "index='0': a whole number is needed" in attention._status["error"]["text"]


def test_an_experiment_that_changes_nothing_says_so(session, attention):
    session.interventions.append(iw.Scale("z", 1.0, layer=2))
    attention.wait(30)
    assert attention._experiments[0]["note"] == "changed nothing here"


def test_parts_of_the_lens_are_the_rows_of_its_grid_each_sent_once(session, monkeypatch):
    monkeypatch.setattr("interpwidgets.widgets.running._PROGRESS_SECONDS", 0)
    prompt = random_ids(60)
    parts = []
    widget = iw.LogitLens(session, PROMPT)
    widget.wait(30)
    widget.observe(lambda change: change["new"] and parts.append(change["new"]), names="_part")
    widget.run(prompt)
    widget.wait(30)
    rows = [range(part["row"], part["row"] + len(array(part["p"]))) for part in parts]
    assert [i for some in reversed(rows) for i in some] == list(range(5))
    assert len({part["reading"] for part in parts}) == 1
    assert np.array_equal(np.concatenate([array(part["p"]) for part in reversed(parts)]), array(widget._grid["p"]))
    assert all(part["rows"] == widget._grid["rows"] for part in parts)
    assert widget._part is None


def test_lens_grid_is_the_methods(session, lens):
    expected = iw.logit_lens(session, PROMPT, ["probability", "rank", "entropy"])
    assert np.array_equal(array(lens._grid["top"]), expected["top_token"])
    for name in ("probability", "rank", "entropy"):
        assert np.allclose(array(lens._grid["metrics"][name]), expected[name], atol=1e-6)
    assert "kl" not in lens._grid["metrics"]
    click(lens, "compute", metric="kl")
    lens.wait(30)
    assert np.allclose(array(lens._grid["metrics"]["kl"]), iw.logit_lens(session, PROMPT, "kl")["kl"], atol=1e-6)


def test_transplant_touches_its_causal_cone_and_nothing_else(session, lens):
    click(lens, "transplant_cells", source=[2, 1], target=[3, 5])
    lens.wait(30)
    move = iw.Patch("resid_post", layer=2, position=5, source=tuple(PROMPT), source_layer=1, source_position=1)
    assert list(session.interventions) == [move]
    touched = array(lens._now["touched"])
    cone = np.zeros_like(touched)
    cone[3, 5] = 1
    cone[4:, 5:] = 1
    assert np.array_equal(touched, cone)
    now = iw.logit_lens(session, PROMPT, interventions=[move])
    assert np.array_equal(under_experiments(lens, "top"), now["top_token"])
    assert np.allclose(under_experiments(lens, "p"), now["top_probability"], atol=1e-6)


def test_what_acts_behind_the_last_block_is_seen_in_the_last_row_where_it_acts(session, lens):
    steer = iw.Scale("ln_final", -1.0, position=5)
    session.interventions.append(steer)
    lens.wait(30)
    touched = array(lens._now["touched"])
    assert np.argwhere(touched).tolist() == [[4, 5]]
    assert lens._now["row"] == 4
    p = session.run(PROMPT, interventions=[steer]).logits.values[5]
    assert array(lens._now["top"])[-1, 5, 0] == p.argmax()


def test_transplants_from_and_to_the_ends_of_the_stack(session, lens):
    lens.transplant((-1, 2), (1, 4))
    lens.transplant((3, 2), (-1, 0))
    lens.wait(30)
    with pytest.raises(ValueError, match="no cell at layer 4"):
        lens.transplant((4, 2), (3, 4))
    plain = session.run(PROMPT, capture=["resid_pre", "resid_post"])
    moved = session.run(PROMPT, ["resid_pre", "resid_post"], list(session.interventions))
    assert np.array_equal(moved["resid_post"].sel(layer=1, position=4), plain["resid_pre"].sel(layer=0, position=2))
    assert np.array_equal(moved["resid_pre"].sel(layer=0, position=0), plain["resid_post"].sel(layer=3, position=2))


def test_every_metric_under_an_experiment(session, lens):
    lens.metric = "kl"
    lens.transplant((1, 1), (2, 5))
    lens.wait(30)
    now = iw.logit_lens(session, PROMPT, ["kl", "entropy"], interventions=list(session.interventions))
    for metric in ("kl", "entropy"):
        assert np.allclose(under_experiments(lens, metric), now[metric], atol=1e-6)


def test_of_a_lens_under_an_experiment_only_rows_travel_that_it_changes(session, lens):
    lens.transplant((1, 1), (2, 5))  # writes over the row of layer 2, below which are those of the embedding, 0 and 1
    lens.wait(30)
    assert array(lens._now["target"])[-1] == array(lens._grid["target"])[-1]  # or the last position had other ranks
    assert lens._now["row"] == 3
    assert array(lens._now["top"]).shape[:2] == (2, len(PROMPT))
    assert array(lens._now["touched"]).shape == (5, len(PROMPT))
    lens.metric = "kl"  # of every row to the last one, which the experiment changes
    lens.wait(30)
    now = iw.logit_lens(session, PROMPT, "kl", interventions=list(session.interventions))
    assert np.allclose(under_experiments(lens, "kl"), now["kl"], atol=1e-6)
    assert lens._now["row"] == 0


def test_replacing_a_token_runs_the_new_prompt(session, lens):
    click(lens, "replace", position=3, token=21)
    lens.wait(30)
    assert [t["id"] for t in lens._prompt["tokens"]] == [*PROMPT[:3], 21, *PROMPT[4:]]
    expected = iw.logit_lens(session, [*PROMPT[:3], 21, *PROMPT[4:]])
    assert np.array_equal(array(lens._grid["top"]), expected["top_token"])
    click(lens, "replace", position=0, text="7, 8")
    lens.wait(30)
    assert [t["id"] for t in lens._prompt["tokens"]][:3] == [7, 8, 17]


def test_tracked_tokens_are_followed_over_the_layers(session, lens):
    click(lens, "track", token=44)
    lens.wait(30)
    expected = iw.logit_lens(session, PROMPT, track=[44])
    assert np.allclose(array(lens._tracks["probability"]), expected["tracked_probability"], atol=1e-6)
    assert np.array_equal(array(lens._tracks["rank"]), expected["tracked_rank"])
    click(lens, "untrack", token=44)
    lens.wait(30)
    assert lens._tracks is None


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "z", "k"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_heatmap_is_the_sweep(session, heatmap, site, direction):
    click(heatmap, "set", site=site, direction=direction, answer=44, foil=60)
    heatmap.wait(30)
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, site, 44, 60, direction=direction, normalize=False)
    assert np.allclose(array(heatmap._sweep["values"]), expected, atol=1e-5)
    assert heatmap._sweep["baseline"] == pytest.approx(
        expected.attrs["corrupted" if direction == "denoise" else "clean"]
    )


def test_a_clicked_cell_is_its_heatmap_value_and_cells_can_be_joined(session, heatmap):
    cells = [{"site": "resid_pre", "layer": 2, "head": None, "position": 3}]
    click(heatmap, "patch", cells=cells)
    heatmap.wait(30)
    assert heatmap._patched["value"] == pytest.approx(float(array(heatmap._sweep["values"])[2, 3]), abs=1e-5)
    cells.append({"site": "z", "layer": 3, "head": 1, "position": None})
    click(heatmap, "patch", cells=cells)
    heatmap.wait(30)
    joint = [
        iw.Patch("resid_pre", layer=2, position=3, source=PROMPT),
        iw.Patch("z", layer=3, head=1, source=PROMPT),
    ]
    probabilities = torch.from_numpy(session.run(CORRUPTED, interventions=joint).logits.values[-1]).softmax(-1)
    for row in heatmap._patched["rows"]:
        assert row["patched"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)
    click(heatmap, "patch", cells=[])
    assert heatmap._patched is None


def test_drilling_down_shows_heads_by_position(session, heatmap):
    click(heatmap, "drill", layer=2)
    heatmap.wait(30)
    expected = iw.patch_sweep(session, PROMPT, CORRUPTED, "z", normalize=False, layer=2)
    assert heatmap._drill["dims"] == ["head", "position"]
    assert np.allclose(array(heatmap._drill["values"]), expected, atol=1e-5)
    click(heatmap, "drill", layer=None)
    assert heatmap._drill is None


def test_prompts_of_different_length_are_drawn_aligned(heatmap):
    before = heatmap._sweep
    click(heatmap, "run", clean="5, 17, 3", corrupted="5, 17")
    assert "clean has 3, corrupted has 2" in heatmap._status["error"]["text"]
    assert heatmap._sweep is before


@pytest.mark.parametrize("kind", ["attention", "lens", "heatmap"])
def test_the_code_of_a_view_rebuilds_it(request, session, kind):
    widget = request.getfixturevalue(kind)
    session.interventions.append(iw.Ablate("z", layer=1, head=2))
    {
        "attention": lambda: widget.select(2, 3),
        "lens": lambda: widget.track(44),
        "heatmap": lambda: widget.set(site="z"),
    }[kind]()
    widget.wait(30)
    code = widget.code()
    assert widget._code == code
    with iw.Session(tiny("llama")) as other:
        names = {"iw": iw, "session": other}
        exec(code, names)
        again = names["widget"]
        again.wait(30)
        assert again.code() == code
        for name in ("_baseline_detail", "_grid", "_sweep"):
            if hasattr(widget, name):
                mine, its = getattr(widget, name), getattr(again, name)
                key = {"_baseline_detail": "weights", "_grid": "p", "_sweep": "values"}[name]
                assert np.allclose(array(mine[key]), array(its[key]), atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "lens", "heatmap"])
def test_the_static_frame_is_small_and_model_text_is_text(request, session, kind, monkeypatch):
    monkeypatch.setattr(session, "show_token", lambda i: "<script>alert(1)</script>")
    widget = request.getfixturevalue(kind)
    widget.refresh()
    widget.wait(30)
    data, _ = widget._repr_mimebundle_()
    assert "<script" not in data["text/html"]
    assert len(data["text/html"]) < 100_000
    assert data["text/plain"] == f"{type(widget).__name__}(LlamaForCausalLM)"
    assert "application/vnd.jupyter.widget-view+json" in data


def test_figures_show_what_is_on_the_screen(session, attention, lens, heatmap):
    heat = attention.figure().data[0]
    assert np.nanmax(heat.z) == pytest.approx(float(iw.attention_patterns(session, PROMPT)[1, 2].max()), abs=1e-6)
    assert np.isnan(heat.z[0, 1])
    assert lens.figure().data[0].z.shape == (5, 8)
    share = iw.patch_sweep(session, PROMPT, CORRUPTED)
    assert np.allclose(heatmap.figure().data[0].z, share, atol=1e-5)


def test_requests_that_a_busy_kernel_missed_are_carried_out_once_and_in_order(session, attention):
    first = {"id": 2001, "op": "ablate", "layer": 0, "head": 1}
    click(attention, **first)
    second = {"id": 2002, "op": "ablate", "layer": 1, "head": 0}
    nonsense = [{"id": "2003", "op": "clear"}, 5, {"op": "clear"}]
    click(attention, id=2004, op="ablate", layer=1, head=1, before=[first, second, *nonsense])
    assert [(e.layer, e.head) for e in session.interventions] == [(0, 1), (1, 0), (1, 1)]
    click(attention, id=2005, op="undo", before="clear")
    assert [(e.layer, e.head) for e in session.interventions] == [(0, 1), (1, 0)]


def said_again(widget, request):
    """A request as the page says it once more, past the trait that its host holds back."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": {"request": request}}}, "buffers": []})


def test_a_request_that_is_said_twice_is_carried_out_once_whichever_comes_first(session, attention):
    first = {"id": 5, "op": "ablate", "layer": 0, "head": 0}
    second = {"id": 6, "op": "ablate", "layer": 1, "head": 0, "before": [first]}
    said_again(attention, first)
    assert len(session.interventions) == 1
    said_again(attention, first)
    click(attention, **first)
    assert len(session.interventions) == 1
    said_again(attention, second)
    click(attention, **second)
    assert len(session.interventions) == 2
    third = {"id": 7, "op": "ablate", "layer": 0, "head": 0}
    click(attention, **third)
    said_again(attention, third)
    assert [e.intervention.layer for e in session.interventions.entries] == [1]
    attention.wait(60)


@pytest.mark.parametrize(
    "content", [None, [], {"request": 3}, {"request": {"id": [1]}}, {"request": {"op": "undo"}}, {}]
)
def test_what_is_no_request_is_passed_over(session, attention, content):
    attention._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert not session.interventions.entries
    assert attention._status["error"] is None


def test_a_newer_request_wins_over_an_older_one(session, attention):
    release, entered = threading.Event(), threading.Event()

    def wait_in_block(module, args):
        if threading.current_thread().name == "interpwidgets-worker" and not entered.is_set():
            entered.set()
            release.wait(30)

    handle = session.model.model.layers[2].register_forward_pre_hook(wait_in_block)
    attention.run([7, 8, 9])
    assert entered.wait(30)
    attention.run([10, 11, 12, 13])
    release.set()
    attention.wait(30)
    handle.remove()
    assert [t["id"] for t in attention._prompt["tokens"]] == [10, 11, 12, 13]


def test_stop_keeps_the_last_picture(session, heatmap):
    release, entered = threading.Event(), threading.Event()

    def wait_in_block(module, args):
        if threading.current_thread().name == "interpwidgets-worker" and not entered.is_set():
            entered.set()
            release.wait(30)

    before = array(heatmap._sweep["values"]).copy()
    handle = session.model.model.layers[2].register_forward_pre_hook(wait_in_block)
    click(heatmap, "set", metric="probability")
    assert entered.wait(30)
    click(heatmap, "stop")
    release.set()
    heatmap.wait(30)
    handle.remove()
    assert heatmap._status["state"] == "cancelled"
    assert np.array_equal(array(heatmap._sweep["values"]), before)


def test_clicks_from_many_threads_end_in_one_consistent_picture(session, attention, lens, heatmap):
    def work(seed):
        draw = np.random.default_rng(seed)
        for _ in range(6):
            attention.ablate(int(draw.integers(4)), int(draw.integers(4)))
            lens.refresh()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for widget in (attention, lens, heatmap):
        widget.wait(60)
    logits = session.run(PROMPT, interventions=list(session.interventions)).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    for row in attention._predictions["rows"]:
        shown = row.get("now", row["baseline"])
        assert shown == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)


def test_a_change_that_is_submitted_late_does_not_replace_the_picture_of_a_newer_one(session, attention):
    submit, stalled, go_on = attention._submit, threading.Event(), threading.Event()

    def submit_late(compute, lane="view"):
        attention._submit = submit
        stalled.set()
        go_on.wait(1)
        submit(compute, lane)

    attention._submit = submit_late
    first = threading.Thread(target=lambda: attention.ablate(0, 1))
    first.start()
    assert stalled.wait(30)
    attention.ablate(1, 2)
    go_on.set()
    first.join(30)
    attention.wait(30)
    assert attention._overview["ablated"] == [[0, 1, "zero"], [1, 2, "zero"]]
    logits = session.run(PROMPT, interventions=list(session.interventions)).logits.values[-1]
    probabilities = torch.from_numpy(logits).softmax(-1)
    assert attention._predictions["rows"]
    for row in attention._predictions["rows"]:
        assert row["now"] == pytest.approx(float(probabilities[row["id"]]), abs=1e-6)


def test_a_widget_whose_views_are_gone_computes_nothing_until_it_is_seen_again(session, attention):
    attention._view_count = 1
    attention._view_count = 0
    before = attention._overview
    session.interventions.append(iw.Ablate("z", layer=0, head=0))
    assert attention._overview is before
    attention._view_count = 1
    attention.wait(30)
    assert attention._overview["ablated"] == [[0, 0, "zero"]]


def test_closing_the_session_closes_its_widgets(session, attention):
    session.close()
    assert attention._status["state"] == "closed"
    assert attention not in session.widgets
    with pytest.raises(RuntimeError, match="closed"):
        session.worker.submit("x", lambda ticket: None)


def test_a_parallel_architecture_offers_no_resid_mid():
    with iw.Session(tiny("phi")) as session:
        widget = iw.PatchingHeatmap(session, clean=PROMPT, corrupted=CORRUPTED)
        widget.wait(30)
        assert "resid_mid" not in widget._sites
        click(widget, "set", site="resid_mid")
        assert "cannot be patched here" in widget._status["error"]["text"]


def test_what_is_sent_stays_small(attention, lens, heatmap):
    for widget in (attention, lens, heatmap):
        assert len(widget._esm) < 60_000
        assert len(widget._esm) + len(widget._css) < 100_000


def test_a_patch_that_is_let_go_of_while_it_runs_does_not_come_back(session, heatmap):
    heatmap.patch([{"site": "resid_pre", "layer": 1, "head": None, "position": 3}])
    heatmap.patch([])
    session.run(PROMPT)
    heatmap.refresh()
    heatmap.wait(30)
    assert heatmap._patched is None


def test_a_failed_run_is_drawn_until_it_has_run_whatever_is_clicked_meanwhile(session, attention):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    click(attention, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="position 6 is out of range"):
        attention.wait(30)
    click(attention, "select", layer=2, head=1)
    assert "position 6 is out of range" in attention._status["error"]["text"]
    click(attention, "select", layer=99, head=1)
    assert "no attention head 1 in layer 99" in attention._status["error"]["text"]
    click(attention, "select", layer=2, head=2)
    assert "position 6 is out of range" in attention._status["error"]["text"]
    with pytest.raises(ValueError, match="position 6 is out of range"):
        attention.wait(30)
    assert "The picture is from the run before" in attention.static_frame()
    click(attention, "clear")
    attention.wait(30)
    assert attention._status["error"] is None
    assert "from the run before" not in attention.static_frame()


def test_what_was_stopped_is_an_older_picture_until_it_has_run(session, attention):
    click(attention, "stop")
    assert attention._status["state"] == "idle"  # there was nothing to stop
    with session.publishing:  # the run cannot end
        click(attention, "ablate", layer=1, head=1)
        click(attention, "stop")
        assert attention._status["state"] == "cancelled"
        click(attention, "select", layer=1, head=3)
        assert attention._status["state"] == "cancelled"
    attention.refresh()
    attention.wait(30)
    assert attention._status["state"] == "idle"


def test_a_baseline_that_a_prompt_does_not_have_is_said_to_be_in_the_way(session, attention):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    session.interventions.pin()
    session.interventions.clear()
    click(attention, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="out of range"):
        attention.wait(30)
    assert "baseline addresses a place" in attention._status["error"]["hint"]
    assert "unpin" in attention._status["error"]["hint"]


def test_the_lens_names_the_tokens_that_its_numbers_are_of(session, lens):
    session.interventions.append(iw.Ablate("z", layer=1, head=0, position=6))
    lens.wait(30)
    table, columns = lens.to_csv(), lens._heatmap().columns
    click(lens, "run", prompt=PROMPT[:3])
    with pytest.raises(ValueError, match="out of range"):
        lens.wait(30)
    assert list(lens._heatmap().columns) == list(columns)
    assert lens._as_csv() == table
    click(lens, "to_csv")


def test_an_observer_of_the_result_that_fails_is_told_of_and_the_picture_is_whole(session, attention):
    def fail(change):
        raise ZeroDivisionError("an observer's own bug")

    attention.observe(fail, "result")
    click(attention, "ablate", layer=1, head=1)
    with pytest.raises(ZeroDivisionError, match="own bug"):
        attention.wait(30)
    assert attention._status["error"]["title"] == "An observer of the result failed: ZeroDivisionError"
    assert attention._overview["acts"]
    assert set(attention._predictions["rows"][0]) >= {"baseline", "now"}
    assert attention.history[0]["current"]
    assert len(attention.history) == 2
    attention.unobserve(fail, "result")
    click(attention, "select", layer=2, head=1)
    attention.wait(30)


def test_an_observer_of_the_result_may_run_something_else(session, attention):
    seen = []

    def follow(change):
        seen.append(len(change["new"]["query"]))
        if len(seen) == 1:
            attention.run(CORRUPTED)

    attention.observe(follow, "result")
    attention.run(PROMPT[:5])
    while len(seen) < 2:
        attention.wait(30)
    assert seen == [5, 8]
    assert [token["id"] for token in attention._prompt["tokens"]] == CORRUPTED
    prompts = [visit["prompt"] for visit in attention.history]
    assert prompts == [" ".join(map(str, prompt)) for prompt in (CORRUPTED, PROMPT[:5], PROMPT)]
