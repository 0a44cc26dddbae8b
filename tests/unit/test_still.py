"""The still picture in a real kernel's outputs: it follows what is done in a page, once, when it is quiet."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

VIEW = "application/vnd.jupyter.widget-view+json"
SESSION = """
import threading
import interpwidgets as iw
from tests.models import tiny
session = iw.Session(tiny("llama"))
PROMPT = [5, 17, 3, 44, 17, 60, 8, 91]
CORRUPTED = [5, 17, 3, 21, 17, 60, 9, 91]
"""
SHOW = "widget = iw.AttentionPattern(session, PROMPT, layer=1, head=2)\nwidget.wait(30)\nwidget"
# What is due is sent before the cell ends.
SETTLE = """
widget.wait(30)
while timers := [t for t in threading.enumerate() if isinstance(t, threading.Timer)]:
    timers[0].join()
"""


@dataclass
class Kernel:
    """A kernel, and a page that shows what it puts out."""

    client: BlockingKernelClient
    requests: int = field(default=0)

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; gives what it put out, and whatever came with it."""
        return self._until_idle(self.client.execute(code, store_history=False))

    def show(self, code: str = SHOW) -> str:
        """Display a widget; gives the id of its model."""
        found = [m["data"][VIEW]["model_id"] for m in self.run(code) if VIEW in m.get("data", {})]
        assert len(set(found)) == 1
        return str(found[0])

    def say(self, model: str, **traits: Any) -> list[dict[str, Any]]:
        """The page changes traits of a widget's; gives what was put out meanwhile."""
        data = {"method": "update", "state": traits, "buffer_paths": []}
        message = self.client.session.msg("comm_msg", {"comm_id": model, "data": data})
        self.client.shell_channel.send(message)
        return self._until_idle(message["header"]["msg_id"])

    def click(self, model: str, op: str, **arguments: Any) -> list[dict[str, Any]]:
        self.requests += 1
        return self.say(model, _request={"id": self.requests, "op": op, **arguments})

    def settle(self) -> list[dict[str, Any]]:
        """Wait until all is done and quiet; gives what was put out meanwhile."""
        return self.run(SETTLE)

    def _until_idle(self, parent: str) -> list[dict[str, Any]]:
        found = []
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=60)
            except queue.Empty:
                pytest.fail("the kernel says nothing")
            content = message["content"]
            if message["msg_type"] == "error":
                pytest.fail("\n".join(content["traceback"]))
            if message["msg_type"] in ("display_data", "update_display_data"):
                found.append({"kind": message["msg_type"], **content})
            ours = message["parent_header"].get("msg_id") == parent
            if ours and message["msg_type"] == "status" and content["execution_state"] == "idle":
                return found


@contextmanager
def started(**environment: str) -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**os.environ, **environment})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        kernel = Kernel(client)
        kernel.run(SESSION)
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def running() -> Iterator[Kernel]:
    with started() as kernel:
        yield kernel


@pytest.fixture
def kernel(running: Kernel) -> Kernel:
    """A kernel without widgets and experiments."""
    running.run("for w in list(session.widgets): w.close()\nsession.interventions.clear()")
    running.requests = 0
    return running


def updates(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for m in messages if m["kind"] == "update_display_data"]


def test_quick_clicks_make_one_new_picture_of_the_last_state(kernel: Kernel) -> None:
    shown = kernel.run(SHOW)
    still = shown[-1]
    model = shown[0]["data"][VIEW]["model_id"]
    assert "iw.Ablate" not in still["data"]["text/html"]
    heard = kernel.say(model, _view_count=1)
    for layer, head in ((0, 1), (1, 2), (2, 0)):
        heard += kernel.click(model, "ablate", layer=layer, head=head)
    (update,) = updates(heard + kernel.settle())
    assert update["transient"] == still["transient"] != {}
    assert VIEW not in update["data"]
    html = update["data"]["text/html"]
    assert "experiments: z L0H1 → 0, z L1H2 → 0, z L2H0 → 0" in html
    assert "iw.Ablate(&#x27;z&#x27;, layer=2, head=0)" in html
    assert html.split(">")[0] == still["data"]["text/html"].split(">")[0]
    kernel.click(model, "undo")
    (update,) = updates(kernel.settle())
    assert "experiments: z L0H1 → 0, z L1H2 → 0<" in update["data"]["text/html"]


def test_nothing_is_sent_while_the_picture_is_the_same(kernel: Kernel) -> None:
    model = kernel.show()
    heard = kernel.say(model, _view_count=1) + kernel.say(model, _past_wanted=True)
    heard += kernel.click(model, "ablate", layer=1, head=2) + kernel.click(model, "undo")
    assert updates(heard + kernel.settle()) == []


def test_nothing_is_sent_where_no_page_shows_the_widget(kernel: Kernel) -> None:
    kernel.show()
    assert updates(kernel.run("widget.ablate(1, 2)") + kernel.settle()) == []


def test_nothing_is_sent_of_a_widget_that_was_closed(kernel: Kernel) -> None:
    model = kernel.show()
    heard = kernel.say(model, _view_count=1) + kernel.click(model, "ablate", layer=1, head=2)
    assert updates(heard + kernel.run("widget.close()\nwidget.wait = lambda timeout: None") + kernel.settle()) == []


def test_two_outputs_of_a_widget_have_one_picture(kernel: Kernel) -> None:
    shown = [*kernel.run(SHOW), *kernel.run("widget")]
    stills = [m for m in shown if VIEW not in m["data"]]
    assert len({m["transient"]["display_id"] for m in stills}) == 1
    assert len(stills) == 2
    model = shown[0]["data"][VIEW]["model_id"]
    heard = kernel.say(model, _view_count=2) + kernel.click(model, "ablate", layer=1, head=2)
    assert len(updates(heard + kernel.settle())) == 1


def test_the_picture_of_a_workbench_follows_each_of_its_widgets(kernel: Kernel) -> None:
    code = (
        "widget = iw.Workbench(session, PROMPT)\nwidget.compare(CORRUPTED, answer=5, foil=9)\nwidget.wait(30)\nwidget"
    )
    model = kernel.show(code)
    kernel.say(model, _view_count=1)
    kernel.run("widget.heatmap.set(site='mlp_out'); widget.wait(30)")
    kernel.run("session.interventions.append(iw.Ablate('z', layer=0, head=1))")
    last = updates(kernel.settle())[-1]["data"]["text/html"]
    assert last.count("experiments: z L0H1 → 0") == 3
    kernel.run("widget.compare([5, 17, 3, 9, 17, 60, 9, 91], answer=5, foil=9); widget.wait(30)")
    kernel.settle()
    kernel.run("widget.heatmap.set(site='attn_out')")
    assert "attn_out" in updates(kernel.settle())[-1]["data"]["text/html"]


def test_nothing_is_sent_to_voila_whose_page_would_not_hear_it() -> None:
    with started(VOILA_PREHEAT="False") as kernel:
        model = kernel.show()
        heard = kernel.say(model, _view_count=1) + kernel.click(model, "ablate", layer=1, head=2)
        assert updates(heard + kernel.settle()) == []
