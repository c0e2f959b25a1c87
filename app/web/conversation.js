/** The conversation on the screen: asks, shows the stream, opens a stored one, and keeps its id in the address. */

import { Problem, ask, showConversation } from "./api.js";
import { sourcesOf } from "./citations.js";
import { Turn } from "./turn.js";
import { showWords } from "./words.js";

const DRAFT = "archivist.draft";

export class Conversation {
  #turns = document.getElementById("turns");
  #empty = document.getElementById("empty");
  #older = document.getElementById("older-messages");
  #scroller = document.getElementById("scroller");
  #title = document.getElementById("title");
  #composer = document.getElementById("composer");
  #question = document.getElementById("question");
  #grow = document.getElementById("grow");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");
  #announcer = document.getElementById("announcer");
  #hooks;
  #id = null;
  #running = null;
  #olderCursor = null;
  #opening = 0;

  /**
   * `hooks`: openCitation(citation, button), changed(id) after a turn was stored, left() when another conversation is shown,
   * failed() after an error.
   */
  constructor(hooks) {
    this.#hooks = hooks;
    this.#composer.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#question.addEventListener("keydown", (event) => {
      // While an input method composes a word, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#question.addEventListener("input", () => this.#keepDraft());
    this.#stop.addEventListener("click", () => this.stop());
    this.#older.addEventListener("click", () => this.#loadOlder());
    this.#setDraft(sessionStorage.getItem(DRAFT) ?? "");
  }

  get id() {
    return this.#id;
  }

  get isRunning() {
    return this.#running !== null;
  }

  focusQuestion() {
    this.#question.focus();
  }

  /** Ends the answer that is being written; what came of it stays on the screen. */
  stop() {
    this.#running?.abort();
  }

  /** An empty screen for a new conversation. */
  begin() {
    this.#leave();
    this.#id = null;
    this.#setTitle("New conversation");
    this.#empty.hidden = false;
  }

  /** Shows a stored conversation. A problem is shown in its place, with a way to try again. */
  async open(conversationId) {
    this.#leave();
    const opening = this.#opening;
    this.#id = conversationId;
    this.#setTitle("Opening…");
    this.#empty.hidden = true;
    try {
      const found = await showConversation(conversationId, null);
      if (opening !== this.#opening) return;
      this.#setTitle(found.title);
      this.#olderCursor = found.next_cursor;
      this.#older.hidden = found.next_cursor === null;
      this.#turns.append(...this.#restored(found.messages));
      this.#showLast();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (opening !== this.#opening) return;
      this.#cannotOpen(error, conversationId);
    }
  }

  #leave() {
    this.stop();
    if (this.isRunning) this.#setRunning(null);
    this.#opening += 1;
    this.#olderCursor = null;
    this.#older.hidden = true;
    this.#turns.replaceChildren();
    this.#announcer.textContent = "";
    this.#hooks.left();
  }

