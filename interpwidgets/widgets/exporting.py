"""How a widget leaves the notebook: a page of its own, a table of its numbers, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import numpy as np
import traitlets as t

from .folding import folded, thinned
from .heatmap import Heatmap
from .page import Answer, Part, Table, offline_page
from .raster import png
from .recording import Recording, Result, canonical
from .static import drawing, image, resized
from .unicode import encodable

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..engine.interventions import Intervention
    from ..experiments import Experiments
    from ..session import Session

_LONGEST_TABLE = 200_000  # characters of the numbers that a page without a kernel carries along
_CHOSEN = ("layer", "head", "normalize", "view")  # traits on which numbers may depend beside the question

Column = Sequence[Any] | np.ndarray

_OF_THE_HOST = frozenset(anywidget.AnyWidget.class_trait_names(sync=True)) | {"_anywidget_id", "_css", "_esm"}
_OF_THE_WIRE = frozenset(
    ("_request", "_status", "_history", "_asked", "_embedded", "_code_of_all", "_links", "_part", "_saved", "_to_save")
)


class Exporting(anywidget.AnyWidget):
    """A view that can be saved."""

    title: ClassVar[str]
    chooses: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Operations that only choose what is shown, with the traits that their arguments set."""

    _saved = t.Dict().tag(sync=True)
    """A file that the page asked for: {id, name, mime, text}; taken back at once, for it is not part of the view."""

    _whole: Callable[[], Any] = staticmethod(lambda: None)
    """Gives the figure that its header is of, if that is of more than this widget."""
    session: Session
    experiments: Experiments
    palette: t.Enum[str]
    value_labels: t.Bool[bool, bool]
    _recording: Recording

    # -- what subclasses give ----------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> None:
        """Block until nothing is running."""
        raise NotImplementedError

    def _running(self) -> bool:
        """Whether something is running."""
        raise NotImplementedError

    def _settled(self) -> bool:
        """Whether the picture is whole, and of what was asked for last."""
        raise NotImplementedError

    def _depends_on(self) -> dict[str, Any]:
        """What the picture depends on beside the experiments, by the names of the requests' arguments."""
        raise NotImplementedError

    def _heatmap(self, *, whole: bool = False) -> Heatmap | None:
        """The matrix that is shown; None before there is one. `whole`: with what a setting hides."""
        raise NotImplementedError

    def _tables(self) -> str:
        """What the matrix does not say, as HTML."""
        return ""

    def _captions(self) -> list[str]:
        """The prompts, and what acts on them, in words; one a line."""
        return []

    def _numbers(self) -> dict[str, Column]:
        """What is on the screen in long form: columns of one length."""
        raise NotImplementedError

    def _requests_for(self, intervention: Intervention) -> Iterable[dict[str, Any]]:
        """The requests, without their ids, by which a click makes this intervention, or takes it back."""
        return ()

    def _answers(self) -> Iterator[Answer]:
        """Requests to which a page without a kernel has the answer, as long as it shows what is shown now."""
        return iter(())

    def _owners(self, name: str) -> Mapping[str, str]:
        """Requests that are no methods of the widget, with what they are methods of, where it is called `name`."""
        raise NotImplementedError

    def _only_in_a_page(self) -> dict[str, Any]:
        """Traits of a page without a kernel that otherwise travel once they are asked for."""
        return {}

    def _ready(self) -> None:
        """Wait for what is shown, and for what it was drawn from."""
        self.wait()

    # -- files -------------------------------------------------------------------------------------------------------

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that shows this widget without a kernel and without a network; written to `path` if it is given.

        Pointing, zooming, choosing what is shown and the theme work as here; but of an AttentionPattern with more than
        200,000 weights in all heads (the demo model's, from 28 tokens on) only the selected head has its exact weights,
        and another one that is chosen is shown as its thumbnail is, and is said to be a preview. What a long prompt's
        view asks Python for piece by piece does not come: exact cells of a LogitLens beyond 64 tokens but those in
        view, exact weights beyond 256 tokens. Of experiments, the newest eight results of this widget are in the page
        (at most 16 MB of arrays); whatever else is clicked, the page gives the line of Python that does it here. Waits
        until nothing is running.
        """
        with at_rest(self):
            page = self._page()
        return written(page(), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The numbers on the screen in long form, one row a cell; written to `path` if it is given.

        Floats are float32, written so that reading them as float32 gives the same number. Waits until nothing is
        running.
        """
        with at_rest(self):
            numbers = self._numbers()
        return written(_as_csv(numbers), path)

    def figure(self) -> go.Figure:
        """The matrix on the screen as a plotly figure, in the colours of the page's light theme.

        It follows the view, the metric, `palette` and `value_labels`. All cells of a long prompt are in it, as is the
        position that `hide_bos` hides. Waits until nothing is running.
        """
        from .figures import heatmap

        with at_rest(self):
            shown = self._matrix(whole=True)
        return heatmap(shown)

    def to_svg(self, path: str | Path | None = None, *, width: float | None = None) -> str:
        """The matrix on the screen as a figure for a paper; written to `path` if it is given.

        It has a title, the prompts and experiments, axes, labels and a legend, in vectors and real text, `width` pixels
        wide (as it needs, if none is given). It is drawn in Python, so that no page needs to be open, and follows what
        is set in Python: the view, the metric, `hide_bos`, `palette`, `value_labels`. Colours are those of the page's
        light theme, with its scales. Of a long prompt, several positions are drawn as one where the page does so before
        anything is zoomed or opened: of a LogitLens all bands but the selected cell's, or the last one; a
        PatchingHeatmap of a deep model draws several layers as one row in the same way.

        It does not follow what only the page knows (theme, zoom, opened bands, what is pointed at), nor `size` and
        `figure_mode`, and has no marks (selection, outlines, hatches) and no other part of the widget: `save_as_seen`,
        and the widget's Save button, save the whole view exactly as a page shows it. Waits until nothing is running.
        """
        if width is not None and not width > 0:
            raise ValueError(f"width={width!r}: a positive number of pixels is needed")
        with at_rest(self):
            shown = self._matrix()
        svg = drawing(folded(shown))
        return written(svg if width is None else resized(svg, width), path)

    def to_png(self, path: str | Path | None = None, *, width: float | None = None, scale: float = 2.0) -> bytes:
        """What `to_svg` draws, as PNG with `scale` pixels of the image to one of the picture.

        Needs the package resvg-py (`pip install "interpwidgets[png]"`) and a font of the system; raises ImportError or
        RuntimeError, saying so, where there is none.
        """
        if not scale > 0:
            raise ValueError(f"scale={scale!r}: a positive number is needed")
        data = png(self.to_svg(width=width), scale)
        if path is not None:
            Path(path).write_bytes(data)
        return data

    def _matrix(self, *, whole: bool = False) -> Heatmap:
        shown = self._heatmap(whole=whole)
        if shown is None:
            raise RuntimeError("there is nothing to draw yet: no run has finished")
        return replace(self._in_its_looks(shown), captions=self._captions())

    def _in_its_looks(self, shown: Heatmap) -> Heatmap:
        return replace(shown, palette=self.palette, written=self.value_labels)

    def _static_picture(self) -> Callable[[], str]:
        """What draws HTML of what is shown now, for places without a kernel; at most 100 KB."""
        shown = self._heatmap()
        if shown is None:
            return lambda: "<div>No run has finished yet.</div>"
        tables, shown = self._tables(), self._in_its_looks(shown)
        return lambda: image(drawing(thinned(shown)), f"{shown.title}, {shown.unit}") + tables

    def _page(self) -> Callable[[], str]:
        """What writes a page without a kernel of what is shown now."""
        part = self._part_of_a_page("widget")
        if not part.results:
            raise RuntimeError("there is nothing to save yet: no run has finished")
        return lambda: offline_page(self.title, [part])

    def _part_of_a_page(self, name: str, **traits: Any) -> Part:
        """The widget as a page has it, with these traits in all its results."""
        if self._settled():
            self._record()
        own = self._only_in_a_page() | traits
        results = [replace(r, traits=r.traits | own) for r in self._recording.results()]
        made = {repr(e.intervention): e.intervention for result in results for e in result.experiments}
        return Part(
            name=name, esm=str(self._esm), css=str(self._css), results=results, chooses=self.chooses,
            answers=list(self._answers()) if self._settled() else [], owners=self._owners(name),
            table=self._table() if self._settled() else None,
            makes={canonical(request): code for code, i in made.items() for request in self._requests_for(i)},
        )  # fmt: skip

    def _table(self) -> Table | None:
        """The numbers that are shown now, for a page without a kernel; None if there are none, or too many for it."""
        if self._heatmap() is None:
            return None
        numbers = self._numbers()
        # A value takes a character at least, its comma: what is far too long is not written to find that out.
        if sum(map(len, numbers.values())) >= _LONGEST_TABLE or len(text := _as_csv(numbers)) >= _LONGEST_TABLE:
            return None
        return Table(_file(self.title, "csv", text), {n: getattr(self, n) for n in _CHOSEN if self.has_trait(n)})

    def _record(self) -> None:
        """Keep what is on the screen, for a page without a kernel."""
        shown = set(self.keys) - _OF_THE_HOST - _OF_THE_WIRE
        traits = {name: getattr(self, name) for name in sorted(shown)}
        question = self._depends_on() | {"baseline": [repr(i) for i in self.experiments.baseline]}
        self._recording.add(Result(question, self.experiments.entries, traits))

    # -- what the page asks for --------------------------------------------------------------------------------------

    def _save_for_page(self, operation: str, number: int, **nothing: Any) -> None:
        """Send the page a file of what is shown, without waiting: what runs cannot end while the page is answered."""
        if nothing:
            raise TypeError(f"{operation} takes nothing from a page, not {', '.join(nothing)}")
        if operation == "to_csv":
            file = _file(self.title, "csv", _as_csv(self._numbers()))
        else:
            shown = self._whole() or self
            file = _file(shown.title, "html", shown._page()())
        self._saved = {"id": number, **file}
        self._saved = {}


@contextmanager
def at_rest(*widgets: Exporting) -> Iterator[None]:
    """Hold what is shown once nothing is running, or a click could come between two of its parts; for a moment only."""
    while True:
        # Not under the lock, without which no run can end.
        for widget in widgets:
            widget._ready()
        with widgets[0].session.publishing:
            if not any(widget._running() for widget in widgets):  # what has been asked for meanwhile
                yield
                return


def _as_csv(columns: Mapping[str, Column]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_exact, row) for row in zip(*columns.values(), strict=True))
    return str(encodable(file.getvalue()))


def _file(title: str, kind: str, text: str) -> dict[str, str]:
    return {"name": f"{title.lower().replace(' ', '-')}.{kind}", "mime": f"text/{kind}", "text": text}


def _exact(value: Any) -> Any:
    """A number as text: float32 in the fewest digits that say it exactly."""
    return str(value) if isinstance(value, np.generic) else value


def written(text: str, path: str | Path | None) -> str:
    """The text, also in a file if a path is given."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
