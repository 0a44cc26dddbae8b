"""A user who goes on using the model while widgets click, beside a twin of the model that no session ever saw."""

from __future__ import annotations

import threading
from collections import Counter

import torch

from tests.models import tiny

from .state import CORRUPTED, PROMPT


class User:
    """What cells of the user's do; each action is done to the twin too, and the outcomes are equal bit for bit."""

    def __init__(self, model, twin) -> None:
        self.model, self.twin = model, twin
        self.figures: Counter = Counter()
        self._seen: list[torch.Tensor] = []
        self._kept = self._watch(model)
        self.actions = (self.call, self.call, self.generate, self.train, self.edit, self.hook, self.own_intervention)

    def act(self, draw) -> None:
        """One action, of the user's choice."""
        action = self.actions[int(draw.integers(len(self.actions)))]
        action(draw)
        self.figures[f"user: {action.__name__.replace('_', ' ')}"] += 1

    def call(self, draw) -> None:
        prompt = torch.tensor([PROMPT if draw.integers(2) else CORRUPTED])
        with torch.no_grad():
            self._equal(self.model(prompt).logits, self.twin(prompt).logits)
        assert torch.is_grad_enabled()

    def generate(self, draw) -> None:
        ids = torch.tensor([PROMPT])
        mine, its = (
            m.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=3)
            for m in (self.model, self.twin)
        )
        self._equal(mine, its)

    def train(self, draw) -> None:
        ids = torch.tensor([PROMPT])
        for model in (self.model, self.twin):
            model.train()
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            model(ids, labels=ids).loss.backward()
            assert all(p.grad is not None for p in model.parameters())
        for a, b in zip(self.model.parameters(), self.twin.parameters(), strict=True):
            self._equal(a.grad, b.grad)
        for model in (self.model, self.twin):
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            optimizer.step()
            optimizer.zero_grad()
            model.eval()

    def edit(self, draw) -> None:
        layer, row = int(draw.integers(4)), int(draw.integers(32))
        with torch.no_grad():
            for model in (self.model, self.twin):
                model.model.layers[layer].mlp.down_proj.weight[row] *= 0.5

    def hook(self, draw) -> None:
        layer = int(draw.integers(4))
        seen = []
        for model in (self.model, self.twin):
            mine: list[torch.Tensor] = []
            handle = self._observe(model.model.layers[layer].self_attn, mine)
            with torch.no_grad():
                model(torch.tensor([PROMPT]))
            handle.remove()
            seen.append(mine)
        self._equal(seen[0][0], seen[1][0])
        assert len(seen[0]) == 1

    def own_intervention(self, draw) -> None:
        """A steering hook of the user's own, which acts on top of nothing of ours."""
        layer = int(draw.integers(4))
        outputs = []
        for model in (self.model, self.twin):
            handle = model.model.layers[layer].mlp.register_forward_hook(lambda m, a, out: out * 2)
            with torch.no_grad():
                outputs.append(model(torch.tensor([PROMPT])).logits)
            handle.remove()
        self._equal(*outputs)

    def finish(self) -> None:
        """The hook that was there from the start still works."""
        del self._seen[:]
        self.model(torch.tensor([PROMPT]))
        assert len(self._seen) == 1
        self._kept.remove()

    def _watch(self, model):
        return self._observe(model.model.layers[1], self._seen)

    def _observe(self, module, seen):
        """A hook that keeps what this thread's calls give."""
        me = threading.get_ident()

        def keep(module, args, output):
            if threading.get_ident() == me:
                seen.append((output[0] if isinstance(output, tuple) else output).detach().clone())

        return module.register_forward_hook(keep)

    def _equal(self, a: torch.Tensor, b: torch.Tensor) -> None:
        assert torch.equal(a, b), f"a call of the user's was disturbed: off by {(a.float() - b.float()).abs().max()}"


def pair():
    """A model and its twin."""
    return tiny("llama"), tiny("llama")
