// One box beside the pointer or the focused point.

function showTip(x, y, ...content) {
  const tip = byId("tip");
  put(tip, ...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - width - 14 : x + 16;
  const top = y + 14 + height > innerHeight ? y - height - 12 : y + 14;
  tip.style.left = `${Math.max(6, Math.min(left, innerWidth - width - 6))}px`;
  tip.style.top = `${Math.max(6, top)}px`;
}

let tipFollows = null; // moves the box with what it is about, where that has the focus

function hideTip() {
  byId("tip").hidden = true;
  tipFollows = null;
}
addEventListener("scroll", () => (tipFollows ? tipFollows() : hideTip()), { passive: true });

/** Terms and values. */
const terms = (pairs) => h("dl", null, pairs.filter(Boolean).map(([term, value]) => [h("dt", null, term), h("dd", null, value)]));

/** All that is known about a row, in short. */
function rowTip(row) {
  const { cost } = row;
  const difference = (name, label) => {
    const one = (row.against || {})[name];
    return one && [label, `${points(one.value)} (${between(one, points)})`];
  };
  return [
    h("b", null, row.method), " ",
    h("span", { class: "soft" }, row.method === "dense" ? "unpruned" : known(row.asked) ? `${budgetName(row.asked)} ${MEANINGS[row.meaning]}` : "its own count"),
    terms([
      ["right", `${percent(row.accuracy.value)} (${between(row.accuracy)})`],
      difference("dense", "to unpruned"), difference("random", "to random"),
      state.run.rival && state.run.rival !== row.method && difference(state.run.rival, `to ${state.run.rival}`),
      ["tokens per layer", count(row.average)],
      ["LLM / all FLOPs", `${percent(cost.llm_flops, 0)} / ${percent(cost.flops, 0)}`],
      ["KV cache", percent(cost.kv, 0)],
      cost.time && ["time", `${percent(cost.time.median, 0)} (quartiles ${bare(cost.time.q1, 0)} to ${bare(cost.time.q3, 0)})`],
    ]),
  ];
}
