"""Fetches a page or a file by HTTP(S): conditional, streamed to a size limit, every redirect judged anew. Uses egress.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urldefrag, urljoin, urlsplit

from corpus.addresses import Guard
from corpus.egress import Answer, Egress, Limits, Timeouts
from corpus.errors import EgressBroken, EgressRefused, PageTooLarge

MAX_REDIRECTS = 5
OVER_BYTES = 1_000_000
"""How far the egress' own limit lies above ours, so that ours is the one that is told."""

PAGE_TIMEOUTS = Timeouts(connect_s=10.0, response_s=30.0, total_s=300.0)


@dataclass(frozen=True, slots=True)
class Page:
    """What a server said. `fresh`: the body was handed over; `unchanged`: it is what the validators name; `gone`: 404, 410."""

    outcome: Literal["fresh", "unchanged", "gone"]
    content_type: str = ""
    etag: str | None = None
    last_modified: str | None = None


class Fetcher:
    """Fetches pages, each origin over its own connections. Belongs to one event loop."""

    def __init__(self, guard: Guard, *, max_bytes: int, timeouts: Timeouts = PAGE_TIMEOUTS) -> None:
        self._guard, self._max_bytes, self._timeouts = guard, max_bytes, timeouts
        self._origins: dict[str, Egress] = {}

    async def fetch(
        self, url: str, write: Callable[[bytes], object], *, etag: str | None = None, last_modified: str | None = None
    ) -> Page:
        """Get a page; its body goes to `write`, part by part.

        Raises: EgressRefused for an address that may not be reached, PageTooLarge, and like `Egress.stream`.
        """
        headers = {"Accept": "*/*"}
        if etag:
            headers["If-None-Match"] = etag
        if last_modified:
            headers["If-Modified-Since"] = last_modified
        for _ in range(MAX_REDIRECTS + 1):
            async with self._egress(url).stream(
                url,
                method="GET",
                headers=headers,
                timeouts=self._timeouts,
                limits=Limits(answer_bytes=self._max_bytes + OVER_BYTES),
                hand_over_redirects=True,
            ) as answer:
                location = answer.header("location")
                if answer.status not in (301, 302, 303, 307, 308) or location is None:
                    return await self._page(url, answer, write)
            url = _next_hop(url, location)
        raise EgressRefused(f"{urlsplit(url).netloc}: more than {MAX_REDIRECTS} redirects; give the final address")

    async def _page(self, url: str, answer: Answer, write: Callable[[bytes], object]) -> Page:
        match answer.status:
            case 304:
                return Page("unchanged")
            case 404 | 410:
                return Page("gone")
            case 200:
                pass
            case _:
                raise EgressBroken(f"{urlsplit(url).netloc}: answered with status {answer.status}")
        size = 0
        deadline = asyncio.get_running_loop().time() + self._timeouts.total_s
        while (part := await answer.next_part(deadline)) is not None:
            size += len(part)
            if size > self._max_bytes:
                raise PageTooLarge(f"{urlsplit(url).netloc}: the page has more than {self._max_bytes:,} bytes")
            write(part)
        return Page(
            "fresh", answer.header("content-type") or "", _validator(answer, "etag"), _validator(answer, "last-modified")
        )

    def _egress(self, url: str) -> Egress:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise EgressRefused("the address is not a URL; nothing was sent") from error
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._origins:
            self._origins[origin] = Egress([url], guard=self._guard, max_connections=8)
        return self._origins[origin]

    async def close(self) -> None:
        """Close every connection."""
        for egress in self._origins.values():
            await egress.close()


def _next_hop(url: str, location: str) -> str:
    try:
        to = urldefrag(urljoin(url, location)).url
    except ValueError as error:
        raise EgressRefused(f"{urlsplit(url).netloc}: redirects to something that is no address") from error
    if urlsplit(url).scheme == "https" and urlsplit(to).scheme != "https":
        raise EgressRefused(f"{urlsplit(url).netloc}: redirects from https:// to {urlsplit(to).scheme[:20]!r}; refused")
    return to


def _validator(answer: Answer, name: str) -> str | None:
    """A validator as it can be sent back; one that HTTP would not carry is not kept."""
    value = answer.header(name)
    return value if value and value.isascii() and value.isprintable() and len(value) <= 1000 else None
