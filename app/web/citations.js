/** Numbered citations: the buttons in an answer and the list of sources under it. */

/** Where a citation stands, as far as the document says: its page and its heading path. */
export function placeOf(citation) {
  const parts = [];
  if (citation.page !== null) parts.push(`Page ${citation.page}`);
  const heading = citation.heading.filter((part) => part !== citation.title).join(" › ");
  if (heading !== "") parts.push(heading);
  return parts.join(" · ");
}

/**
 * Gives the marker buttons of one answer: a function from a number to its node, null where nothing is cited by that number.
 *
 * A passage that is cited twice has one citation for each marker, in the order of the text, each with its own words; so call
 * the function in that order. `open(citation, button)` is called when a button is chosen.
 */
export function markersOf(citations, open) {
  const waiting = new Map();
  for (const citation of citations) waiting.set(citation.marker, [...(waiting.get(citation.marker) ?? []), citation]);
  return (number) => {
    const left = waiting.get(number);
    if (left === undefined) return null;
    return markerNode(left.length > 1 ? left.shift() : left[0], open);
  };
}

function markerNode(citation, open) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "marker";
  button.textContent = String(citation.marker);
  button.setAttribute("aria-label", `Source ${citation.marker}: ${citation.title}`);
  button.title = [citation.title, placeOf(citation)].filter((part) => part !== "").join(" · ");
  button.addEventListener("click", () => open(citation, button));
  return button;
}

/** The citations by which the sources are listed: the first of each number. */
export function sourcesOf(citations) {
  const first = new Map();
  for (const citation of citations) if (!first.has(citation.marker)) first.set(citation.marker, citation);
  return [...first.values()];
}

/** Fills the list of sources of one answer; hides it where there are none. */
export function showSources(section, citations, open) {
  const list = section.querySelector("ol");
  list.replaceChildren(...sourcesOf(citations).map((citation) => sourceNode(citation, open)));
  section.hidden = citations.length === 0;
}

function sourceNode(citation, open) {
  const node = document.getElementById("source-template").content.firstElementChild.cloneNode(true);
  const button = node.querySelector("button");
  node.querySelector(".source-number").textContent = String(citation.marker);
  node.querySelector(".source-title").textContent = citation.title;
  node.querySelector(".source-place").textContent = [placeOf(citation), citation.source].filter((part) => part !== "").join(" · ");
  button.addEventListener("click", () => open(citation, button));
  return node;
}
