/** The banner that says when the service cannot answer, or not in full, and what to do. */

import { Problem, readiness } from "./api.js";
import { showWords } from "./words.js";

const CALM_MS = 60_000;
const WORRIED_MS = 10_000;

export class Readiness {
  #banner = document.getElementById("banner");
  #corpus = document.getElementById("corpus");
  #timer = null;
  #told = "";

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.check();
    });
  }

  /** Looks now if something was wrong when it looked last. */
  checkIfWorried() {
    if (this.#told !== "") this.check();
  }

  /** Looks now, and again after a while: sooner while something is wrong. */
  async check() {
    clearTimeout(this.#timer);
    let calm = false;
    try {
      const found = await readiness();
      calm = found.status === "ready";
      // The reasons are told only to those who run the service.
      const reasons = found.advice?.length > 0 ? found.advice : ["Whoever runs this service can see why."];
      this.#tell(calm ? [] : [headline(found.status), ...reasons]);
      this.#describe(found.snapshot);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#tell([error.title, error.detail]);
    }
    if (document.visibilityState === "visible") this.#timer = setTimeout(() => this.check(), calm ? CALM_MS : WORRIED_MS);
  }

  #tell(lines) {
    const text = lines.join("\n");
    if (text === this.#told) return; // said once is enough for those who listen
    this.#told = text;
    this.#banner.hidden = lines.length === 0;
    this.#banner.replaceChildren(...lines.map((line, index) => lineNode(line, index === 0)));
  }

  #describe(snapshot) {
    this.#corpus.hidden = !snapshot;
    if (!snapshot) return;
    const count = new Intl.NumberFormat("en").format(snapshot.documents);
    const when = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short" }).format(new Date(snapshot.created_at));
    this.#corpus.textContent = `${count} ${snapshot.documents === 1 ? "document" : "documents"}, last read on ${when}.`;
  }
}

function headline(status) {
  return status === "unavailable" ? "Archivist cannot answer now" : "Archivist answers with limits";
}

function lineNode(line, isFirst) {
  const node = document.createElement("p");
  if (isFirst) node.className = "banner-title";
  showWords(node, line);
  return node;
}
