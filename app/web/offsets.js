/** Offsets of the service count Unicode code points; strings here count UTF-16 units. This turns the one into the other. */

/**
 * Where a span that counts code points lies in a string.
 * @returns {{start: number, end: number} | null} UTF-16 units; null where the span is not inside the text.
 */
export function unitSpan(text, start, end) {
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end < start) return null;
  const unitStart = advance(text, 0, start);
  if (unitStart === null) return null;
  const unitEnd = advance(text, unitStart, end - start);
  return unitEnd === null ? null : { start: unitStart, end: unitEnd };
}

/** The text before, inside and after a span that counts code points; null where the span is not inside the text. */
export function splitAt(text, start, end) {
  const span = unitSpan(text, start, end);
  if (span === null) return null;
  return [text.slice(0, span.start), text.slice(span.start, span.end), text.slice(span.end)];
}

function advance(text, unit, points) {
  let left = points;
  let at = unit;
  while (left > 0) {
    if (at >= text.length) return null;
    // A pair of surrogates is one code point; half a pair counts as one of its own, as it does for the service.
    at += text.codePointAt(at) > 0xffff ? 2 : 1;
    left -= 1;
  }
  return at;
}
