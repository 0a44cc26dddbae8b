"""What the page asks of a widget: which traits it may set, and the requests that call public methods."""

from __future__ import annotations

from typing import Any, ClassVar

from .displaying import weakly
from .running import REQUEST, is_id
from .unicode import encodable
from .viewing import Viewing
from .wire import Wire, whole

_FROM_PAGE = ("_request", "_view_count", "_past_wanted")  # of the wire's own traits, those that the front end may set

_OF_HISTORY = ("undo", "redo", "toggle", "remove", "clear", "stop", "back_to")
_OF_ALL = ("preset",)
_OF_EXPERIMENTS = (
    "move",
    "rename",
    "set_strength",
    "group",
    "rename_group",
    "toggle_group",
    "remove_group",
    "pin",
    "unpin",
)
_OF_FILES = ("to_csv", "to_html")
"""Requests that every widget answers: by itself, by its list of experiments, and with a file."""


class Answering(Viewing):
    """A view whose page sends requests {id, op, ...}, of which each calls the public method named `op`."""

    operations: ClassVar[tuple[str, ...]] = ()
    """Public methods that the front end may call, beside those of the history."""
    from_page: ClassVar[tuple[str, ...]] = ()
    """Of the traits whose names begin with _, those that the front end may set, beside those of every widget."""

    def __init__(self, **traits: Any) -> None:
        self._answered = 0  # the largest id of a request that was carried out
        self._ahead: set[int] = set()  # ids of requests that were carried out before they came as values of the trait
        super().__init__(**traits)
        self.observe(self._on_request, names="_request")
        self.on_msg(weakly(self._on_message))

    def get_state(self, *args: Any, **kwargs: Any) -> Any:
        return encodable(super().get_state(*args, **kwargs))

    def _send(self, msg: Any, buffers: Any = None) -> None:
        # What the page sent is echoed to it, as it came.
        super()._send(encodable(msg), buffers=buffers)

    def set_state(self, sync_data: Any) -> None:
        # Messages may come on another thread than the worker's, and ipywidgets keeps its sync state in attributes.
        with self.session.publishing:
            # One by one, the request last: ipywidgets drops a whole message for one value that does not fit.
            for name in sorted(sync_data, key=lambda name: name == "_request"):
                if not self._may_come_from_page(name):
                    continue
                try:
                    super().set_state({name: sync_data[name]})
                except Exception as error:  # noqa: BLE001 - drawn; in a callback it would be lost in the log
                    self._fail(error)
                    self.send_state(name)  # the page shows what holds

    def _may_come_from_page(self, name: str) -> bool:
        trait = self.traits().get(name)
        own = not name.startswith("_") or name in (*_FROM_PAGE, *self.from_page)
        return trait is not None and not trait.read_only and own

    def _owners(self, name: str) -> dict[str, str]:
        return dict.fromkeys(_OF_EXPERIMENTS, "session.interventions" if self.linked else f"{name}.experiments")

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and is_id(content.get("picture")):
            self._take_picture(content)
        # A request that the page's host may hold back as a value of the trait, while it waits for a cell that runs.
        request = content.get("request") if isinstance(content, dict) else None
        if isinstance(request, dict) and is_id(request.get("id")):
            with self.session.publishing:
                if request["id"] > self._answered:
                    self._ahead.add(request["id"])
                    self._take(request)

    def _on_request(self, change: Any) -> None:
        number = change["new"].get("id")
        known = is_id(number) and number in self._ahead
        if is_id(number):
            self._ahead = {ahead for ahead in self._ahead if ahead > number}
        if not known:
            self._take(change["new"])

    def _take(self, given: Wire) -> None:
        """Carry out a request, and those before it that have not been."""
        request = dict(given)
        earlier = request.pop("before", [])
        for each in [*(earlier if isinstance(earlier, list) else []), request]:
            # Those before the newest came by themselves if nothing was in their way.
            if each is request or (isinstance(each, dict) and is_id(each.get("id")) and each["id"] > self._answered):
                self._carry_out(dict(each))

    def _carry_out(self, request: Wire) -> None:
        """Do what one request asks for."""
        operation = request.pop("op", None)
        number = request.pop("id", None)
        self._failures.pop(REQUEST, None)
        try:
            if not is_id(number):
                raise ValueError(f"a request carries a whole number as its id, not {number!r}")
            self._answered = max(self._answered, number)
            if operation in _OF_EXPERIMENTS:
                getattr(self.experiments, operation)(**_checked_places(request))
            elif operation in (*_OF_HISTORY, *_OF_ALL, *self.operations):
                getattr(self, operation)(**request)
            elif operation in _OF_FILES:
                self._save_for_page(operation, number, **request)
            else:
                raise ValueError(f"unknown request {operation!r}")
        except Exception as error:  # noqa: BLE001 - drawn; in a callback it would be lost in the log
            self._fail(error)
        # What started a run has been acknowledged as queued; anything else is done already.
        if self._status["id"] != self._result_id():
            self._tell("running" if self._running() else self._at_rest())


def _checked_places(request: dict[str, Any]) -> dict[str, Any]:
    """Places in the list of experiments, as the page sends them."""
    checked = {name: whole(value, name) if name in ("index", "to") else value for name, value in request.items()}
    return checked | ({"indices": [whole(i, "indices") for i in request["indices"]]} if "indices" in request else {})
