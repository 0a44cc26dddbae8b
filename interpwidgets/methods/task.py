"""What patching asks: a clean and a corrupted prompt, an answer and a foil, and the metric that is read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..engine.interventions import Intervention
from ..engine.metrics import KL, LogitDifference, LogProbability, Probability
from ..engine.names import unknown
from ..engine.sites import Site, resolve
from ..engine.sweep import Metric
from ..run import NOTHING_MASKED
from ..session import Session
from ..tokens import Tokens, align, first_difference
from .predictions import compare_logits

METRICS = {
    "logit_diff": "logits",
    "log_probability": "nats",
    "probability": "",
    "kl": "nats",
}
"""The metrics and their units."""


@dataclass(frozen=True)
class Task:
    """A pair of prompts and what is measured on them; `clean_value` and `corrupted_value` are the metric of each."""

    clean: Tokens
    corrupted: Tokens
    answer: int
    foil: int
    metric: str
    measure: Metric
    clean_value: float
    corrupted_value: float
    answer_position: int
    interventions: tuple[Intervention, ...] = ()
    hint: str = ""  # on a token that is probably not the one that was meant
    predictions: tuple[dict[str, Any], ...] = field(default=(), compare=False, repr=False)
    """The likeliest tokens of both runs, as `compare_predictions` gives them."""

    @property
    def first_difference(self) -> int:
        """The first position whose tokens differ; the prompts' length if none does."""
        if self.clean.source != self.corrupted.source:
            return 0
        return first_difference(self.clean.ids, self.corrupted.ids)

    @property
    def gap(self) -> float:
        return self.clean_value - self.corrupted_value

    @property
    def gap_is_zero(self) -> bool:
        return abs(self.gap) <= 1e-6 * max(abs(self.clean_value), abs(self.corrupted_value), 1e-6)


def patching_task(
    session: Session,
    clean: Any,
    corrupted: Any,
    answer: int | str | None = None,
    foil: int | str | None = None,
    metric: str = "logit_diff",
    interventions: tuple[Intervention, ...] = (),
    capture: tuple[Site, ...] = (),
    answer_position: int | None = None,
) -> Task:
    """Run both prompts and fix what is measured.

    `answer` defaults to the clean run's top prediction, `foil` to the corrupted run's likeliest other token; both
    runs undisturbed. Raises ValueError if the prompts differ in token length (showing both tokenisations), if answer
    and foil are the same token, if a masked language model's prompts do not mask the same position, or for an unknown
    metric.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    tokens = prompt_pair(session, clean, corrupted)
    at = _answer_position(session, *tokens, answer_position)
    aside = at != len(tokens[0]) - 1

    def predict(prompts: Sequence[Tokens], *asked: Any) -> list[Tensor]:
        runs = session.ask_all(prompts, *asked, all_logits=aside)
        return [run.logits_at(at).float() for run in runs]  # (token,) each

    logits = predict(tokens, capture, interventions)
    # An experiment must not change the question: defaults are what the model says undisturbed.
    answer_id, foil_id = (None if given is None else session.token_id(given) for given in (answer, foil))
    if answer_id is None:
        answer_id = int(predict(tokens[:1])[0].argmax())
    if foil_id is None:
        likeliest = predict(tokens[1:])[0].topk(2).indices.tolist()
        foil_id = likeliest[likeliest[0] == answer_id]
    if foil_id == answer_id and metric == "logit_diff":
        chosen = " (the clean run's top prediction)" if answer is None else ""
        raise ValueError(
            f"answer{chosen} and foil are both {session.show_token(foil_id)!r} (id {foil_id}), so that their logit "
            "difference is 0 everywhere: give another foil, or none for the corrupted run's likeliest other token"
        )
    measure = measure_of(metric, answer_id, foil_id, logits[0])
    return Task(
        clean=tokens[0],
        corrupted=tokens[1],
        answer=answer_id,
        foil=foil_id,
        metric=metric,
        measure=measure,
        clean_value=float(measure(logits[0][None])[0]),
        corrupted_value=float(measure(logits[1][None])[0]),
        answer_position=at,
        interventions=interventions,
        hint=missing_space(session, {"answer": answer, "foil": foil}, logits),
        predictions=tuple(compare_logits(session, {"clean": logits[0], "corrupted": logits[1]})[0]),
    )


def _answer_position(session: Session, clean: Tokens, corrupted: Tokens, given: int | None) -> int:
    """Where both runs' answers are read. Raises ValueError if that is not the same place."""
    if given is not None:
        return resolve(given, len(clean), "answer_position")[0]
    at, other = session.answer_position(clean), session.answer_position(corrupted)
    if at is None:
        raise ValueError(NOTHING_MASKED)
    if at != other:
        where = "masks nothing" if other is None else f"masks position {other} first"
        raise ValueError(
            f"the answer of the clean prompt is masked at position {at}, while the corrupted prompt {where}: mask the "
            f"same position in both\n{align(clean, corrupted)}"
        )
    return at


def missing_space(session: Session, given: dict[str, int | str | None], logits: Sequence[Tensor]) -> str:
    """A hint if the token of the same text after a space is likelier, in each run, than one that was given."""
    where = " in both runs" if len(logits) > 1 else ""
    for what, token in given.items():
        spaced = None if token is None else session.after_space(session.token_id(token))
        if token is None or spaced is None:
            continue
        token_id = session.token_id(token)
        if all(float(x[spaced]) > float(x[token_id]) for x in logits):
            return (
                f"the {what} {session.show_token(token_id)!r} has no leading space; {session.show_token(spaced)!r} "
                f"(id {spaced}) is likelier{where}: is that the token you mean?"
            )
    return ""


def prompt_pair(session: Session, clean: Any, corrupted: Any) -> tuple[Tokens, Tokens]:
    """Both prompts tokenised. Raises ValueError, showing them aligned, if they differ in token length."""
    a, b = session.tokenize(clean), session.tokenize(corrupted)
    require_same_length("prompts", a, b)
    return a, b


def require_same_length(what: str, a: Tokens, b: Tokens) -> None:
    """Raises ValueError, showing both aligned, if they differ in length."""
    if len(a) != len(b):
        at = first_difference(a.ids, b.ids)
        (one, other) = (f"has {t.strings[at]!r}" if at < len(t) else "has ended" for t in (a, b))
        raise ValueError(
            f"the {what} must have the same number of tokens: clean has {len(a)}, corrupted has {len(b)}; they differ "
            f"first at position {at}, where clean {one} and corrupted {other}\n{align(a, b)}"
        )


def measure_of(metric: str, answer: int, foil: int, clean: Tensor) -> Metric:
    """The metric of the logits at the answer's position (row, token); `clean` are those that "kl" is from, (token,)."""
    match metric:
        case "logit_diff":
            return LogitDifference(answer, foil)
        case "log_probability":
            return LogProbability(answer)
        case "probability":
            return Probability(answer)
    return KL(clean.log_softmax(-1))
