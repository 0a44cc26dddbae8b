"""What is asked of every family. Oracles: Hugging Face's own outputs, plain torch hooks, one forward pass per cell."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

import interpwidgets as iw
from interpwidgets.session import NoEffectWarning

CLEAN = (5, 17, 33, 48, 61, 70, 80)
CORRUPTED = (5, 17, 42, 48, 61, 70, 80)
ANSWER, FOIL = 11, 23
ANSWERED = 4
"""Where a masked language model's answer is read; a causal one's is at the end."""
TOLERANCE = 2e-5
"""Of the largest value compared: float32, and sums in another order than Hugging Face's."""


class Absent(Exception):
    """The family has no such thing, and the session says so; the reason."""


def same(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray, what: str) -> None:
    """Raise AssertionError unless both are equal within TOLERANCE."""
    a, b = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
    assert a.shape == b.shape, f"{what}: shape {tuple(a.shape)}, not {tuple(b.shape)}"
    assert bool((a.isfinite() == b.isfinite()).all()), f"{what}: not finite in the same places"
    a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
    error = float((a - b).abs().max() / b.abs().max().clamp_min(1.0)) if a.numel() else 0.0
    assert error <= TOLERANCE, f"{what}: off by {error:.1e}"


def plain(model: PreTrainedModel, ids: tuple[int, ...] = CLEAN, **arguments: bool) -> object:
    """Hugging Face's own answer, hooks of the session installed but idle."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False, **arguments)


def layers_with(session: iw.Session, site: str) -> list[int]:
    return [layer for layer in range(session.engine.architecture.n_layers) if site in session.engine.sites(layer)]


def residual(session: iw.Session) -> None:
    """resid_pre and resid_post are Hugging Face's hidden states."""
    out = plain(session.model, output_hidden_states=True)
    hidden = getattr(out, "hidden_states", None)
    n_layers = session.engine.architecture.n_layers
    if hidden is None or len(hidden) != n_layers + 1:
        raise Absent("Hugging Face gives no hidden state per block to compare with")
    run = session.run(CLEAN, capture=["resid_pre", "resid_post"])
    if run.tensor("resid_post", 0).shape == hidden[0][0].shape and bool(
        (run.tensor("resid_post", 0) == hidden[0][0]).all()
    ):
        # State-space models of transformers list what leaves each block, not what enters it.
        for layer in range(n_layers):
            same(run.tensor("resid_post", layer), hidden[layer][0], f"resid_post of layer {layer}")
        return
    for layer in range(n_layers):
        same(run.tensor("resid_pre", layer), hidden[layer][0], f"resid_pre of layer {layer}")
        if layer + 1 < n_layers:
            same(run.tensor("resid_post", layer), hidden[layer + 1][0], f"resid_post of layer {layer}")
    same(run.logits.values, out.logits[0], "logits")


