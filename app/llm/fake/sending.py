"""How the fake sends an answer: whole or as a stream, with all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from app.llm.fake.behaviour import Recorded
from app.llm.fake.format import Answer, Format, Reply

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FILLER = "All work and no play makes a dull answer. " * 1000


class Cut(Exception):
    """Ends the connection in the middle of an answer."""


async def for_ever() -> None:
    """Never returns."""
    await asyncio.Event().wait()


async def send_reply(send: Send, reply: Reply) -> None:
    """A whole answer that is not a model's."""
    await _send_start(send, reply.status, "application/json", reply.headers)
    await send({"type": "http.response.body", "body": json.dumps(reply.body).encode()})


async def send_whole(wire: Format, answer: Answer, request: Recorded, send: Send) -> None:
    """A model's answer in one piece."""
    behaviour = answer.behaviour
    if behaviour.hang is not None:
        await for_ever()
    await asyncio.sleep(behaviour.first_token_delay_s)
    text = "".join(answer.tokens)
    if behaviour.huge_answer_bytes:
        text = FILLER * (behaviour.huge_answer_bytes // len(FILLER) + 1)
    body = json.dumps(wire.whole(answer, text)).encode()
    if behaviour.cut_after_tokens is not None and behaviour.cut_after_tokens <= len(answer.tokens):
        await _send_start(send, 200, "application/json", {"content-length": str(len(body))})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        raise Cut
    request.tokens_sent = len(answer.tokens)
    await _send_start(send, 200, "application/json")
    await send({"type": "http.response.body", "body": body})


async def send_stream(wire: Format, answer: Answer, request: Recorded, send: Send) -> None:
    """A model's answer event by event, one event a token."""
    behaviour = answer.behaviour
    await _send_start(send, 200, behaviour.content_type)
    for event in wire.opening(answer):
        await _send_event(send, event)
    if behaviour.hang == "first_token":
        await for_ever()
    await asyncio.sleep(behaviour.first_token_delay_s)
    if behaviour.huge_answer_bytes:
        await _send_huge(wire, answer, request, send)
        goes_on = True
    else:
        goes_on = await _send_tokens(wire, answer, request, send)
    if goes_on and behaviour.end_after_tokens is None:
        for event in wire.ending(answer, request.tokens_sent):
            await _send_event(send, event)
    if behaviour.keep_open:
        await for_ever()
    await send({"type": "http.response.body", "body": b""})


async def _send_tokens(wire: Format, answer: Answer, request: Recorded, send: Send) -> bool:
    """One event a token, and whatever was ordered to go wrong after so many of them; whether the stream goes on."""
    behaviour = answer.behaviour
    before, after = wire.around(answer)
    began = time.monotonic()
    for sent in range(len(answer.tokens) + 1):
        if sent == behaviour.cut_after_tokens:
            raise Cut
        if sent == behaviour.end_after_tokens:
            break
        if sent == behaviour.malformed_event_after_tokens:
            await _send_event(send, wire.malformed_event())
        if sent == behaviour.error_after_tokens:
            await _send_event(send, wire.error_event(behaviour.error_message))
            return False
        if sent == 1 and behaviour.hang == "between_tokens":
            await for_ever()
        if sent == len(answer.tokens):
            break
        if behaviour.tokens_per_second is not None:
            await asyncio.sleep(max(0.0, began + sent / behaviour.tokens_per_second - time.monotonic()))
        await _send_event(send, before + json.dumps(answer.tokens[sent]).encode() + after)
        request.tokens_sent += 1
    return True


async def _send_huge(wire: Format, answer: Answer, request: Recorded, send: Send) -> None:
    """So many bytes of filler: an endless line, or events of ordinary size."""
    before, after = wire.around(answer)
    blocks = -(-answer.behaviour.huge_answer_bytes // len(FILLER))
    if answer.behaviour.huge_in_one_event:
        await _send_event(send, before + b'"')
        for _ in range(blocks):
            await _send_event(send, FILLER.encode())
        await _send_event(send, b'"' + after)
        return
    event = before + json.dumps(FILLER).encode() + after
    for _ in range(blocks):
        await _send_event(send, event)
        request.tokens_sent += 1


async def _send_event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})
    await asyncio.sleep(0)  # sending to a client who left returns at once; let that be noticed, and others be served


async def _send_start(send: Send, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
    everything = {"content-type": content_type, **(headers or {})}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in everything.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
