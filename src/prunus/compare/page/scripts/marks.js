// Names beside marks, none upon another.

const AIR = 8;  // between names in one line

/** The width that text needs, about. */
const textWidth = (text, size = 12) => text.length * size * 0.6;

/**
 * Give each label {y, from, to} (where it wants to be, and from where to where it reaches) a place
 * `at` between `top` and `bottom`: the nearest one where no other stands within `gap`.
 */
function spread(labels, gap, top, bottom) {
  const placed = [];
  const free = (label, at) => at >= top && at <= bottom
    && placed.every((other) => Math.abs(other.at - at) >= gap || other.to + AIR < label.from || other.from - AIR > label.to);
  for (const label of [...labels].sort((a, b) => a.y - b.y)) {
    const wanted = Math.max(top, Math.min(bottom, label.y));
    const steps = Array.from({ length: 240 }, (_, i) => (i % 2 ? -1 : 1) * Math.ceil(i / 2) * 2);
    label.at = wanted + (steps.find((step) => free(label, wanted + step)) ?? 0);
    placed.push(label);
  }
  return labels;
}
