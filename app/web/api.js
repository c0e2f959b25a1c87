/** The calls to the service. The only module that calls fetch; every address is one of the page's own origin. */

import { eventsOf } from "./stream.js";

const KEY = "archivist.key";

/** An error that can be told: the service's problem details, or a connection that failed (status 0). */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

let keyAsker = async () => null;
let onKeyGiven = () => {};
let keyBeingAsked = null;

/** `asker(wasWrong)` shows the dialog and returns the key, or null where the person cancels; `onGiven()` comes after it. */
export function askKeyWith(asker, onGiven) {
  keyAsker = asker;
  onKeyGiven = onGiven;
}

/** The answer to a question as its events: {name, data} with data parsed. */
export async function* ask(question, conversationId, signal) {
  const body = { question, stream: true };
  if (conversationId !== null) body.conversation_id = conversationId;
  const response = await call("v1/ask", { method: "POST", body, signal });
  try {
    for await (const event of eventsOf(response.body)) yield { name: event.name, data: JSON.parse(event.data) };
  } catch (error) {
    throw asProblem(error, "The answer was cut off", "The connection ended before the answer did.");
  }
}

/** A page of conversations. `asksKey` false: where the key is missing, that is an error and no dialog. */
export async function listConversations(cursor, limit, asksKey) {
  return (await call(withQuery("v1/conversations", { cursor, limit }), { asksKey })).json();
}

export async function showConversation(conversationId, cursor) {
  return (await call(withQuery(`v1/conversations/${encodeURIComponent(conversationId)}`, { cursor }))).json();
}

export async function deleteConversation(conversationId) {
  await call(`v1/conversations/${encodeURIComponent(conversationId)}`, { method: "DELETE" });
}

/** A document with its text. `version` null = the current one. */
export async function showDocument(documentId, version, signal) {
  return (await call(withQuery(`v1/documents/${encodeURIComponent(documentId)}`, { version }), { signal })).json();
}

/** Whether the service can answer; its body on 503 too. */
export async function readiness() {
  const response = await send("readyz", {});
  if (!response.ok && response.status !== 503) throw await problemOf(response);
  return response.json();
}

async function call(path, options = {}) {
  for (;;) {
    const used = sessionStorage.getItem(KEY);
    const response = await send(path, options);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401 || options.asksKey === false) throw problem;
    // Another call may have been given a key in the meantime.
    if (sessionStorage.getItem(KEY) === used && !(await gotKey(used !== null))) throw problem;
  }
}

async function gotKey(wasWrong) {
  keyBeingAsked ??= keyAsker(wasWrong).finally(() => {
    keyBeingAsked = null;
  });
  const key = await keyBeingAsked;
  if (key === null) return false;
  if (sessionStorage.getItem(KEY) !== key) {
    sessionStorage.setItem(KEY, key);
    onKeyGiven();
  }
  return true;
}

async function send(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json, text/event-stream" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(new URL(path, document.baseURI), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    throw asProblem(error, "No connection", "The service cannot be reached. Is it running, and is this machine online?");
  }
}

/** The person's own cancelling stays what it is; everything else becomes a problem that can be shown. */
function asProblem(error, title, detail) {
  return error.name === "AbortError" ? error : new Problem(0, title, detail);
}

async function problemOf(response) {
  try {
    const { title, detail } = await response.json();
    return new Problem(response.status, title || `HTTP ${response.status}`, detail || "");
  } catch {
    return new Problem(response.status, `HTTP ${response.status}`, "The service gave no reason.");
  }
}

function withQuery(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}
