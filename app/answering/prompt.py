"""Builds the prompt from the files in the prompts folder, within a token budget. Pure but for loading the files."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from app.answering.sections import Surroundings, whole
from app.settings import PromptSettings
from corpus.errors import ConfigError, Invalid
from corpus.types import Message, Passage

HISTORY_SHARE = 3
"""At most one part in three of what system prompt and question leave goes to the history."""

MESSAGE_TOKENS = 4
"""What a chat format adds to a message. Source: OpenAI's cookbook on counting tokens, which gives 3 and one for the role."""

_FIELDS = {"system.txt": set[str](), "passages.txt": {"passages", "question"}, "rewrite.txt": {"conversation", "question"}}


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompt files. `version` is the hash of all of them, stored with every answer."""

    system: str
    passages: str
    rewrite: str
    version: str

    @staticmethod
    def load(settings: PromptSettings) -> Prompts:
        """Read the files. Raises: ConfigError where one is missing or has an unknown or a missing {field}."""
        if settings.folder is None:
            raise ConfigError("prompt.folder is not set")
        texts = {}
        for name, fields in _FIELDS.items():
            path = settings.folder / name
            try:
                texts[name] = path.read_text(encoding="utf-8").strip()
                # A file without fields is used as it is, so braces mean nothing in it.
                parsed = string.Formatter().parse(texts[name]) if fields else ()
                found = {field for _, field, _, _ in parsed if field is not None}
            except (OSError, UnicodeDecodeError, ValueError) as error:
                raise ConfigError(f"prompt file {str(path)!r} cannot be used: {error}") from error
            if found != fields:
                wanted = ", ".join(f"{{{field}}}" for field in sorted(fields))
                raise ConfigError(
                    f"prompt file {str(path)!r} must hold {wanted} and no other field in braces; double a brace to show one"
                )
        digest = hashlib.sha256("\x00".join(texts[name] for name in sorted(texts)).encode()).hexdigest()
        return Prompts(texts["system.txt"], texts["passages.txt"], texts["rewrite.txt"], digest[:12])


@dataclass(frozen=True, slots=True)
class Built:
    """A finished prompt: its messages, the passages and the earlier messages that found room in it, its size."""

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    history: tuple[Message, ...]
    tokens: int


def shown(number: int, passage: Passage) -> str:
    """A numbered passage as the prompt shows it: where it stands, then its text."""
    where = " › ".join([passage.title, *passage.heading])
    page = f" (page {passage.page})" if passage.page is not None else ""
    return f"[{number}] {where}{page}\n{passage.text}"


def build(
    prompts: Prompts,
    question: str,
    history: Sequence[Message],
    passages: Sequence[Passage],
    *,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
    instructions: str = "",
    surroundings: Surroundings = Surroundings(),
) -> Built:
    """System, history, numbered passages and question, together within the budget.

    Order of what goes first when room is short: the oldest turns, then the lowest passages. No message and no passage is cut.
    With what is left, passages are made whole sections of their surroundings, see `whole`.
    Raises: Invalid where system prompt and question are over the budget, or leave no room for any passage.
    """
    system = f"{prompts.system}\n\n{instructions}" if instructions else prompts.system

    def cost(text: str) -> int:
        return count_tokens(text) + MESSAGE_TOKENS

    left = budget_tokens - cost(system) - cost(prompts.passages.format(passages="", question=question))
    if left < 0:
        raise Invalid(
            f"the question and the instructions are {-left} tokens over prompt.budget_tokens {budget_tokens}; "
            "shorten them, or raise it",
            "question",
        )
    kept_history = _newest(history, left // HISTORY_SHARE, cost)
    left -= sum(cost(message.content) for message in kept_history)
    kept: list[Passage] = []

    @cache
    def size_of(number: int, passage: Passage) -> int:
        return count_tokens(shown(number, passage)) + 1

    for passage in passages:
        size = size_of(len(kept) + 1, passage)
        if size > left:
            break
        kept.append(passage)
        left -= size
    if passages and not kept:
        raise Invalid(
            f"the question and the instructions leave {left} of prompt.budget_tokens {budget_tokens}, too few for a passage; "
            "shorten them, or raise it",
            "question",
        )
    kept, left = whole(kept, surroundings, left, size_of)
    listed = "\n\n".join(shown(number, passage) for number, passage in enumerate(kept, start=1))
    asked = prompts.passages.format(passages=listed, question=question)
    messages = (Message("system", system), *kept_history, Message("user", asked))
    return Built(messages, tuple(kept), tuple(kept_history), budget_tokens - left)


def _newest(history: Sequence[Message], budget: int, cost: Callable[[str], int]) -> list[Message]:
    """The newest messages that fit, beginning with a user's: an answer without its question would mislead."""
    kept: list[Message] = []
    for message in reversed(history):
        budget -= cost(message.content)
        if budget < 0:
            break
        kept.insert(0, message)
    while kept and kept[0].role != "user":
        kept.pop(0)
    return kept