  #cannotOpen(problem, conversationId) {
    this.#setTitle(problem.status === 404 ? "Not found" : problem.title);
    const item = document.createElement("li");
    item.className = "turn problem is-error";
    const [heading, detail, again] = ["h3", "p", "button"].map((tag) => document.createElement(tag));
    heading.textContent = problem.title;
    showWords(detail, problem.status === 404 ? "There is no such conversation, or it is not yours." : problem.detail);
    again.type = "button";
    again.className = "plain-button";
    again.textContent = "Try again";
    again.addEventListener("click", () => this.open(conversationId));
    item.append(heading, detail, again);
    this.#turns.replaceChildren(item);
    this.#announce(`${heading.textContent}. ${detail.textContent}`);
    if (problem.status === 404) this.#id = null;
  }

  async #loadOlder() {
    const opening = this.#opening;
    this.#older.disabled = true;
    try {
      const found = await showConversation(this.#id, this.#olderCursor);
      if (opening !== this.#opening) return;
      this.#olderCursor = found.next_cursor;
      this.#older.hidden = found.next_cursor === null;
      const height = this.#scroller.scrollHeight;
      this.#turns.prepend(...this.#restored(found.messages));
      this.#scroller.scrollTop += this.#scroller.scrollHeight - height;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#announce(`${error.title}. ${error.detail}`);
    } finally {
      this.#older.disabled = false;
    }
  }

  #restored(messages) {
    const nodes = [];
    let question = "";
    for (const message of messages) {
      if (message.role === "user") {
        question = message.content;
        continue;
      }
      const turn = this.#newTurn(question);
      turn.restore(message);
      nodes.push(turn.node);
    }
    return nodes;
  }

  #newTurn(question) {
    return new Turn(question, { open: this.#hooks.openCitation, again: (turn) => this.#run(turn) });
  }

  #submit() {
    const question = this.#question.value.trim();
    if (question === "" || this.isRunning) {
      this.focusQuestion();
      return;
    }
    const turn = this.#newTurn(question);
    this.#empty.hidden = true;
    this.#turns.append(turn.node);
    this.#setDraft("");
    this.#run(turn);
  }

  async #run(turn) {
    if (this.isRunning) return;
    const running = new AbortController();
    // Until the service has stored it, the question is kept for a reload.
    sessionStorage.setItem(DRAFT, turn.question);
    this.#setRunning(running);
    turn.restart();
    if (turn.node === this.#turns.lastElementChild) this.#showLast();
    this.#announce("Looking through the documents");
    const isHere = () => turn.node.isConnected;
    try {
      const answer = await this.#stream(turn, running);
      turn.finish(answer);
      this.#forget(turn);
      if (isHere()) this.#stored(turn, answer);
      this.#hooks.changed(this.#id);
    } catch (error) {
      if (error.name === "AbortError") {
        turn.stop();
        this.#forget(turn);
        if (isHere()) this.#announce("Stopped");
      } else if (error instanceof Problem) {
        turn.fail(error);
        if (isHere()) this.#announce(`${error.title}. ${error.detail}`);
        this.#hooks.failed();
      } else {
        turn.fail(new Problem(0, "The answer cannot be shown", "The service sent something this page does not understand."));
        throw error;
      }
      this.#hooks.changed(this.#id);
    } finally {
      if (this.#running === running) this.#setRunning(null);
    }
  }

  async #stream(turn, running) {
    let answer = null;
    // Read to the very end: only then the service takes the next question of this conversation.
    for await (const { name, data } of ask(turn.question, this.#id, running.signal)) {
      if (name === "sources") turn.found(data.citations);
      else if (name === "delta") turn.add(data.text);
      else if (name === "done") answer = data;
      else if (name === "error") throw new Problem(data.status, data.title, data.detail);
    }
    if (answer === null) throw new Problem(0, "The answer was cut off", "The connection ended before the answer did.");
    return answer;
  }

  #stored(turn, answer) {
    if (this.#id === null && answer.conversation_id !== null) {
      this.#id = answer.conversation_id;
      this.#setTitle(turn.question);
    }
    const sources = sourcesOf(answer.citations).length;
    const count = sources === 0 ? "" : ` ${sources} ${sources === 1 ? "source" : "sources"}.`;
    this.#announce(`${turn.text.replace(/\s*\[\d{1,3}\]/g, "")}${count}`);
  }

  #forget(turn) {
    if (sessionStorage.getItem(DRAFT) === turn.question) this.#keepDraft();
  }

  #setRunning(running) {
    const stopHadFocus = document.activeElement === this.#stop;
    const sendHadFocus = document.activeElement === this.#send;
    this.#running = running;
    this.#send.hidden = running !== null;
    this.#stop.hidden = running === null;
    if (sendHadFocus) this.#stop.focus();
    // A touch screen would raise its keyboard over the answer.
    if (stopHadFocus && !matchMedia("(pointer: coarse)").matches) this.focusQuestion();
    if (running !== null && matchMedia("(pointer: coarse)").matches) this.#question.blur();
  }

  #setDraft(text) {
    this.#question.value = text;
    this.#keepDraft();
  }

  #keepDraft() {
    // The box grows with a hidden copy of its text; see style.css.
    this.#grow.dataset.copy = this.#question.value;
    if (this.#question.value === "") sessionStorage.removeItem(DRAFT);
    else sessionStorage.setItem(DRAFT, this.#question.value);
  }

  #setTitle(title) {
    this.#title.textContent = title;
    document.title = title === "New conversation" ? "Archivist" : `${title} – Archivist`;
  }

  #announce(text) {
    this.#announcer.textContent = text;
  }

  /** The last question at the top of the screen, its answer under it: it can be read while it grows, and nothing jumps. */
  #showLast() {
    this.#turns.lastElementChild?.querySelector(".question")?.scrollIntoView({ block: "start" });
  }
}