def sums(session: iw.Session) -> None:
    """What attention and MLP are said to add makes up the block's output."""
    found = 0
    for layer in range(session.engine.architecture.n_layers):
        have = session.engine.sites(layer)
        if not {"attn_out", "mlp_out"} <= set(have):
            continue
        found += 1
        sites = [s for s in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out") if s in have]
        run = session.run(CLEAN, capture=[iw.Site(s, layer=layer) for s in sites])
        value = {s: run.tensor(s, layer) for s in sites}
        if "resid_mid" in value:
            for before, added, after in (
                ("resid_pre", "attn_out", "resid_mid"),
                ("resid_mid", "mlp_out", "resid_post"),
            ):
                carried(session, layer, value[before] + value[added], value[after], f"{after} of layer {layer}")
        else:
            total = value["resid_pre"] + value["attn_out"] + value["mlp_out"]
            same(total, value["resid_post"], f"parallel resid_post of layer {layer}")
    if not found:
        raise Absent("no layer whose output is its input plus attention plus MLP")


def edited(session: iw.Session, layer: int, sites: list[str]) -> None:
    """What is written into resid_mid is what the MLP is added to."""
    direction = np.linspace(-1, 1, session.engine.architecture.d_model)
    steer = iw.Steer("resid_mid", layer=layer, direction=direction, strength=0.5)
    run = session.run(CLEAN, capture=[iw.Site(s, layer=layer) for s in sites], interventions=[steer])
    value = {s: run.tensor(s, layer) for s in sites}
    middle = value["resid_pre"] + value["attn_out"] + torch.as_tensor(0.5 * direction, dtype=torch.float32)
    same(value["resid_mid"], middle, f"resid_mid of layer {layer}, steered")
    same(value["resid_mid"] + value["mlp_out"], value["resid_post"], f"resid_post of layer {layer}, resid_mid steered")


def carried(session: iw.Session, layer: int, total: Tensor, after: Tensor, what: str) -> None:
    """The sum is the stream itself; or a module of the block reads it to go on, as blocks that norm after adding do."""
    if equal(total, after):
        return
    read: list[Tensor] = []
    block = session.engine.architecture.blocks[layer].module
    handles = [m.register_forward_pre_hook(lambda module, args: read.extend(args[:1])) for m in block.modules()]
    plain(session.model)
    for handle in handles:
        handle.remove()
    if not any(isinstance(x, Tensor) and x.dim() == 3 and equal(x[0], total) for x in read):
        same(total, after, what)


def equal(a: Tensor, b: Tensor) -> bool:
    try:
        same(a, b, "")
    except AssertionError:
        return False
    return True


def lens(session: iw.Session) -> None:
    """The lens' last row is the model's own prediction, over the whole vocabulary."""
    logits = plain(session.model).logits[0]
    n_vocab = logits.shape[-1]
    read = iw.logit_lens(session, CLEAN, top_k=n_vocab)
    expected = logits.double().softmax(-1).gather(1, torch.as_tensor(read["top_token"].values[-1]).long())
    same(read["top_probability"].values[-1], expected, "last row of the lens")


def pattern(session: iw.Session) -> None:
    """Patterns are what Hugging Face's eager attention gives; rows sum to 1, to less only with an attention sink."""
    layers = layers_with(session, "pattern")
    if not layers:
        raise Absent("no layer with attention weights")
    ours = session.run(CLEAN, capture="pattern")
    for layer in layers:
        rows = ours.tensor("pattern", layer).sum(-1)
        assert float(rows.max()) <= 1 + TOLERANCE, f"rows of layer {layer} sum to {float(rows.max())}"
    theirs = eager_attentions(session.model)
    if theirs is None or not equal(theirs[1], plain(session.model).logits[0]):
        # No weights, or those of another computation: Falcon's eager attention loses its causal mask.
        weighs_values(session, layers)
        return
    weights, _ = theirs
    assert len(weights) == len(layers), f"{len(layers)} layers have a pattern, eager attention gives {len(weights)}"
    for layer, expected in zip(layers, weights, strict=True):
        weight = ours.tensor("pattern", layer).transpose(0, 1)  # (head, query, key)
        sinks = hasattr(session.engine.architecture.blocks[layer].attention, "sinks")
        if sinks and equal(expected.sum(-1), torch.ones(expected.shape[:2])):
            # Hugging Face scales the heads' output by what the sink leaves over; we show it in the weights.
            weight = weight / weight.sum(-1, keepdim=True)
        same(weight, expected, f"pattern of layer {layer}")


def weighs_values(session: iw.Session, layers: list[int]) -> None:
    """The heads' outputs are the values, weighted by the pattern."""
    if any("v" not in session.engine.sites(layer) for layer in layers):
        raise Absent("Hugging Face gives no attention weights, and values are not seen: nothing to compare with")
    run = session.run(CLEAN, capture=["pattern", "v", "z"])
    for layer in layers:
        weight = run.tensor("pattern", layer).transpose(0, 1)  # (head, query, key)
        value = run.tensor("v", layer).transpose(0, 1)  # (kv head, key, d_head)
        value = value.repeat_interleave(weight.shape[0] // value.shape[0], dim=0)
        same((weight @ value).transpose(0, 1), run.tensor("z", layer), f"weighted values of layer {layer}")


def eager_attentions(model: PreTrainedModel) -> tuple[list[Tensor], Tensor] | None:
    """Weights (head, query, key) of each layer that has them, and the logits, of a copy that runs eager attention."""
    twin = copy.deepcopy(model)
    try:
        twin.set_attn_implementation("eager")
        out = plain(twin, output_attentions=True)
    except (ValueError, NotImplementedError, AttributeError, TypeError, RuntimeError):
        return None
    square = (len(CLEAN), len(CLEAN))
    given = getattr(out, "attentions", None) or ()
    weights = [w[0] for w in given if isinstance(w, Tensor) and w.dim() == 4 and w.shape[-2:] == square]
    return (weights, out.logits[0]) if weights else None


def heads(session: iw.Session) -> None:
    """The heads' results and the bias make up what the output projection gives; k and v have the model's own heads."""
    layers = layers_with(session, "result")
    if not layers:
        raise Absent("no output projection that reads the heads side by side")
    run = session.run(CLEAN, capture=["result", "z", *(["k"] if layers_with(session, "k") else [])])
    architecture = session.engine.architecture
    for layer in layers:
        projection = architecture.blocks[layer].projection
        seen: list[Tensor] = []
        handle = projection.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
        plain(session.model)
        handle.remove()
        bias = 0 if getattr(projection, "bias", None) is None else projection.bias
        total = run.tensor("result", layer).sum(1) + bias  # (position, d_model)
        same(total, seen[0].reshape(total.shape), f"sum of the results of layer {layer}")
        assert run.tensor("z", layer).shape[1] == architecture.n_heads[layer]
        if "k" in session.engine.sites(layer):
            assert run.tensor("k", layer).shape[1] == architecture.n_kv_heads[layer]


def patching(session: iw.Session) -> None:
    """Patches and null experiments do what they say, and nothing outside the causal cone."""
    clean = plain(session.model).logits[0]
    architecture = session.engine.architecture
    middle = architecture.n_layers // 2
    zeros = np.zeros(architecture.d_model)
    for nothing in (
        iw.Patch("resid_pre", layer=middle, source=CLEAN),
        iw.Scale("resid_post", layer=middle, factor=1.0),
        iw.Steer("resid_post", layer=middle, direction=zeros + 1, strength=0.0),
    ):
        same(session.run(CLEAN, interventions=[nothing]).logits.values, clean, f"{type(nothing).__name__} by nothing")
    hidden = session.run(CLEAN, capture="resid_pre")
    ablate = iw.Ablate("resid_pre", layer=middle, position=3)
    disturbed = session.run(CLEAN, interventions=[ablate], capture="resid_pre")
    for layer in range(middle):
        same(disturbed.tensor("resid_pre", layer), hidden.tensor("resid_pre", layer), f"layer {layer} above {ablate}")
    if session.causal:
        same(disturbed.logits.values[:3], clean[:3], "logits before the ablated position")
    assert np.abs(disturbed.logits.values[3:] - clean[3:].numpy()).max() > 0, "an ablated position changes nothing"
    restore = iw.Patch("resid_pre", layer=0, source=CLEAN)
    restored = session.run(CORRUPTED, interventions=[restore]).logits.values
    if not tokens_enter_elsewhere(session):
        same(restored, clean, "the corrupted run with all of block 0's input restored")


def tokens_enter_elsewhere(session: iw.Session) -> bool:
    """Whether blocks are given something else that depends on the tokens, such as Gemma 4's per-layer embeddings."""
    given: list[list[Tensor]] = []

    def keep(module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        given[-1].extend(x for x in (*args[1:], *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point())

    blocks = [b.module for b in session.engine.architecture.blocks]
    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    for ids in (CLEAN, CORRUPTED):
        given.append([])
        plain(session.model, ids)
    for handle in handles:
        handle.remove()
    return not all(equal(a, b) for a, b in zip(*given, strict=True))


def ablation(session: iw.Session) -> None:
    """Ablating a head is what zeroing its part of the output projection's input is."""
    layers = layers_with(session, "result")
    if not layers:
        raise Absent("no output projection that reads the heads side by side")
    layer, head = layers[0], 1
    architecture = session.engine.architecture
    width = architecture.d_head[layer]
    part = slice(head * width, (head + 1) * width)
    seen: list[Tensor] = []

    def see(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0].clone())
        x = args[0].clone()
        x[..., part] = 0
        return (x, *args[1:])

    handle = architecture.blocks[layer].projection.register_forward_pre_hook(see)
    expected = plain(session.model).logits[0]
    ablated = session.run(CLEAN, interventions=[iw.Ablate("z", layer=layer, head=head)])
    handle.remove()
    before, after = seen[0], seen[-1]
    assert not after[..., part].any(), "the projection still reads the ablated head"
    others = [i for i in range(before.shape[-1]) if not part.start <= i < part.stop]
    if not equal(after[..., others], before[..., others]):
        raise Absent("a norm between z and the output projection: the other heads change with an ablated one")
    same(ablated.logits.values, expected, f"head {head} of layer {layer} ablated")
    assert not ablated.idle


def edges(session: iw.Session) -> None:
    """A cut edge is out of the pattern, the rest of its row takes its place, and nothing before it changes."""
    layers = layers_with(session, "pattern")
    if not layers:
        raise Absent("no layer with attention weights")
    layer, query = layers[0], 5
    before = session.run(CLEAN, capture="pattern")
    # An edge that matters, and that is not all of its row: what is left is scaled up.
    head, key = divmod(int((before.tensor("pattern", layer)[query] - 0.3).abs().argmin()), len(CLEAN))
    row = before.tensor("pattern", layer)[query, head]
    cut = iw.CutEdge(layer=layer, head=head, query=query, key=key)
    after = session.run(CLEAN, capture="pattern", interventions=[cut])
    new = after.tensor("pattern", layer)  # (query, head, key)
    expected = before.tensor("pattern", layer).clone()
    expected[query, head, key] = 0
    if not hasattr(session.engine.architecture.blocks[layer].attention, "sinks"):
        expected[query, head] *= 1 / (1 - row[key])
        same(new, expected, f"pattern after {cut!r}")
    assert float(new[query, head, key]) == 0
    if session.causal:
        same(after.logits.values[:query], before.logits.values[:query], "logits before the cut edge's query")
    assert np.abs(after.logits.values[query:] - before.logits.values[query:]).max() > 0, "a cut edge changes nothing"


def sweep(session: iw.Session) -> None:
    """The sweep of every cell in one pass is the map of one forward pass per cell."""
    for site in ("resid_pre", "z"):
        layers = layers_with(session, site)
        if not layers:
            continue
        swept = iw.patch_sweep(
            session, CLEAN, CORRUPTED, site=site, answer=ANSWER, foil=FOIL, normalize=False,
            answer_position=answered(session),
        )  # fmt: skip
        assert list(swept["layer"].values) == layers
        for row, patches in zip(swept.values, cells(session, site, layers), strict=True):
            same(row[: len(patches)], np.array([difference(session, patch) for patch in patches]), f"{site} sweep")
            assert np.isnan(row[len(patches) :]).all()


def cells(session: iw.Session, site: str, layers: list[int]) -> Iterator[list[iw.Patch]]:
    for layer in layers:
        axis = "position" if site == "resid_pre" else "head"
        count = len(CLEAN) if site == "resid_pre" else session.engine.architecture.n_heads[layer]
        yield [iw.Patch(site, layer=layer, source=CLEAN, **{axis: i}) for i in range(count)]


def difference(session: iw.Session, patch: iw.Patch) -> float:
    logits = session.run(CORRUPTED, interventions=[patch]).logits.values[answered(session)].astype(float)
    return float(logits[ANSWER] - logits[FOIL])


def resume(session: iw.Session) -> None:
    """A run that goes on from a kept one, at any block, is the run from the start."""
    if not session.engine.resumes:
        raise Absent("blocks read more from above than the stream")
    tokens = session.tokenize(CLEAN)
    session.ask(tokens, (iw.Site("resid_pre"),))
    for layer in range(1, session.engine.architecture.n_layers):
        steered = (iw.Scale("resid_post", layer=layer, factor=1.5),)
        late = session.ask(tokens, (), steered, all_logits=True).logits.values
        same(late, session.run(CLEAN, interventions=steered).logits.values, f"a run that goes on at block {layer}")


def answered(session: iw.Session) -> int:
    return len(CLEAN) - 1 if session.causal else ANSWERED


def generation(session: iw.Session) -> None:
    """Greedy generation is Hugging Face's."""
    if not session.causal:
        raise Absent("a masked language model does not continue a prompt")
    ids = torch.tensor([CLEAN])
    try:
        expected = session.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=5)
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError, IndexError, KeyError) as error:
        raise Absent(f"Hugging Face cannot generate with it: {type(error).__name__}") from None
    assert list(session.generate(CLEAN, max_new_tokens=5).ids) == expected[0].tolist()


CHECKS: dict[str, Callable[[iw.Session], None]] = {
    "residual": residual, "sums": sums, "lens": lens, "pattern": pattern, "heads": heads,
    "patching": patching, "ablation": ablation, "edges": edges, "sweep": sweep, "resume": resume,
    "generation": generation,
}  # fmt: skip


def examine(model: PreTrainedModel) -> dict[str, str]:
    """Each check's outcome: "pass", "absent: why" or "FAIL: why"; "session" says whether one could be opened."""
    try:
        session = iw.Session(model)
    except ValueError as refusal:
        return {"session": f"refused: {refusal}"}
    form = "pass" if session.checked.one_pass else "pass, full-batch sweeps"
    outcomes = {"session": form}
    for name, check in CHECKS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoEffectWarning)
                check(session)
            outcomes[name] = "pass"
        except Absent as reason:
            outcomes[name] = f"absent: {reason}"
        except Exception as error:  # noqa: BLE001 - a family's failure is its row in the table
            outcomes[name] = f"FAIL: {type(error).__name__}: {error}"
    session.close()
    return outcomes
