// Reads what pack.py wrote: bits, bytes and small integers in base64.

const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

/** A test of membership for `total` bits. */
function bitsOf(text) {
  const bytes = bytesOf(text);
  return (index) => (bytes[index >> 3] >> (index & 7)) & 1;
}

/** Positions of the bits that are set. */
function chosenOf(text, total) {
  const has = bitsOf(text);
  const found = [];
  for (let index = 0; index < total; index++) if (has(index)) found.push(index);
  return found;
}

/** Scores from 0 to 1 (null: none), with the values that 0 and 1 stand for. */
function scoresOf(levels) {
  if (!levels) return null;
  const shares = Array.from(bytesOf(levels.bytes), (byte) => (byte === 255 ? null : byte / 254));
  return { shares, value: (share) => levels.low + share * (levels.high - levels.low) };
}

/** The token that stands for each one, -1 where none does. */
function standinsOf(text) {
  if (!text) return null;
  return new Int16Array(bytesOf(text).buffer);
}
