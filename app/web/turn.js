/** One question and its answer on the screen, in every state: working, streaming, done, stopped, failed, withdrawn. */

import { markersOf, showSources } from "./citations.js";
import { showProse } from "./prose.js";
import { showWords } from "./words.js";

const PLAIN_ROUTES = new Set(["", "the default provider"]);
const REDRAW_MS = 60;

const WORKING = "Looking through the documents";

const NOTES = {
  cancelled: "Stopped before the end.",
  failed: "This answer failed before its end.",
};

export class Turn {
  #parts;
  #open;
  #text = "";
  #markers = () => null;
  #redraw = null;

  /** `open(citation, button)` shows a citation, `again(turn)` asks the question once more. */
  constructor(question, { open, again }) {
    this.question = question;
    this.node = document.getElementById("turn-template").content.firstElementChild.cloneNode(true);
    this.#open = open;
    const part = (selector) => this.node.querySelector(selector);
    this.#parts = {
      answer: part(".answer"),
      working: part(".working"),
      workingText: part(".working-text"),
      verdict: part(".verdict"),
      prose: part(".prose"),
      note: part(".note"),
      sources: part(".sources"),
      meta: part(".meta"),
      problem: part(".problem"),
      again: part(".problem button"),
    };
    part(".question-text").textContent = question;
    this.#parts.again.addEventListener("click", () => again(this));
  }

  /** The words of the answer so far. */
  get text() {
    return this.#text;
  }

  /** Back to the state before the first event, to ask again. */
  restart() {
    this.#text = "";
    this.#markers = () => null;
    this.#parts.prose.replaceChildren();
    this.#parts.workingText.textContent = WORKING;
    this.#parts.working.hidden = false;
    for (const name of ["verdict", "note", "sources", "meta", "problem"]) this.#parts[name].hidden = true;
    this.#parts.answer.classList.remove("abstained", "withdrawn");
    this.#parts.answer.setAttribute("aria-busy", "true");
  }

  /** The passages that the answer may cite. */
  found(citations) {
    this.#markers = markersOf(citations, this.#open);
    this.#parts.workingText.textContent = citations.length === 0 ? "Nothing found" : "Reading what was found";
  }

  /** The next words. Drawn a few times a second, however fast they come. */
  add(words) {
    this.#text += words;
    this.#redraw ??= setTimeout(() => this.#draw(), REDRAW_MS);
  }

  /** The whole answer, as the service sends it last or has stored it. */
  finish(answer) {
    this.#text = answer.answer;
    this.#markers = markersOf(answer.citations, this.#open);
    this.#settle();
    const isMissing = answer.abstained === true && answer.clarifies !== true;
    this.#parts.answer.classList.toggle("abstained", isMissing);
    if (isMissing) this.#say("verdict", "No answer in the documents");
    showSources(this.#parts.sources, answer.citations, this.#open);
    this.#showMeta(answer);
  }

  /** An answer that ended early by the person's own wish. */
  stop() {
    this.#settle();
    this.#say("note", NOTES.cancelled);
    this.#offerAgain("", "", "Ask again");
  }

  /** An answer that failed; what came of it stays. */
  fail(problem) {
    this.#settle();
    if (this.#text !== "") this.#say("note", "This answer is not complete.");
    this.#offerAgain(problem.title, problem.detail, "Try again");
  }

  /** A stored message of the assistant. */
  restore(message) {
    if (message.withdrawn) {
      this.#text = message.content;
      this.#settle();
      this.#parts.answer.classList.add("withdrawn");
      this.#say("verdict", "Withdrawn");
      return;
    }
    this.finish({ ...message, answer: message.content });
    if (message.status !== "complete") {
      this.#say("note", NOTES[message.status]);
      this.#offerAgain("", "", "Ask again");
    }
  }

  #draw({ fresh = false } = {}) {
    clearTimeout(this.#redraw);
    this.#redraw = null;
    const { prose, working } = this.#parts;
    const markers = () => [...prose.querySelectorAll(".marker")];
    const before = markers();
    const focused = before.indexOf(document.activeElement);
    const current = before.findIndex((marker) => marker.hasAttribute("aria-current"));
    showProse(prose, this.#text, this.#markers, { fresh });
    if (this.#text !== "") working.hidden = true;
    // Markers that were built anew take over from those before them.
    const after = markers();
    if (current !== -1) after[current]?.setAttribute("aria-current", "true");
    if (focused !== -1 && document.activeElement !== after[focused]) after[focused]?.focus({ preventScroll: true });
  }

  #settle() {
    this.#draw({ fresh: true });
    this.#parts.working.hidden = true;
    this.#parts.workingText.textContent = WORKING;
    this.#parts.answer.removeAttribute("aria-busy");
  }

  #say(part, text) {
    this.#parts[part].textContent = text;
    this.#parts[part].hidden = false;
  }

  #offerAgain(title, detail, label) {
    const { problem, again } = this.#parts;
    const [heading, text] = [problem.querySelector("h3"), problem.querySelector("p")];
    heading.textContent = title;
    heading.hidden = title === "";
    showWords(text, detail);
    text.hidden = detail === "";
    problem.classList.toggle("is-error", title !== "");
    again.textContent = label;
    problem.hidden = false;
  }

  #showMeta(answer) {
    const { meta } = this.#parts;
    const facts = [providerOf(answer), timeOf(answer.timings_ms), costOf(answer.usage), routeOf(answer)].filter((fact) => fact !== "");
    meta.replaceChildren(line(facts.join(" · ")));
    const support = supportOf(answer);
    if (support !== null) meta.append(support);
    meta.hidden = meta.textContent === "";
  }
}

function providerOf({ provider, model, abstained }) {
  if (!provider) return "";
  if (provider === "fixed") return "fixed answer";
  if (provider === "extractive") return abstained ? "extractive" : "extractive, quoted from the documents";
  return model && model !== provider ? `${provider} (${model})` : provider;
}

function timeOf(timings) {
  const total = timings?.total;
  if (total === undefined) return "";
  return total < 1000 ? `${Math.round(total)} ms` : `${(total / 1000).toFixed(1)} s`;
}

/** "812 tokens, $0.0021"; nothing where no model was paid or asked. */
function costOf(usage) {
  const tokens = (usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0);
  if (tokens === 0) return "";
  const count = `${usage.estimated ? "about " : ""}${tokens.toLocaleString("en")} tokens`;
  if (usage.cost_usd === null) return `${count}, price not known`;
  return usage.cost_usd > 0 ? `${count}, $${Number(usage.cost_usd.toPrecision(2))}` : count;
}

function routeOf({ route, provider }) {
  return !route || PLAIN_ROUTES.has(route) || route === provider ? "" : route;
}

/** "3 of 4 sentences supported" with the others on demand; null where all are. */
function supportOf({ grounding, abstained }) {
  if (!grounding || abstained || grounding.unsupported.length === 0 || grounding.supported_share >= 1) return null;
  const missing = grounding.unsupported.length;
  const all = Math.max(missing, Math.round(missing / (1 - grounding.supported_share)));
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = `${all - missing} of ${all} sentences supported`;
  const list = document.createElement("ul");
  list.setAttribute("aria-label", "Sentences that no source supports");
  list.append(
    ...grounding.unsupported.map((sentence) => {
      const item = document.createElement("li");
      item.dir = "auto";
      item.textContent = sentence;
      return item;
    }),
  );
  details.append(summary, list);
  return details;
}

function line(text) {
  const node = document.createElement("p");
  node.textContent = text;
  return node;
}
