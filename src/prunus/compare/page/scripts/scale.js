// Axes: round numbers, at the right places.

/** Round numbers from `low` to `high`, about `wanted` of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number++) found.push(Number((number * step).toPrecision(12)));
  return found;
}

/** How a tick of an axis in per cent is written: with a digit behind the point where it needs one. */
const tickText = (share) => bare(share, Math.abs(100 * share - Math.round(100 * share)) < 1e-6 ? 0 : 1);

/** From values to places. */
const linear = (from, to, start, end) => (value) => start + ((value - from) / (to - from || 1)) * (end - start);

/** `low` and `high` with a little air, on round numbers. */
function roomy(low, high, wanted, least, most) {
  const span = Math.max(high - low, 0.02);
  const around = ticks(low - 0.06 * span, high + 0.06 * span, wanted);
  const step = around.length > 1 ? around[1] - around[0] : span;
  const from = around[0] - (low - 0.03 * span < around[0] ? step : 0);
  const to = around[around.length - 1] + (high + 0.03 * span > around[around.length - 1] ? step : 0);
  return [Math.max(least, from), Math.min(most, to)];
}
