/** The list of conversations: pages of it, the current one, deleting. */

import { Problem, deleteConversation, listConversations } from "./api.js";
import { confirmDeletion } from "./dialogs.js";

const PAGE = 30;
const MOST_AT_ONCE = 200; // the service's own limit of a page

export class Sidebar {
  #list = document.getElementById("conversations");
  #none = document.getElementById("no-conversations");
  #more = document.getElementById("more-conversations");
  #problem = document.getElementById("list-problem");
  #newButton = document.getElementById("new-conversation");
  #cursor = null;
  #current = null;
  #loads = 0;
  #onDeleted;

  /** `onDeleted(id)` is called after a conversation was deleted. */
  constructor(onDeleted) {
    this.#onDeleted = onDeleted;
    this.#more.addEventListener("click", () => this.#loadMore());
  }

  /** Reads the list anew, as far as it was shown. `asksKey`: whether the person may be asked for the key now. */
  async refresh({ asksKey }) {
    const shown = this.#list.children.length;
    const limit = Math.min(Math.max(PAGE, shown + 1), MOST_AT_ONCE);
    await this.#load(null, limit, asksKey, (items) => this.#replace(items));
  }

  /** Marks the conversation that is on the screen; null = none of the list. */
  select(conversationId) {
    this.#current = conversationId;
    for (const item of this.#list.children) mark(item, conversationId);
  }

  async #loadMore() {
    const count = this.#list.children.length;
    this.#more.disabled = true;
    await this.#load(this.#cursor, PAGE, true, (items) => this.#list.append(...items));
    this.#more.disabled = false;
    this.#list.children[count]?.querySelector("a").focus();
  }

  async #load(cursor, limit, asksKey, show) {
    this.#loads += 1;
    const load = this.#loads;
    try {
      const page = await listConversations(cursor, limit, asksKey);
      if (load !== this.#loads) return; // a later load has the newer list
      this.#problem.hidden = true;
      this.#cursor = page.next_cursor;
      show(page.conversations.map((conversation) => this.#item(conversation)));
      this.#more.hidden = page.next_cursor === null;
      this.#none.hidden = this.#list.children.length > 0;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#tell(`The list cannot be read: ${error.message}`);
    }
  }

  #replace(items) {
    const focused = [...this.#list.children].find((item) => item.contains(document.activeElement));
    const selector = document.activeElement?.matches("button") ? "button" : "a";
    this.#list.replaceChildren(...items);
    const same = items.find((item) => item.dataset.id === focused?.dataset.id);
    same?.querySelector(selector).focus();
  }

  #item(conversation) {
    const item = document.getElementById("conversation-template").content.firstElementChild.cloneNode(true);
    item.dataset.id = conversation.conversation_id;
    item.querySelector("a").href = `#c/${encodeURIComponent(conversation.conversation_id)}`;
    item.querySelector(".conversation-title").textContent = conversation.title;
    const time = item.querySelector("time");
    time.dateTime = conversation.updated_at;
    time.textContent = shortTime(new Date(conversation.updated_at));
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Delete “${conversation.title}”`);
    button.addEventListener("click", () => this.#delete(item, conversation));
    mark(item, this.#current);
    return item;
  }

  async #delete(item, conversation) {
    if (!(await confirmDeletion(conversation.title))) return;
    try {
      await deleteConversation(conversation.conversation_id);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      // One that is gone already is what was wanted.
      if (error.status !== 404) {
        this.#tell(`“${conversation.title}” was not deleted: ${error.message}`);
        return;
      }
    }
    const place = [...this.#list.children].findIndex((each) => each.dataset.id === conversation.conversation_id);
    this.#list.children[place]?.remove();
    this.#none.hidden = this.#list.children.length > 0;
    const next = this.#list.children[Math.min(place, this.#list.children.length - 1)];
    (next?.querySelector("a") ?? this.#newButton).focus();
    this.#onDeleted(conversation.conversation_id);
  }

  #tell(text) {
    this.#problem.textContent = text;
    this.#problem.hidden = false;
  }
}

function mark(item, current) {
  const link = item.querySelector("a");
  if (current !== null && item.dataset.id === current) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function shortTime(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  const parts = isToday ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short", year: "numeric" };
  return new Intl.DateTimeFormat(undefined, parts).format(date);
}
