"""A prompt, and what came of asking it."""

from __future__ import annotations

from contextlib import aclosing

from app.llm.anthropic import AnthropicBackend
from app.llm.backend import Backend, Finished, Prompt
from app.llm.google import GoogleBackend
from app.llm.openai import OpenAIBackend
from corpus.errors import ArchivistError
from corpus.types import Message

RemoteBackend = OpenAIBackend | AnthropicBackend | GoogleBackend

CANARY = "sk-canary-0815-abcdefgh"
PROMPT = Prompt(
    messages=(Message("system", "Answer from the passages."), Message("user", "How many days of leave?")),
    label="internal",
    max_tokens=64,
)


async def answer_of(backend: Backend, prompt: Prompt = PROMPT) -> tuple[str, Finished]:
    """The text and how it ended. Raises what the backend raises."""
    text, finished = await until_the_end(backend, prompt)
    if isinstance(finished, ArchivistError):
        raise finished
    return text, finished


async def until_the_end(backend: Backend, prompt: Prompt = PROMPT) -> tuple[str, Finished | ArchivistError]:
    """The text that arrived, and how it ended."""
    text = ""
    try:
        async with aclosing(backend.stream(prompt)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return text, event
                text += event.text
    except ArchivistError as error:
        return text, error
    raise AssertionError("the stream ended without Finished")
