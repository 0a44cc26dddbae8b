"""A model on an accelerator is compared with its copy on the CPU, and the difference is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpwidgets as iw
from interpwidgets.engine.check import Check, DeviceWarning, Item, _compared
from interpwidgets.engine.device import difference, differs_from_cpu, on_cpu
from interpwidgets.engine.probe import Probe
from tests.models import FAMILIES, tiny

IDS = torch.tensor([[5, 17, 33, 48]])
PROBE = Probe(IDS)


class Faulty(nn.Linear):
    """Computes with the wrong sign where its weight was made, as a kernel of one device may."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return -y if self.weight.data_ptr() == self.made_at else y


def with_a_fault(model):
    head = model.get_output_embeddings()
    faulty = Faulty(head.in_features, head.out_features, bias=False)
    faulty.weight = nn.Parameter(head.weight.detach().clone())
    faulty.made_at = faulty.weight.data_ptr()
    model.set_output_embeddings(faulty)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_copy_computes_what_the_model_does_and_shares_no_weight(family):
    model = tiny(family)
    before = {name: (p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()}
    twin = on_cpu(model)
    assert difference(model, twin, PROBE) == 0
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert {name: (p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()} == before


def test_tied_weights_stay_tied_in_the_copy():
    twin = on_cpu(tiny("llama", tie_word_embeddings=True))
    assert twin.get_input_embeddings().weight is twin.get_output_embeddings().weight


def test_a_kernel_with_the_wrong_sign_is_seen():
    model = with_a_fault(tiny("llama"))
    assert difference(model, on_cpu(model), PROBE) == pytest.approx(2, rel=1e-5)


def test_the_difference_is_a_share_of_the_largest_logit():
    model, other = tiny("llama"), tiny("llama", seed=1)
    with torch.no_grad():
        a, b = model(IDS).logits.numpy(), other(IDS).logits.numpy()
    assert difference(model, other, PROBE) == pytest.approx(np.abs(a - b).max() / np.abs(b).max(), rel=1e-5)


def test_a_model_on_the_cpu_is_not_compared_with_itself():
    with iw.Session(tiny("llama")) as session:
        assert differs_from_cpu(session.model, PROBE) is None
        assert session.checked.on_cpu is None
        assert "CPU" not in session.checked.summary


def test_what_is_more_than_rounding_is_warned_of_and_shown():
    with pytest.warns(DeviceWarning, match=r"on mps the logits .* differ from the CPU's by 2\.0e\+00"):
        item = _compared(2.0, "mps", 1e-4)
    shown = Check((Item("instrumented logits equal plain logits", 1e-7, True), item), one_pass=True, on_cpu=2.0)
    assert not shown.ok
    assert shown.summary == "not so: logits on mps equal the CPU's (off by 2e+00)"


def test_what_rounding_explains_stands_in_the_header():
    item = _compared(3e-6, "cuda", 1e-4)
    shown = Check((Item("instrumented logits equal plain logits", 1e-7, True), item), one_pass=True, on_cpu=3e-6)
    assert shown.ok
    assert shown.summary == "matches Hugging Face, 1e-07; the CPU, 3e-06"


ELSEWHERE = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""


@pytest.mark.skipif(not ELSEWHERE, reason="needs a second device")
def test_a_session_elsewhere_shows_its_difference_from_the_cpu():
    model = tiny("llama").to(ELSEWHERE)
    with iw.Session(model) as session:
        assert 0 <= session.checked.on_cpu < 1e-4
        assert "the CPU" in session.checked.summary
    with pytest.warns(DeviceWarning), iw.Session(with_a_fault(model).to(model.device)) as session:
        assert not session.checked.ok
