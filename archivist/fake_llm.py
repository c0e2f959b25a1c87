"""`archivist fake-llm`: every knob of the fake as an option."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from app.llm.fake.behaviour import FakeBehaviour, Hang, Mode


def fake_llm(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")],
    host: Annotated[str, typer.Option(help="Address to listen on; this machine only.")] = "127.0.0.1",
    record: Annotated[Path | None, typer.Option(help="File that every request is appended to, with all that it held.")] = None,
    mode: Annotated[Mode, typer.Option(help="Say --reply, the prompt, or what it orders.")] = "reply",
    reply: Annotated[str, typer.Option(help="The answer; {model} in it is the model asked.")] = "The fake model says hello.",
    tokens: Annotated[int | None, typer.Option(min=0, help="Answer with so many numbered words instead.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="A model it knows, not any. Repeatable.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="The key it asks for; another gets HTTP 401, or 400 in Google's format.")
    ] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Longest prompt, in words; a longer one gets HTTP 400.")] = None,
    cached_tokens: Annotated[int, typer.Option(min=0, help="Words of the prompt that it reports as cached.")] = 0,
    first_token_delay_s: Annotated[float, typer.Option(help="Seconds before the first token.")] = 0.0,
    tokens_per_second: Annotated[float | None, typer.Option(help="Speed of the others.")] = None,
    status: Annotated[int, typer.Option(help="HTTP status, such as 429 or 500.")] = 200,
    error_message: Annotated[str, typer.Option(help="What an error says.")] = "the fake was told to fail",
    retry_after: Annotated[str | None, typer.Option(help="Retry-After of an error; Google's RetryInfo if seconds.")] = None,
    fail_first: Annotated[int | None, typer.Option(min=1, help="Give --status to so many calls, then answer.")] = None,
    redirect_to: Annotated[str | None, typer.Option(help="Address it redirects to.")] = None,
    hang: Annotated[Hang | None, typer.Option(help="Where it stops for ever; tls = a connection that nobody reads.")] = None,
    cut_after_tokens: Annotated[int | None, typer.Option(help="Cut the connection after so many tokens.")] = None,
    end_after_tokens: Annotated[int | None, typer.Option(help="End the stream after so many, as if it were whole.")] = None,
    malformed_event_after_tokens: Annotated[int | None, typer.Option(help="Then an event that is not JSON.")] = None,
    error_after_tokens: Annotated[int | None, typer.Option(help="Then an error inside the stream.")] = None,
    omit_usage: Annotated[bool, typer.Option("--omit-usage", help="No token counts in an answer.")] = False,
    omit_done: Annotated[bool, typer.Option("--omit-done", help="No [DONE] or message_stop at a stream's end.")] = False,
    keep_open: Annotated[bool, typer.Option("--keep-open", help="Never close a stream.")] = False,
    finish_reason: Annotated[str | None, typer.Option(help="The finish reason it states.")] = None,
    tool_call: Annotated[bool, typer.Option("--tool-call", help="A tool call at the answer's end.")] = False,
    refusal: Annotated[bool, typer.Option("--refusal", help="The answer is a refusal.")] = False,
    content_type: Annotated[str, typer.Option(help="Content type of a stream.")] = "text/event-stream",
    huge_answer_bytes: Annotated[int, typer.Option(help="Answer with so many bytes of filler.")] = 0,
    huge_in_one_event: Annotated[bool, typer.Option("--huge-in-one-event", help="Put them into one event.")] = False,
) -> None:
    """Run a stand-in LLM on this machine, in OpenAI's, Anthropic's and Google's format, that misbehaves on command.

    Nothing of it is intelligent.
    """
    from app.llm.fake.server import run_fake_llm

    # Each option but the first three is a field of FakeBehaviour, under its name.
    knobs = {field.name: context.params[field.name] for field in fields(FakeBehaviour)}
    behaviour = FakeBehaviour(**{**knobs, "models": tuple(models or ())})
    run_fake_llm(host, port, behaviour, record, on_ready=_print_addresses)


def _print_addresses(address: str) -> None:
    for name, path in (("openai", "/v1"), ("anthropic", "/v1"), ("google", "/v1beta")):
        print(f"{name:<10} {address}{path}", flush=True)  # noqa: T201 - flushed: whoever started it may wait for these lines
