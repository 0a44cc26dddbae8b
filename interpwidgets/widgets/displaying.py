"""How what is displayed is held while it can be seen, and leaves a still picture for the day when no kernel runs."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from ipywidgets.widgets.widget import _instances

from .exporting import Exporting
from .still import Still
from .unicode import encodable

_SUBSHELL_SECONDS = 3.0  # that a page may take to ask for a subshell; where it has none, a first picture waits for it


class Displayed(ipywidgets.DOMWidget):
    """A widget with a still picture that its page hides while the widget is alive."""

    _picture: Still | None = None

    def static_frame(self) -> str:
        """What is on the screen as plain HTML, for places where no kernel runs."""
        raise NotImplementedError

    def _still_id(self) -> str:
        """The id of the element that holds the still picture, which the page hides."""
        raise NotImplementedError

    def _pictured(self) -> Iterable[Exporting]:
        """The widgets that the picture is of."""
        raise NotImplementedError

    def _listen(self) -> None:
        """Take the page's messages, without being kept by them, on the thread that the page has chosen."""
        self.comm.on_msg(weakly(self._handle_msg))
        # ipykernel 7.4 and later ask this of a comm.
        self.comm._reply_subshell_for = lambda data, chosen: subshell_for(chosen)
        self._be_held(False)

    def _be_held(self, held: bool) -> None:
        """Keep the widget while it can be seen; otherwise it lives as long as something of the user's refers to it.

        ipywidgets' register would keep every widget for ever, and with it its session and model.
        """
        if self.comm is not None:
            _instances[self.model_id] = self if held else weakref.proxy(self)

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The live view's display data and its metadata; None for a widget that is closed."""
        bundle = super()._repr_mimebundle_()
        if bundle is None:
            return None
        self._be_held(True)
        return bundle if isinstance(bundle, tuple) else (bundle, {})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = self._bundle()
        if bundle is None:
            return None
        data, metadata = bundle
        return encodable({**data, "text/html": self.static_frame()}), metadata

    def _ipython_display_(self) -> None:
        if _outputs_are_apart():
            raise NotImplementedError  # IPython takes the bundle: one output cannot hide another there
        bundle = self._bundle()
        if bundle is None:
            return
        data, metadata = bundle
        # An output of its own: of one with a widget, JupyterLab shows nothing else once the kernel has ended. Where no
        # kernel runs, its words would stand above the picture.
        display(encodable({**data, "text/plain": ""}), metadata=metadata, raw=True)
        if self._picture is None:
            self._picture = Still(self._still_id(), repr(self), weakref.WeakMethod(self._frame_of_a_page))
            self._follow()
        self._picture.display(self.static_frame())

    def _follow(self) -> None:
        """Let the picture, once there is one, change with what it is of."""
        if self._picture is not None:
            for widget in self._pictured():
                widget.observe(self._picture.changed, names=widget.keys)

    def _frame_of_a_page(self) -> str | None:
        """The picture for the notebook; None while no page shows what it is of, or another one is about to come."""
        shown = tuple(self._pictured())
        if self.comm is None or not self._view_count or any(widget._running() for widget in shown):
            return None
        return self.static_frame()


def is_held(widget: ipywidgets.Widget) -> bool:
    """Whether a page shows the widget, or is about to."""
    return _instances.get(widget.model_id) is widget


def _outputs_are_apart() -> bool:
    """Whether the front end shows every output in a frame of its own: Colab and VS Code do."""
    return "google.colab" in sys.modules or "VSCODE_PID" in os.environ


def subshell_for(chosen: str | None) -> str | None:
    """Which subshell gets a page's message, that which the page has chosen if it is there; None for the main thread.

    By itself ipykernel takes the one that last sent something to the page: that of a cell that runs, be it for hours.
    A page names none until it is told of the one that it asked for, and for a moment one that it has let go, whose
    messages would be lost; what it sends later waits behind them.
    """
    manager = _subshell_manager()
    subshells = manager.list_subshell() if manager else []
    return chosen if chosen in subshells else next(iter(subshells), None)


def is_heard_meanwhile(*, wait: bool) -> bool:
    """Whether a page's messages come while a cell runs, by a subshell.

    A page asks for one when it is told of its first widget, and lets it go with its last: it may be waited for.
    """
    manager = _subshell_manager()
    if manager is None or _outputs_are_apart():
        return False
    until = time.monotonic() + (_SUBSHELL_SECONDS if wait else 0)
    while not manager.list_subshell() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(manager.list_subshell())


def _subshell_manager() -> Any:
    """The kernel's, if it has subshells."""
    kernel = getattr(get_ipython(), "kernel", None)
    return getattr(getattr(kernel, "shell_channel_thread", None), "manager", None)


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A callback that does not keep the widget alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = reference()
        if alive is not None:
            alive(*args)

    return call
