"""How a session reads prompts and answers as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .engine.engine import Engine
from .engine.limits import Context
from .engine.prompts import SourceTarget
from .engine.sites import resolve
from .run import NOTHING_MASKED
from .tokens import Tokens, bare_ids, display, one_token, tokenize, tokenize_pair, typed_ids, written_ids


class Reader:
    """What a session knows of text: which tokens a prompt runs as, and where its answer is read."""

    model: nn.Module
    engine: Engine
    tokenizer: Any
    name: str
    prepend_bos: bool | None
    context: Context
    """How many positions the model can read."""

    @property
    def causal(self) -> bool:
        """Whether positions depend on earlier ones only; a masked language model's depend on all."""
        return self.engine.causal

    def tokenize(self, prompt: Any) -> Tokens:
        """The tokens that a prompt really runs as.

        Raises TypeError or ValueError for what is not a prompt, or has more tokens than the model has positions; warns
        (ContextWarning) if it has more than the model was trained on.
        """
        if isinstance(prompt, Tokens):
            return prompt
        tokens = self._tokens(prompt)
        self.context.require(len(tokens), f"the prompt has {len(tokens)} tokens")
        if tokens.source is not None:
            self.context.require(len(tokens.source), f"the source has {len(tokens.source)} tokens")
        return tokens

    def _tokens(self, prompt: Any) -> Tokens:
        n_vocab = min(self.engine.architecture.n_vocab, n_rows(self.model))
        if self.engine.has_encoder:
            return tokenize_pair(
                self.tokenizer, prompt, self.prepend_bos, n_rows(self.model), n_vocab, self.engine.start_token
            )
        if isinstance(prompt, SourceTarget):
            raise TypeError(
                f"{self.name} has no encoder that reads a source: give the prompt as one text, not {prompt!r}"
            )
        return tokenize(self.tokenizer, prompt, self.prepend_bos, n_vocab)

    def text_ids(self, text: str) -> list[int]:
        """The ids of a piece of text, without special tokens; without a tokenizer, of ids written out.

        Of WordPiece's tokenizers, a continuation may be written as it is shown, "##ing".
        """
        return written_ids(text) if self.tokenizer is None else typed_ids(self.tokenizer, text)

    def tokenize_ids(self, ids: Sequence[int], source: Tokens | None = None) -> Tokens:
        """Token ids as a prompt; with their text, if that text would give the same ids again.

        With a `source`, what the decoder reads; raises ValueError if that does not begin with its start token.
        """
        if source is not None:
            start = self.engine.start_token
            if start is not None and ids[0] != start:
                raise ValueError(f"the decoder begins with {self.show_token(start)}: no other token can stand there")
            target = self.tokenize(SourceTarget(source.ids, tuple(ids)))
            if self.tokenizer is not None:
                text = self.tokenizer.decode(ids[1:], skip_special_tokens=True)
                written = self.tokenize(SourceTarget(source.ids, text))
                target = written if written.ids == target.ids else target
            return replace(target, source=source)
        tokens = self.tokenize(tuple(ids))
        if self.tokenizer is None:
            return tokens
        t = self.tokenizer
        bare = ids[1:] if ids[0] in (t.bos_token_id, t.cls_token_id) else ids
        bare = bare[:-1] if len(bare) and bare[-1] in (t.eos_token_id, t.sep_token_id) else bare
        from_text = self.tokenize(self.tokenizer.decode(bare)) if len(bare) else tokens
        return from_text if from_text.ids == tokens.ids else tokens

    def token_text(self, token_id: int) -> str:
        """A token as the tokenizer writes it; where there is none that does, as it is shown."""
        piece = None if self.tokenizer is None else self.tokenizer.convert_ids_to_tokens(token_id)
        return self.show_token(token_id) if piece is None else str(piece)

    def show_token(self, token_id: int) -> str:
        """A token made visible: ␣ for a space, ↵ for a line end."""
        return display(self.tokenizer, [token_id])[0]

    def token_id(self, answer: str | int) -> int:
        """The id of an answer that is one token, given as text or id.

        Raises ValueError if the text is several tokens, showing them, or if the id is out of range.
        """
        if not isinstance(answer, str):
            n_vocab = self.engine.architecture.n_vocab
            if not hasattr(answer, "__index__"):
                raise TypeError(f"a token is text or an id, got {type(answer).__name__}: {answer!r}")
            if not 0 <= answer.__index__() < n_vocab:
                raise ValueError(f"token id {answer} is out of range: the vocabulary has ids 0 to {n_vocab - 1}")
            return answer.__index__()
        if self.tokenizer is None:
            raise TypeError(f"this session has no tokenizer: give the answer as a token id, not {answer!r}")
        return one_token(self.tokenizer, answer)

    def after_space(self, token_id: int) -> int | None:
        """The token of the same text with a space before it; None if there is none or the token begins with one."""
        text = "" if self.tokenizer is None else self.tokenizer.decode([token_id])
        if not text or text[0].isspace() or token_id in self.tokenizer.all_special_ids:
            return None
        ids = bare_ids(self.tokenizer, f" {text}")
        return ids[0] if len(ids) == 1 and ids[0] != token_id else None

    def answer_position(self, tokens: Tokens) -> int | None:
        """Where the answer to a prompt is read: at the last position, or where a masked language model's first mask is.

        None if nothing is masked.
        """
        if self.causal:
            return len(tokens) - 1
        return next((i for i, token in enumerate(tokens.ids) if self._is_mask(token)), None)

    def targets(self, tokens: Tokens) -> list[int | None]:
        """The token that each position is to predict: the next one, or itself in a masked language model.

        None where the prompt does not say: at the last position, or under a mask.
        """
        if self.causal:
            return [*tokens.ids[1:], None]
        return [None if self._is_mask(token) else token for token in tokens.ids]

    def _is_mask(self, token: int) -> bool:
        return self.tokenizer is not None and token == self.tokenizer.mask_token_id

    def _answer_position(self, tokens: Tokens, given: int | None) -> int:
        at = self.answer_position(tokens) if given is None else given
        if at is None:
            raise ValueError(NOTHING_MASKED)
        return resolve(at, len(tokens), "answer_position")[0]


def n_rows(model: nn.Module) -> int:
    """How many ids the model's embedding takes."""
    return model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
