/**
 * The text of an answer as DOM nodes: paragraphs, line breaks, simple lists, bold and citation markers.
 *
 * All text goes in as text nodes. Links, images, HTML and everything else that a model may write stay the characters they
 * are, so nothing in an answer can load, link or run.
 */

const BULLET = /^\s{0,3}[-*•]\s+(?=\S)/;
const NUMBERED = /^\s{0,3}(\d{1,3})[.)]\s+(?=\S)/;
const INLINE = /\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*|\[(\d{1,3})\]/g;

/** Cuts an answer into blocks: {kind: "paragraph" | "bullets" | "numbers", lines, first}. */
export function blocksOf(text) {
  const blocks = [];
  let open = null;
  for (const line of text.split(/\r\n|\r|\n/)) {
    if (line.trim() === "") {
      open = null;
      continue;
    }
    const numbered = NUMBERED.exec(line);
    const kind = BULLET.test(line) ? "bullets" : numbered ? "numbers" : "paragraph";
    const content = kind === "bullets" ? line.replace(BULLET, "") : kind === "numbers" ? line.replace(NUMBERED, "") : line;
    if (open === null || open.kind !== kind) {
      // A line of text right under an item belongs to that item.
      if (open !== null && kind === "paragraph" && open.kind !== "paragraph") {
        open.lines[open.lines.length - 1] += `\n${line.trim()}`;
        continue;
      }
      open = { kind, lines: [], first: numbered ? Number(numbered[1]) : 1 };
      blocks.push(open);
    }
    open.lines.push(content);
  }
  return blocks;
}

/**
 * Shows an answer in `container`, keeping the blocks that have not changed since the last call, so that a stream does not
 * rebuild what was read (or focused) before. `markerNode(number)` gives the node of a marker, null = it stays text.
 */
export function showProse(container, text, markerNode, { fresh = false } = {}) {
  const blocks = blocksOf(text);
  const shown = [...container.children];
  blocks.forEach((block, index) => {
    const signature = JSON.stringify(block);
    const existing = shown[index];
    if (existing !== undefined && !fresh && signatures.get(existing) === signature) return;
    const node = nodeOf(block, markerNode);
    signatures.set(node, signature);
    if (existing === undefined) container.append(node);
    else existing.replaceWith(node);
  });
  shown.slice(blocks.length).forEach((node) => node.remove());
}

const signatures = new WeakMap();

function nodeOf(block, markerNode) {
  if (block.kind === "paragraph") return filled("p", block.lines.join("\n"), markerNode);
  const list = document.createElement(block.kind === "bullets" ? "ul" : "ol");
  if (block.kind === "numbers" && block.first !== 1) list.start = block.first;
  list.append(...block.lines.map((line) => filled("li", line, markerNode)));
  return list;
}

function filled(tag, text, markerNode) {
  const element = document.createElement(tag);
  text.split("\n").forEach((line, index) => {
    if (index > 0) element.append(document.createElement("br"));
    appendInline(element, line, markerNode);
  });
  return element;
}

function appendInline(element, line, markerNode) {
  let from = 0;
  for (const match of line.matchAll(INLINE)) {
    const [whole, bold, number] = match;
    const node = bold === undefined ? markerNode(Number(number)) : boldNode(bold, markerNode);
    if (node === null) continue;
    const before = line.slice(from, match.index);
    if (bold === undefined) appendCited(element, before, node);
    else element.append(before, node);
    from = match.index + whole.length;
  }
  element.append(line.slice(from));
}

/** A marker stays on the line of the word before it. */
function appendCited(element, before, marker) {
  const last = element.lastChild;
  if (before === "" && last instanceof Element && last.classList.contains("cited")) {
    last.append(marker);
    return;
  }
  const word = /\S{1,24} ?$/.exec(before)?.[0] ?? "";
  const together = document.createElement("span");
  together.className = "cited";
  together.append(word, marker);
  element.append(before.slice(0, before.length - word.length), together);
}

function boldNode(text, markerNode) {
  const strong = document.createElement("strong");
  appendInline(strong, text, markerNode);
  return strong;
}
