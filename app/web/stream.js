/** Server-sent events from a body that arrives in pieces of any size. */

/** One event: its name ("message" where it has none) and its data, lines joined by \n. */
export class EventParser {
  #decoder = new TextDecoder("utf-8");
  #rest = "";
  #afterReturn = false;
  #name = "";
  #data = [];

  /** The events that are complete with these bytes. A piece may end anywhere: in a line, a \r\n, a character. */
  push(bytes) {
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  #take(text) {
    const events = [];
    // \r ends a line at once; a \n that follows it in the next piece belongs to it.
    if (this.#afterReturn && text.length > 0) {
      if (text[0] === "\n") text = text.slice(1);
      this.#afterReturn = false;
    }
    this.#rest += text;
    let from = 0;
    for (;;) {
      const end = lineEnd(this.#rest, from);
      if (end === -1) break;
      const line = this.#rest.slice(from, end);
      from = end + 1;
      if (this.#rest[end] === "\r") {
        if (from === this.#rest.length) this.#afterReturn = true;
        else if (this.#rest[from] === "\n") from += 1;
      }
      const event = this.#line(line);
      if (event !== null) events.push(event);
    }
    this.#rest = this.#rest.slice(from);
    return events;
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length > 0 ? { name: this.#name || "message", data: this.#data.join("\n") } : null;
      this.#name = "";
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon === -1 ? line : line.slice(0, colon);
    let value = colon === -1 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
    return null;
  }
}

/** The events of a response's body. Ending the loop early cancels the request. */
export async function* eventsOf(body) {
  const parser = new EventParser();
  const reader = body.getReader();
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield* parser.push(value);
    }
    ended = true;
  } finally {
    if (!ended) reader.cancel().catch(() => {});
  }
}

function lineEnd(text, from) {
  const feed = text.indexOf("\n", from);
  const back = text.indexOf("\r", from);
  if (feed === -1) return back;
  return back === -1 ? feed : Math.min(feed, back);
}
