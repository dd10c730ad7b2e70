// What the page shows. Whoever draws something says which parts of it the drawing depends on.

const state = {};
const watchers = [];

/** Call `draw` now, and again whenever one of `keys` changes. */
function watch(keys, draw) {
  watchers.push({ keys, draw });
  draw();
}

/** Change the state, and draw what depends on it anew. */
function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  if (!changed.length) return;
  Object.assign(state, changes);
  if (changed.includes("run")) Object.assign(state, suiting(state));
  for (const { keys, draw } of watchers) {
    if (changed.includes("run") || keys.some((key) => changed.includes(key))) draw();
  }
  remember();
}

/** Budget and meaning that the run has, as close to those of before as can be. */
function suiting({ run, budget, meaning }) {
  const meanings = meaningsOf(run);
  const budgets = budgetsOf(run);
  const closest = (a, b) => (Math.abs(b - budget) < Math.abs(a - budget) ? b : a);
  return {
    meaning: meanings.includes(meaning) ? meaning : meanings[0] || "own",
    budget: budgets.length ? budgets.reduce(closest) : null,
    picture: 0,
  };
}

/** The address of what is shown can be sent to somebody. */
function remember() {
  const told = new URLSearchParams({ run: state.run.id, budget: String(state.budget), meaning: state.meaning });
  try {
    history.replaceState(null, "", `#${told}`);
  } catch { /* where the address cannot be changed, the page works as well */ }
}

function begin() {
  const told = new URLSearchParams(location.hash.slice(1));
  const run = runOf(told.get("run"));
  const asked = Number(told.get("budget") || NaN);
  const budgets = budgetsOf(run);
  const least = budgets[budgets.length - 1] ?? null;
  Object.assign(state, {
    run,
    cost: "flops",
    hidden: new Set(NAMES.filter((name) => !isMethod(name))),
    radar: null,
    stage: "end",
    mode: "kept",
    group: "all",
  });
  const wanted = { run, budget: Number.isFinite(asked) ? asked : least, meaning: told.get("meaning") || "true" };
  Object.assign(state, suiting(wanted));
}
