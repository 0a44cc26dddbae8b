"""Sweeps that another process runs, given nothing but bytes; and bytes that are not to be trusted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

import interpwidgets as iw
from interpwidgets.engine import request as request_module
from interpwidgets.engine.executor import Remote, answer
from interpwidgets.engine.forward import Cancelled
from interpwidgets.engine.jobs import Ticket
from interpwidgets.engine.request import SweepRequest, pack, unpack
from interpwidgets.engine.version import fingerprint
from tests.models import encoder_decoder, tiny
from tests.twin import sweep_one_by_one
from tests.worker import Worker

CLEAN = (5, 17, 3, 44, 17, 60, 8, 91)
CORRUPTED = (5, 17, 3, 21, 17, 60, 9, 91)
ANSWER, FOIL = 7, 11
DIFFERENCE = iw.LogitDifference(ANSWER, FOIL)
ROWS = (
    (iw.Ablate("z", layer=3, head=1),),
    (iw.Ablate("z", layer=(1, -1), head=slice(1, None), how="mean", reference=[CLEAN, CORRUPTED]),),
    (iw.Ablate("resid_mid", layer=1, how="resample", reference=CORRUPTED),),
    (iw.Patch("resid_pre", layer=2, position=slice(3, None, 2), source=CORRUPTED),),
    (iw.Patch("z", layer=2, position=4, head=0, source=np.linspace(-1, 1, 8)),),
    (iw.Patch("resid_post", layer=1, position=3, source=CLEAN, source_layer=0, source_position=2),),
    (iw.CutEdge(layer=1, head=0, query=7, key=(3, 4), renormalize=False), iw.Scale("mlp_post", -1, layer=3)),
    (iw.Steer("resid_mid", np.ones(32), layer=0, position=5, strength=0.25),),
    (iw.Noise("resid_pre", 0.5, layer=2, seed=1),),
    (),
)
REQUEST = SweepRequest(CLEAN, ROWS, DIFFERENCE, (iw.Ablate("z", layer=0, head=2),), 7, 2)
MODEL = {"class": "LlamaForCausalLM", "settings": "0", "weights": "1"}


@pytest.fixture(scope="module")
def session():
    with iw.Session(tiny("llama")) as session:
        yield session


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny("llama").save_pretrained(folder)
    worker = Worker(folder)
    yield worker
    worker.close()


@pytest.fixture
def remote(session, worker):
    session.executor = Remote(session.model, worker.ask)
    yield session
    session.executor = None


@pytest.fixture
def here(session):
    """A worker in this process, for what needs no second one."""
    session.executor = Remote(session.model, lambda data: messages(session, data))
    yield session
    session.executor = None


def messages(session, data):
    sent = []
    answer(session, session.model, data, sent.append)
    yield from sent


def refusal(session, data):
    """What a worker says to bytes that it refuses."""
    (message,) = messages(session, data)
    said, _ = unpack(message)
    assert said["message"] == "error"
    assert said["kind"] == "ValueError"
    return said["text"]


def altered(**changes):
    said, arrays = unpack(REQUEST.to_bytes(MODEL))
    return pack(said | changes, arrays)


@pytest.mark.parametrize("metric", ["logit_diff", "log_probability", "probability", "kl"])
@pytest.mark.parametrize("site", ["resid_pre", "z"])
def test_a_second_process_gives_the_same_map(remote, site, metric):
    asked = (remote, CLEAN, CORRUPTED, site, ANSWER, FOIL, metric)
    found = iw.patch_sweep(*asked)
    remote.executor = None
    expected = iw.patch_sweep(*asked)
    assert np.abs(found.values - expected.values).max() <= 1e-6 * np.abs(expected.values).max()
    assert found.attrs == expected.attrs


def test_a_second_process_runs_rows_of_every_kind_under_interventions(remote):
    acting = REQUEST.interventions
    found = remote.sweep(CLEAN, ROWS, DIFFERENCE, interventions=acting)
    remote.executor = None
    expected = remote.sweep(CLEAN, ROWS, DIFFERENCE, interventions=acting)
    assert np.abs(found.values - expected.values).max() <= 1e-6 * np.abs(expected.values).max()
    assert found.base == pytest.approx(expected.base, rel=1e-6)
    # Sources are read under what acts, as the twin's are not: these rows have none.
    own = [0, 4, 6, 7, 8, 9]
    twin = sweep_one_by_one(remote, CLEAN, [ROWS[i] for i in own], DIFFERENCE, acting)
    assert np.abs(found.values[own] - twin).max() <= 1e-5 * np.abs(twin).max()


@pytest.mark.parametrize("places", [{"site": "mlp_post"}, {"site": "pattern", "head": 2}])
def test_neurons_and_edges_travel_as_places_and_not_as_activations(remote, places):
    asked = []
    ask, remote.executor._ask = remote.executor._ask, lambda data: asked.append(data) or ask(data)
    ways = [
        lambda: iw.patch_sweep(remote, CLEAN, CORRUPTED, answer=ANSWER, foil=FOIL, layer=1, **places),
        lambda: iw.ablation_sweep(remote, CLEAN, answer=ANSWER, foil=FOIL, layer=1, **places),
        lambda: iw.ablation_sweep(
            remote, CLEAN, how="resample", reference=CORRUPTED, answer=ANSWER, foil=FOIL, layer=1, **places
        ),
    ]
    found = [way().values for way in ways]
    remote.executor = None
    assert all(np.allclose(a, way().values, atol=1e-5, equal_nan=True) for a, way in zip(found, ways, strict=True))
    assert [{a.dtype for a in unpack(data)[1].values()} for data in asked] == [{np.dtype("int64")}] * 3


def test_progress_and_partial_values_come_as_they_do_here(remote):
    rows = [[iw.Ablate("z", layer=i % 4, head=h, position=p)] for i in range(4) for h in range(4) for p in range(8)] * 2
    done, parts = [], []
    final = remote.sweep(CLEAN, rows, DIFFERENCE, progress=lambda *p: done.append(p), partial=parts.append).values
    assert done[-1] == (len(rows), len(rows))
    assert [d for d, _ in done] == sorted(d for d, _ in done)
    known = [int(np.isfinite(part).sum()) for part in parts]
    assert len(known) > 1
    assert known == sorted(known)
    assert known[-1] == len(rows)
    assert all(np.array_equal(part[np.isfinite(part)], final[np.isfinite(part)]) for part in parts)


def test_the_heatmap_shows_what_the_worker_computed(remote):
    asked = []
    ask, remote.executor._ask = remote.executor._ask, lambda data: asked.append(data) or ask(data)
    widget = iw.PatchingHeatmap(remote, clean=CLEAN, corrupted=CORRUPTED)
    widget.wait(60)
    _, site, _, found = widget._map
    widget.close()
    remote.executor = None
    assert len(asked) == 1
    expected = iw.patch_sweep(remote, CLEAN, CORRUPTED, site, normalize=False).values
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_cancelled_sweep_lets_go_of_the_worker(session):
    closed = []

    def ask(data):
        try:
            yield from messages(session, data)
        finally:
            closed.append(True)

    def job(_):
        with pytest.raises(Cancelled):
            Remote(session.model, ask).execute(REQUEST, progress=lambda *_: ticket.cancel())

    ticket = Ticket(job)
    ticket.run()
    assert closed == [True]


def test_what_the_worker_raises_is_raised_here(here):
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        here.sweep(CLEAN, [[iw.Ablate("z", layer=9)]], DIFFERENCE)
    with pytest.raises(ValueError, match="answer=97 is out of range: the vocabulary has ids 0 to 96"):
        here.sweep(CLEAN, [[]], iw.LogitDifference(97, 1))
    with pytest.raises(ValueError, match="the reference is over 5 tokens, the vocabulary has 97"):
        here.sweep(CLEAN, [[]], iw.KL(np.zeros(5)))


def test_a_worker_that_ends_or_talks_nonsense_is_told(session):
    cut = list(messages(session, REQUEST.to_bytes(fingerprint(session.model))))[:-1]
    for sent, said in (
        (cut, "ended before its sweep did"),
        ([b"nonsense"], "cannot be read"),
        ([pack({"version": 1, "message": "result", "base": 0.0}, {"values": np.zeros(2)})], "10 values are needed"),
        ([pack({"version": 1, "message": "result", "base": "0"}, {})], "not of version 1"),
        ([pack({"version": 1, "message": "error", "kind": "OSError", "text": "disk"}, {})], "disk"),
    ):
        with pytest.raises(RuntimeError, match=said):
            Remote(session.model, lambda data, sent=sent: (m for m in sent)).execute(REQUEST)


def test_a_metric_that_is_a_function_is_refused_where_it_would_have_to_travel(here):
    with pytest.raises(TypeError, match=r"function of this process.*give one of iw\.LogitDifference, iw\.LogProb"):
        here.sweep(CLEAN, [[]], lambda logits: logits[:, 0])


def test_prompts_travel_as_token_ids():
    spelled = SweepRequest(
        "a", ((iw.Patch("z", layer=0, source="b"), iw.Ablate("z", how="mean", reference=["c", "d"])),), DIFFERENCE,
        (iw.Ablate("z", how="resample", reference="e"), iw.Ablate("z", how="mean")),
    ).in_ids(lambda text: (ord(text),))  # fmt: skip
    (patch, mean), (resample, own) = spelled.rows[0], spelled.interventions
    assert (spelled.prompt, patch.source, resample.reference, own.reference) == ((97,), (98,), (101,), None)
    assert mean.reference == ((99,), (100,))


def test_a_model_with_an_encoder_is_asked_likewise():
    with iw.Session(encoder_decoder("t5")) as session:
        prompt = iw.SourceTarget((4, 8, 15), (0, 16, 23))
        rows = [[iw.Ablate("encoder.resid_post", layer=1, position=p)] for p in range(3)]
        rows += [[iw.CutEdge(layer=0, head=1, key=2, stack="cross")]]
        expected = session.sweep(prompt, rows, DIFFERENCE)
        session.executor = Remote(session.model, lambda data: messages(session, data))
        found = session.sweep(prompt, rows, DIFFERENCE)
        assert np.array_equal(found.values, expected.values)


def test_a_request_is_read_as_it_was_written():
    for metric in (DIFFERENCE, iw.LogProbability(3), iw.Probability(0), iw.KL(torch.zeros(97).log_softmax(-1))):
        asked = replace(REQUEST, metric=metric)
        assert SweepRequest.from_bytes(asked.to_bytes(MODEL)) == (asked, MODEL)


def test_what_rows_have_in_common_travels_once():
    source = tuple(range(1000))
    rows = tuple((iw.Patch("resid_pre", layer=i, position=p, source=source),) for i in range(30) for p in range(1000))
    asked = SweepRequest(source, rows, DIFFERENCE)
    assert len(asked.to_bytes(MODEL)) < 300 * len(rows)


@pytest.mark.parametrize("change", ["weights", "settings"])
def test_another_model_is_refused_with_what_differs(session, change):
    other = tiny("llama", seed=change == "weights", rms_norm_eps=1e-3 if change == "settings" else 1e-6)
    assert fingerprint(tiny("llama")) == fingerprint(session.model)
    text = refusal(session, REQUEST.to_bytes(fingerprint(other)))
    assert "the request is for another model" in text
    assert [name for name in ("class", "settings", "weights") if name in text] == [change]


def test_weights_edited_here_are_not_those_of_the_worker(remote):
    with torch.no_grad():
        remote.model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    try:
        with pytest.raises(ValueError, match="another model than this worker's: weights"):
            remote.sweep(CLEAN, [[]], DIFFERENCE)
    finally:
        with torch.no_grad():
            remote.model.model.layers[0].mlp.up_proj.weight.div_(1.5)


ARRAY = {"array": "0" * 64, "shape": [1]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "this is no message"),
        (b"\x80\x04K\x01.", "this is no message"),
        (b"\xff" * 8 + b"{}", "this is no message"),
        (save({"a": np.zeros(3, np.float32)}), "this is no message: \"'json'\""),
        (save({"json": np.zeros(3, np.float32)}), "at most"),
        (pack([], {}), "version None; this worker reads version 1"),
        (pack({"version": 10**4000}, {}), "version a long number"),
        (altered(version=2), "version 2; this worker reads version 1"),
        (altered(ask="run"), "asks for 'run'; this worker runs 'sweep'"),
        (altered(budget=1), "unknown 'budget'; its keys are answer_position, ask"),
        (altered(model="m"), "a fingerprint is needed"),
        (altered(rows=None), "rows: a list is needed"),
        (altered(rows=[{}]), "row 0: a list is needed"),
        (altered(rows=[[{"type": "Patch"}]]), "Patch has no 'entry'"),
        (altered(rows=[[{"type": "patch"}]]), "did you mean 'Patch'"),
        (altered(rows=[[{"type": []}]]), "unknown type"),
        (altered(metric=DIFFERENCE.to_json() | {"answer": True}), "True: int is needed"),
        (altered(metric=iw.Probability(1).to_json() | {"answer": "1"}), "'1': int is needed"),
        (altered(metric={"type": "KL", "reference": ARRAY}), "there is no array"),
        (altered(prompt={"ids": 3}), "there is no array 3 of int64"),
        (altered(prompt=[1, 2]), "token ids: an object is needed"),
        (altered(answer_position=1.0), "answer_position=1.0: int is needed"),
        (altered(streams=1), "streams=1: bool is needed"),
        (altered(priority=[True]), "priority=[True]: numbers are needed"),
        (altered(priority=None), "priority: a list is needed"),
        (altered(interventions=[iw.Scale("z", 1.0).to_json() | {"layer": {"slice": [1, 2]}}]), "a slice is"),
        (altered(interventions=[iw.Scale("z", 1.0).to_json() | {"site": "zz"}]), "unknown site 'zz'"),
    ],
    ids=lambda x: x[:40] if isinstance(x, str) else "",
)
def test_requests_that_cannot_be_read_are_refused(session, data, message):
    assert message in refusal(session, data)


def test_hostile_sizes_are_refused(monkeypatch):
    kl = iw.KL(np.zeros(4))
    said, arrays = unpack(replace(REQUEST, metric=kl).to_bytes(MODEL))
    name = said["metric"]["reference"]["array"]
    for shape in ([10**12], [2**62, 4], [0], [-4, -1], [1] * 9, [True, 4], "4", [2, 3]):
        said["metric"]["reference"]["shape"] = shape
        with pytest.raises(ValueError, match="4 numbers have no shape"):
            SweepRequest.from_bytes(pack(said, arrays))
    arrays[name] = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="is not one of float32 or int64 with that sha256"):
        SweepRequest.from_bytes(pack(said, arrays))
    header = json.dumps({"json": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}).encode()
    with pytest.raises(ValueError, match="this is no message"):
        SweepRequest.from_bytes(len(header).to_bytes(8, "little") + header)
    deep = np.frombuffer(b"[" * 100_000 + b"]" * 100_000, np.uint8)
    with pytest.raises(ValueError, match="nested too deeply"):
        SweepRequest.from_bytes(save({"json": deep}))
    monkeypatch.setattr(request_module, "_MOST_JSON", 100)
    with pytest.raises(ValueError, match="at most 100 bytes of JSON"):
        SweepRequest.from_bytes(REQUEST.to_bytes(MODEL))
    monkeypatch.setattr(request_module, "_MOST_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100"):
        SweepRequest.from_bytes(REQUEST.to_bytes(MODEL))


WRITTEN = REQUEST.to_bytes(MODEL)
SAID, ARRAYS = unpack(WRITTEN)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(sorted(ARRAYS))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "slice", "array", "shape", "ids", "source", "target", "x"]), inner)
    ),
    max_leaves=8,
)


def places(value, path=()):
    """The ways to everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(SAID))[1:]


