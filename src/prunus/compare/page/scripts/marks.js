// Names at the ends of lines, none upon another.

/** Move labels {y} apart until they are `gap` from each other, between `top` and `bottom`. */
function spread(labels, gap, top, bottom) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => { label.at = Math.max(label.y, i ? labels[i - 1].at + gap : top); });
  for (let i = labels.length - 1, floor = bottom; i >= 0; i--) {
    labels[i].at = Math.min(labels[i].at, floor);
    floor = labels[i].at - gap;
  }
  return labels;
}

/** The width that text needs, about. */
const textWidth = (text, size = 12) => text.length * size * 0.6;
