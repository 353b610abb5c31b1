// UTF-8 (RFC 3629), which QuickJS has no class for.

/** The bytes of a text. Half of a character of two halves becomes U+FFFD. */
export function utf8(text) {
  const bytes = [];
  for (const character of text.toWellFormed()) {
    const point = character.codePointAt(0);
    if (point < 0x80) bytes.push(point);
    else if (point < 0x800) bytes.push(0xc0 | (point >> 6), 0x80 | (point & 0x3f));
    else if (point < 0x10000) bytes.push(0xe0 | (point >> 12), 0x80 | ((point >> 6) & 0x3f), 0x80 | (point & 0x3f));
    else bytes.push(0xf0 | (point >> 18), 0x80 | ((point >> 12) & 0x3f), 0x80 | ((point >> 6) & 0x3f), 0x80 | (point & 0x3f));
  }
  return new Uint8Array(bytes);
}

/** The least code point of each length: a shorter one in more bytes is no UTF-8. */
const LEAST = [0, 0, 0x80, 0x800, 0x10000];

/** The text of the bytes; undefined for bytes that are no UTF-8. */
export function textOf(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf8 ? 4 : 0;
    if (length === 0 || at + length > bytes.length) return undefined;
    let point = length === 1 ? first : first & (0x7f >> length);
    for (let more = 1; more < length; more++) {
      if ((bytes[at + more] & 0xc0) !== 0x80) return undefined;
      point = (point << 6) | (bytes[at + more] & 0x3f);
    }
    if (point < LEAST[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return undefined;
    parts.push(String.fromCodePoint(point));
    at += length;
  }
  return parts.join("");
}
