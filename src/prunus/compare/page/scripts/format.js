// Numbers as people read them.

const THIN = "\u202f";
const minus = (text) => text.replace("-", "\u2212");
const known = (value) => value !== null && value !== undefined;

const percent = (share, digits = 1) => (known(share) ? `${minus((100 * share).toFixed(digits))}${THIN}%` : "–");
const bare = (share, digits = 1) => (known(share) ? minus((100 * share).toFixed(digits)) : "–");

/** +1.2, −0.3, in percentage points. */
function points(difference, digits = 1) {
  const text = (100 * difference).toFixed(digits);
  if (Number(text) === 0) return (0).toFixed(digits);
  return Number(text) > 0 ? `+${text}` : minus(text);
}

const between = (interval, write = bare) => `${write(interval.low)} to ${write(interval.high)}`;
const count = (value) => (value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1));

function probability(p) {
  if (!known(p)) return "";
  return p < 0.001 ? `p${THIN}<${THIN}.001` : `p${THIN}=${THIN}${p.toFixed(3).replace(/^0/, "")}`;
}

/** A budget as it was asked for: a share or a count. */
const budgetName = (asked) => (asked <= 1 ? percent(asked) : `${asked} tokens`);
const MEANINGS = { true: "true average", nominal: "nominal", own: "own count" };
const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  return seconds < 5400 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
