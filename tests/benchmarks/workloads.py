"""What is timed: models, pairs of prompts, and which of a peer's cells are run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from interpwidgets.demo_model import demo_model_path
from tests.models import tiny

DEMO, GPT2, PYTHIA = "SmolLM2-135M", "GPT-2-small-sized", "Pythia-410M-sized"
RANDOM: dict[str, dict[str, Any]] = {
    GPT2: {"model_type": "gpt2"},
    PYTHIA: {
        "model_type": "gpt_neox", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "vocab_size": 50304,
    },
}  # fmt: skip
"""Shapes whose weights are random: the costs are those of the real models, and nothing needs to be downloaded."""
TINY = {DEMO: "llama", GPT2: "gpt2", PYTHIA: "gpt_neox"}

IOI = "When {0} and {1} went to the store, {2} gave the bag to"
NAMES = ("John", "Mary", "Tom", "Anna", "James", "Sarah", "David")
FACT = (
    "{} is a landmark that millions of visitors come to see every year, and travellers say that there is nothing like "
    "the view at night. It stands in the middle of the city of"
)
STORY = "It was a long day in a small town, and the people who lived there talked about the weather and the harvest. "


@dataclass(frozen=True)
class Pair:
    """Token ids of a clean and a corrupted prompt, and the tokens that set their predictions apart."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    foil: int

    @property
    def first_difference(self) -> int:
        return next(i for i, (a, b) in enumerate(zip(self.clean, self.corrupted, strict=True)) if a != b)


@dataclass(frozen=True)
class Cell:
    """One patch: `index` is the position, or the head of a head site."""

    site: str
    layer: int
    index: int


@dataclass(frozen=True)
class Workload:
    """Sweeps of `sites` over every layer for each pair, at most `runs` times; peers run `sample` of the cells."""

    name: str
    model: str
    pairs: tuple[Pair, ...]
    sites: tuple[str, ...] = ("resid_pre",)
    sample: int = 30
    runs: int = 3
    dtype: str = "float32"
    device: str = "cpu"

    def cells(self, layers: int, heads: int) -> list[Cell]:
        """Every cell of the maps, in the order of their values."""
        length = len(self.pairs[0].clean)
        widths = {site: heads if site == "z" else length for site in self.sites}
        return [Cell(site, layer, i) for site in self.sites for layer in range(layers) for i in range(widths[site])]

    def chosen(self, cells: list[Cell]) -> list[Cell]:
        """The cells that a peer runs, in their order: drawn at random from those with an effect, the same in every run.

        To a peer, which runs the whole model for each, one cell costs what any other does.
        """
        first = self.pairs[0].first_difference
        telling = [i for i, cell in enumerate(cells) if cell.site == "z" or cell.index >= first]
        drawn = np.random.default_rng(0).permutation(telling)[: self.sample]
        return [cells[i] for i in sorted(drawn)]


@cache
def model_of(name: str, quick: bool) -> PreTrainedModel:
    """The model, float32; weights that are random can be written in bfloat16, so that both dtypes have the same."""
    if quick:
        return tiny(TINY[name], **({"num_key_value_heads": 4} if name == PYTHIA else {}))
    if name == DEMO:
        return AutoModelForCausalLM.from_pretrained(demo_model_path()).eval()
    settings = dict(RANDOM[name])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model.eval()


def random_pair(vocabulary: int, length: int, first: int, seed: int = 0) -> Pair:
    """Random ids that differ at `first` and in the last token but one."""
    ids = np.random.default_rng(seed).integers(3, vocabulary, length)
    other = ids.copy()
    other[[first, max(first, length - 2)]] = 3 + (ids[[first, max(first, length - 2)]] - 2) % (vocabulary - 3)
    return Pair(tuple(ids.tolist()), tuple(other.tolist()), 7, 19)


class DemoPrompts:
    """Pairs in words, as the demo model's tokenizer writes them after a BOS token."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(demo_model_path())

    def ids(self, text: str) -> tuple[int, ...]:
        return (self.tokenizer.bos_token_id, *self.tokenizer(text, add_special_tokens=False).input_ids)

    def token(self, text: str) -> int:
        (token,) = self.tokenizer(text, add_special_tokens=False).input_ids
        return token

    def pair(self, clean: str, corrupted: str, answer: str, foil: str) -> Pair:
        pair = Pair(self.ids(clean), self.ids(corrupted), self.token(answer), self.token(foil))
        assert len(pair.clean) == len(pair.corrupted), (clean, corrupted)
        return pair

    def ioi(self, a: str = "John", b: str = "Mary", before: str = "") -> Pair:
        """Indirect object identification: the clean prompt's answer is `a`, the corrupted one's `b`."""
        clean, corrupted = (before + IOI.format(a, b, giver) for giver in (b, a))
        return self.pair(clean, corrupted, f" {a}", f" {b}")

    def long(self, length: int, last: int) -> Pair:
        """A text of so many tokens whose first difference leaves `last` of them."""
        (bos, *story), (_, *sentence) = self.ids(STORY * (length // 10)), self.ids(STORY)
        ids = [bos, *story[: length - 1]]
        other = list(ids)
        other[length - last] = sentence[0] if ids[length - last] != sentence[0] else sentence[1]
        return Pair(tuple(ids), tuple(other), self.token(" John"), self.token(" Mary"))


def workloads(*, quick: bool, devices: tuple[str, ...]) -> list[Workload]:
    """All workloads; `quick` has the same ones on tiny models and short prompts."""
    if quick:
        return _tiny_workloads()
    say = DemoPrompts()
    ioi = (say.ioi(),)
    fact = (say.pair(FACT.format("The Eiffel Tower"), FACT.format("The Colosseum"), " Paris", " Rome"),)
    many = tuple(say.ioi(a, b) for a, b in itertools.islice(itertools.permutations(NAMES, 2), 32))
    random = (random_pair(50257, 15, 10),)
    every = ("resid_pre", "attn_out", "mlp_out")
    return [
        one
        for device in devices
        for one in (
            Workload("IOI pair", DEMO, ioi, sample=60, runs=5, device=device),
            Workload("fact pair, early difference", DEMO, fact, device=device),
            Workload("long pair", DEMO, (say.long(256, 32),), sample=12, device=device),
            Workload("IOI pair, heads", DEMO, ioi, ("z",), sample=45, runs=5, device=device),
            Workload("IOI pair, block_every", DEMO, ioi, every, sample=60, device=device),
            Workload("32 IOI pairs", DEMO, many, sample=6, device=device),
            Workload("random pair", GPT2, random, device=device),
            Workload("random pair", GPT2, random, dtype="bfloat16", device=device),
            Workload("random pair", PYTHIA, random, sample=15, device=device),
            Workload("random pair", PYTHIA, random, sample=15, dtype="bfloat16", device=device),
        )
    ]


def _tiny_workloads() -> list[Workload]:
    pair = (random_pair(97, 15, 10),)
    early = (random_pair(97, 24, 1),)
    many = tuple(random_pair(97, 9, 5, seed) for seed in range(4))
    return [
        Workload("early difference", DEMO, early, sample=5, runs=1),
        Workload("heads", DEMO, pair, ("z",), sample=5, runs=1),
        Workload("block_every", GPT2, pair, ("resid_pre", "attn_out", "mlp_out"), sample=5, runs=1),
        Workload("4 pairs", PYTHIA, many, sample=5, runs=1),
        Workload("bfloat16", GPT2, pair, sample=5, runs=1, dtype="bfloat16"),
    ]
