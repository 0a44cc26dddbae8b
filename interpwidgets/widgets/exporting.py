"""How a widget leaves the notebook: a page of its own, a table of its numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import numpy as np
import traitlets as t

from .page import Answer, offline_page
from .recording import Recording, Result, canonical
from .unicode import encodable

if TYPE_CHECKING:
    from ..engine.interventions import Intervention
    from ..experiments import Experiments

Column = Sequence[Any] | np.ndarray

_OF_THE_HOST = frozenset(anywidget.AnyWidget.class_trait_names(sync=True)) | {"_anywidget_id", "_css", "_esm"}
_OF_THE_WIRE = frozenset(("_request", "_status", "_history", "_asked", "_part", "_saved"))


class Exporting(anywidget.AnyWidget):
    """A view that can be saved."""

    title: ClassVar[str]
    chooses: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Operations that only choose what is shown, with the traits that their arguments set."""

    _saved = t.Dict().tag(sync=True)
    """A file that the page asked for: {id, name, mime, text}; taken back at once, for it is not part of the view."""

    experiments: Experiments
    _recording: Recording

    # -- what subclasses give ----------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> None:
        """Block until nothing is running."""
        raise NotImplementedError

    def _running(self) -> bool:
        raise NotImplementedError

    def _question(self) -> dict[str, Any]:
        """What the picture depends on beside the experiments, by the names of the requests' arguments."""
        raise NotImplementedError

    def _numbers(self) -> dict[str, Column]:
        """What is on the screen in long form: columns of one length."""
        raise NotImplementedError

    def _requests_for(self, intervention: Intervention) -> Iterable[dict[str, Any]]:
        """The requests, without their ids, by which a click makes this intervention, or takes it back."""
        return ()

    def _answers(self) -> Iterable[Answer]:
        """Requests to which a page without a kernel has the answer, as long as it shows what is shown now."""
        return ()

    # -- files -------------------------------------------------------------------------------------------------------

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that shows this widget without a kernel and without a network; written to `path` if it is given.

        Pointing, zooming, choosing what is shown and the theme work as here. Of experiments, the newest eight results
        of this widget are in the page (at most 16 MB of arrays); whatever else is clicked, the page gives the line of
        Python that does it here. Waits until nothing is running.
        """
        self.wait()
        return _written(self._as_html(), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The numbers on the screen in long form, one row a cell; written to `path` if it is given.

        Floats are float32, written so that reading them as float32 gives the same number. Waits until nothing is
        running.
        """
        self.wait()
        return _written(self._as_csv(), path)

    def _as_html(self) -> str:
        if not self._running():
            self._record()
        results = self._recording.results()
        if not results:
            raise RuntimeError("there is nothing to save yet: the model is still running")
        made = {repr(e.intervention): e.intervention for result in results for e in result.experiments}
        return offline_page(
            title=self.title, esm=str(self._esm), css=str(self._css), results=results, chooses=self.chooses,
            answers=() if self._running() else self._answers(),
            makes={canonical(request): code for code, i in made.items() for request in self._requests_for(i)},
        )  # fmt: skip

    def _record(self) -> None:
        """Keep what is on the screen, for a page without a kernel."""
        shown = set(self.keys) - _OF_THE_HOST - _OF_THE_WIRE
        traits = {name: getattr(self, name) for name in sorted(shown)}
        self._recording.add(Result(self._question(), self.experiments.entries, traits))

    def _as_csv(self) -> str:
        columns = self._numbers()
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(_exact, row) for row in zip(*columns.values(), strict=True))
        return str(encodable(file.getvalue()))

    # -- what the page asks for --------------------------------------------------------------------------------------

    def _save_for_page(self, operation: str, number: int, **nothing: Any) -> None:
        """Send the page a file of what is shown, without waiting: what runs cannot end while the page is answered."""
        if nothing:
            raise TypeError(f"{operation} takes nothing from a page, not {', '.join(nothing)}")
        text, kind = (self._as_csv(), "csv") if operation == "to_csv" else (self._as_html(), "html")
        name = f"{self.title.lower().replace(' ', '-')}.{kind}"
        self._saved = {"id": number, "name": name, "mime": f"text/{kind}", "text": text}
        self._saved = {}


def _exact(value: Any) -> Any:
    """A number as text: float32 in the fewest digits that say it exactly."""
    return str(value) if isinstance(value, np.generic) else value


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