@st.composite
def altered_requests(draw, model):
    """A request for this model of which up to three things are something else, or are gone."""
    said = json.loads(json.dumps(SAID | {"model": model}))
    changes = st.tuples(st.sampled_from(PLACES), VALUES, st.booleans())
    for path, value, remove in draw(st.lists(changes, min_size=1, max_size=3)):
        at = said
        try:
            for key in path[:-1]:
                at = at[key]
            if remove:
                del at[path[-1]]
            else:
                at[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return pack(said, ARRAYS)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(altered_requests(MODEL))
def test_altered_requests_are_read_or_refused_with_a_value_error(data):
    read_or_refused(data)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(WRITTEN) - 1), st.binary(min_size=1, max_size=9)))
def test_altered_bytes_are_read_or_refused_with_a_value_error(change):
    if isinstance(change, tuple):
        at, piece = change
        change = WRITTEN[:at] + piece + WRITTEN[at + len(piece) :]
    read_or_refused(change)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_worker_answers_whatever_it_is_asked(session, data):
    *_, last = messages(session, data.draw(altered_requests(fingerprint(session.model))))
    assert unpack(last)[0]["message"] in ("result", "error")


def read_or_refused(data):
    try:
        request, _ = SweepRequest.from_bytes(data)
    except ValueError:
        return
    assert SweepRequest.from_bytes(request.to_bytes(MODEL))[0].rows == request.rows


def test_the_container_is_one_that_others_can_read():
    arrays = load(WRITTEN)
    assert json.loads(arrays.pop("json").tobytes())["ask"] == "sweep"
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32), np.dtype(np.int64)}


def test_an_answer_before_the_first_difference_is_the_same_in_all_cells(session):
    swept = iw.patch_sweep(session, CLEAN, CORRUPTED, "resid_pre", ANSWER, FOIL, normalize=False, answer_position=1)
    expected = float(DIFFERENCE(torch.from_numpy(session.run(CLEAN).logits.values[1:2]))[0])
    assert np.allclose(swept, expected, rtol=1e-5)
