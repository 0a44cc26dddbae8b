"""The hooks that we put into a model, so that they can all be taken out again, whenever an interrupt came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Hooks:
    """Hooks of ours on modules of the user's.

    A hook with keyword arguments must do without them: torch looks up whether it wants them after it has looked up
    which hooks there are, and in between, in a call of the user's on another thread, it may be put in or taken out.
    """

    def __init__(self) -> None:
        self._installed: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._ours: set[Callable[..., Any]] = set()

    def before(self, module: nn.Module, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """Call `hook` before the module runs."""
        self._installed.append((module, hook))  # first: an interrupt would swallow the handle
        self._ours.add(hook)
        module.register_forward_pre_hook(hook, with_kwargs=with_kwargs)

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook` after the module has run."""
        self._installed.append((module, hook))
        self._ours.add(hook)
        module.register_forward_hook(hook)

    def are_all_on(self, module: nn.Module) -> bool:
        """Whether the module has no hooks but ours."""
        ours = [hook for at, hook in self._installed if at is module]
        return all(h in ours for h in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))

    def others(self, module: nn.Module) -> bool:
        """Whether the module has hooks that are not ours; for asking of many modules."""
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        return bool(hooks) and not self._ours.issuperset(hooks)

    def remove(self) -> None:
        """Take them all out; if this is interrupted, it must be called again."""
        for module, ours in self._installed:
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for key, hook in list(hooks.items()):
                    if hook == ours:
                        # The hook last: it is what an interrupted removal is found by.
                        module._forward_pre_hooks_with_kwargs.pop(key, None)
                        hooks.pop(key, None)
        self._installed.clear()
        self._ours.clear()
