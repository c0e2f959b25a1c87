/** What the service says to people (details, advice), as nodes: a capital first, code where it stands between backticks. */

export function showWords(element, text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  const nodes = sentence.split("`").map((part, index) => (index % 2 === 0 ? part : codeNode(part)));
  element.replaceChildren(...nodes);
}

function codeNode(text) {
  const code = document.createElement("code");
  code.textContent = text;
  return code;
}
