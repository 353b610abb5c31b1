// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.

/** Whether the bytes are UTF-8. */
export function isUtf8(at: usize, length: usize): bool {
  const end = at + length;
  while (at < end) {
    const first = load<u8>(at);
    if (first < 0x80) {
      at += 1;
      continue;
    }
    if (first < 0xc2 || first > 0xf4) return false;
    const more: usize = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (end - at <= more) return false;
    // The second byte has a narrower range after four first bytes.
    const second = load<u8>(at + 1);
    if (second < (first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80)) return false;
    if (second > (first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf)) return false;
    for (let k: usize = 2; k <= more; k++) if ((load<u8>(at + k) & 0xc0) != 0x80) return false;
    at += more + 1;
  }
  return true;
}

/** How many characters UTF-8 holds. */
export function characters(at: usize, length: usize): i32 {
  let count = 0;
  for (let end = at + length; at < end; at++) count += i32((load<u8>(at) & 0xc0) != 0x80);
  return count;
}
