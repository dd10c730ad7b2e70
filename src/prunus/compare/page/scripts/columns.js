// Columns of the table: what each shows, and by what it is sorted.

/** A value with its interval on a scale from `low` to `high`. */
function whiskers(interval, low, high, zero) {
  const x = linear(low, high, 3, 89);
  const inside = (value) => Math.max(1, Math.min(91, x(value)));
  return s("svg", { class: "whiskers", viewBox: "0 0 92 14", "aria-hidden": "true", focusable: "false" },
    known(zero) && zero >= low && zero <= high && s("line", { class: "zero", x1: x(zero), x2: x(zero), y1: 0, y2: 14 }),
    s("line", { x1: inside(interval.low), x2: inside(interval.high), y1: 7, y2: 7 }),
    s("circle", { cx: inside(interval.value), cy: 7, r: 3 }));
}

/** A paired difference; an arrow where it is one after the correction. */
function difference(one) {
  if (!one) return "–";
  const sure = known(one.p_corrected) ? one.p_corrected < 0.05 : one.low > 0 || one.high < 0;
  const sign = one.value > 0 ? "up" : "down";
  const title = `${probability(one.p)} before correction; ${count(one.won)} won, ${count(one.lost)} lost`;
  return h("span", { title },
    h("span", { class: sure ? sign : "" }, sure ? (one.value > 0 ? "▲ " : "▼ ") : "", points(one.value)),
    known(one.p_corrected) && h("span", { class: "soft small-p" }, probability(one.p_corrected)),
    h("span", { class: "sub" }, between(one, points)));
}

function columnsOf(run, range) {
  const against = (name, label) => ({
    key: `to-${name}`, name: label, title: `Paired difference to ${name} in percentage points, 95 % interval, corrected p`,
    value: (row) => row.against?.[name]?.value, show: (row) => difference(row.against?.[name]),
  });
  const cost = (key, name) => ({ key, name, title: `${COSTS[key].axis}, %`, low: true, value: (row) => COSTS[key].of(row), show: (row) => bare(COSTS[key].of(row)) });
  return [
    { key: "method", name: "Method", low: true, value: (row) => row.method },
    state.every && { key: "asked", name: "Budget", value: (row) => row.asked, show: (row) => (known(row.asked) ? budgetName(row.asked) : "own") },
    { key: "right", name: "Right, %", title: "Right answers with 95 % interval", value: (row) => row.accuracy.value,
      show: (row) => h("span", { class: "measure" }, h("span", null, h("b", null, bare(row.accuracy.value)), h("span", { class: "sub" }, between(row.accuracy))), whiskers(row.accuracy, ...range, run.dense.accuracy.value)) },
    against("dense", "To unpruned"), run.rows.some((row) => row.against?.random) && against("random", "To random"),
    run.rival && against(run.rival, `To ${run.rival}`),
    { key: "average", name: "Tokens per layer", title: "True mean of visual tokens over the decoder layers", low: true, value: (row) => row.average,
      show: (row) => [count(row.average), h("span", { class: "sub" }, percent(row.average / run.tokens))] },
    cost("llm_flops", "LLM FLOPs, %"), cost("flops", "All FLOPs, %"), cost("kv", "KV cache, %"),
    { ...cost("time", "Time, %"), show: (row) => (row.cost.time ? [bare(row.cost.time.median), h("span", { class: "sub" }, `${bare(row.cost.time.q1)} to ${bare(row.cost.time.q3)}`)] : "–") },
  ].filter(Boolean);
}
