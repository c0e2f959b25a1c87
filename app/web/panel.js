/** The side panel: a document's text with the cited words highlighted. */

import { Problem, showDocument } from "./api.js";
import { placeOf } from "./citations.js";
import { splitAt } from "./offsets.js";
import { showWords } from "./words.js";

const OLDER = "This document has changed since the answer was written. This is what it said then:";
const WITHDRAWN = "This document is no longer available. The answer was written from these words:";
const ELSEWHERE = "The cited words could not be placed in the text of the document. They are:";

export class Panel {
  #root = document.getElementById("panel");
  #title = document.getElementById("panel-title");
  #place = document.getElementById("panel-place");
  #source = document.getElementById("panel-source");
  #body = document.getElementById("panel-body");
  #loading = null;
  #onToggle;

  /** `onToggle(isOpen)` is called when the panel opens or closes. */
  constructor(onToggle) {
    this.#onToggle = onToggle;
    document.getElementById("close-panel").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return !this.#root.hidden;
  }

  /** Shows a citation; closing gives the focus back to `opener`, which is marked as long as the panel is open. */
  async open(citation, opener) {
    this.#opener()?.removeAttribute("aria-current");
    opener.setAttribute("aria-current", "true");
    this.#head(citation.title, placeOf(citation), citation.source);
    if (!this.isOpen) {
      this.#root.hidden = false;
      this.#onToggle(true);
    }
    this.#title.focus();
    await this.#load(citation, citation.version);
  }

  close({ restoreFocus = true } = {}) {
    if (!this.isOpen) return;
    this.#loading?.abort();
    this.#root.hidden = true;
    this.#body.replaceChildren();
    const opener = this.#opener();
    opener?.removeAttribute("aria-current");
    this.#onToggle(false);
    if (restoreFocus) opener?.focus();
  }

  /** Looked up, because a marker is built anew while its answer streams. */
  #opener() {
    return document.querySelector("[aria-current='true']");
  }

  async #load(citation, version) {
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    this.#show(paragraph("Opening the document…", "quiet"));
    this.#body.setAttribute("aria-busy", "true");
    let shown = null;
    try {
      const found = await showDocument(citation.document_id, version, loading.signal);
      shown = () => this.#document(found, version === null ? null : citation);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      shown = () => this.#refused(error, citation);
    } finally {
      if (this.#loading === loading) this.#body.removeAttribute("aria-busy");
    }
    if (this.#loading === loading) shown();
  }

  #document(found, citation) {
    const text = document.createElement("div");
    text.className = "document-text";
    text.dir = "auto";
    if (found.language !== null) text.lang = found.language;
    if (citation === null) {
      this.#head(found.title, "", found.source);
      text.append(found.text);
      this.#show(text);
      this.#body.scrollTop = 0;
      return;
    }
    const parts = splitAt(found.text, citation.start, citation.end);
    if (parts === null) {
      text.append(found.text);
      this.#show(paragraph(ELSEWHERE, "panel-note"), quote(citation.quote), text);
      return;
    }
    const mark = document.createElement("mark");
    mark.append(parts[1]);
    text.append(parts[0], mark, parts[2]);
    this.#show(text);
    mark.scrollIntoView({ block: "center" });
  }

  #refused(problem, citation) {
    if (problem.status === 410) {
      const current = button("Open the document as it is now", () => this.#load(citation, null));
      this.#show(paragraph("Older version", "panel-label"), paragraph(OLDER, "panel-note"), quote(citation.quote), current);
    } else if (problem.status === 404) {
      this.#show(paragraph("No longer available", "panel-label"), paragraph(WITHDRAWN, "panel-note"), quote(citation.quote));
    } else {
      const again = button("Try again", () => this.#load(citation, citation.version));
      this.#show(paragraph(problem.title, "panel-label"), paragraph(problem.detail, "panel-note"), again);
    }
  }

  #head(title, place, source) {
    this.#title.textContent = title;
    this.#place.textContent = place;
    this.#place.hidden = place === "";
    this.#source.textContent = source;
    this.#source.hidden = source === title;
  }

  #show(...nodes) {
    this.#body.replaceChildren(...nodes);
  }
}

function paragraph(text, className) {
  const node = document.createElement("p");
  node.className = className;
  showWords(node, text);
  return node;
}

function quote(text) {
  const node = document.createElement("blockquote");
  node.dir = "auto";
  node.textContent = text;
  return node;
}

function button(label, act) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "plain-button";
  node.textContent = label;
  node.addEventListener("click", act);
  return node;
}
