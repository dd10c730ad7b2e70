// What nothing else beats on both axes.

/** Of points {x, y} those for which no other costs no more and is right at least as often. */
function frontier(all) {
  const sorted = [...all].sort((a, b) => a.x - b.x || b.y - a.y);
  const found = [];
  for (const point of sorted) if (!found.length || point.y > found[found.length - 1].y) found.push(point);
  return found;
}
