"""Server-sent events: from bytes, however the network cuts them, to the data of each event. Imports nothing of ours."""

from __future__ import annotations


class EventParser:
    """Cuts a byte stream into the data of its server-sent events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, without event names, ids and retry.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()  # grown in place: an endless event that drips in must not be copied with every drop
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """The events that this chunk completes. Raises ValueError where one is larger than allowed."""
        size = len(chunk)
        if (  # the way most events come: one, whole, on one line
            not self._rest
            and chunk.startswith(b"data: ")
            and chunk.find(b"\n") == size - 2
            and chunk.endswith(b"\n")
            and b"\r" not in chunk
            and size <= self._max_event_bytes
        ):
            self._at_start = self._after_cr = False
            return [chunk[6:-2].decode("utf-8", "replace")]
        return self._feed(chunk)

    def _feed(self, chunk: bytes) -> list[str]:
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        rest = self._rest
        if rest:
            may_end = b"\n\n" in chunk or (chunk.startswith(b"\n") and rest.endswith(b"\n"))
            rest += chunk
            if not may_end:
                self._check(len(rest))
                return []
            chunk = bytes(rest)
            rest.clear()
        end = chunk.rfind(b"\n\n")
        rest += chunk[end + 2 :] if end >= 0 else chunk
        self._check(len(rest))
        if end < 0:
            return []
        blocks = chunk[:end].split(b"\n\n")
        if end > self._max_event_bytes:
            self._check(max(len(block) for block in blocks))
        if self._at_start:
            blocks[0] = blocks[0].removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        events: list[str] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(block[6:].decode("utf-8", "replace"))
                continue
            values = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
            if values:
                events.append(b"\n".join(values).decode("utf-8", "replace"))
        return events

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """The chunk with a line feed for each line end; the second half of one that was cut in two is dropped."""
        if not chunk:
            return chunk
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise ValueError(f"one event is larger than {self._max_event_bytes:,} bytes")
