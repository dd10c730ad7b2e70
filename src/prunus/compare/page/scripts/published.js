// Numbers of papers beside those measured here, with what is doubtful about them.

const plainName = (name) => name.toLowerCase().replace(/\+/g, "plus").replace(/[^a-z0-9]/g, "");

/** Names of papers that are other words for ours. */
const OTHER_NAMES = { pdrop: "pyramiddrop", stepprune: "stepwise", duetvlm: "duet" };

/** Our name for a method of a paper. */
function ourName(row) {
  if (row.measured) return row.measured;
  const wanted = OTHER_NAMES[plainName(row.method)] || plainName(row.method);
  return NAMES.find((name) => plainName(name) === wanted) ?? null;
}

/** Columns that are no scores: costs, and averages that the paper has taken itself. */
const NO_SCORE = /flops|\bkv\b|\bms\b|latency|samples\/s|speed-?up|^time|saved|printed|performance/i;
const PRINTED = /printed|performance/i;

/** Mean over the benchmarks of what is left of the unpruned model's number; null where one is missing. */
function keptOf(table, row) {
  const scores = table.benchmarks.filter((name) => !NO_SCORE.test(name));
  const used = scores.length ? scores : table.benchmarks.filter((name) => PRINTED.test(name));
  const shares = used.map((name) => (known(row.values[name]) && table.dense[name] ? row.values[name] / table.dense[name] : null));
  const there = shares.filter(known);
  return there.length ? { mean: there.reduce((a, b) => a + b, 0) / there.length, whole: there.length === shares.length } : null;
}

function showPublished() {
  if (!DATA.published.length) return void byId("published").remove();

  function measured(table, row) {
    const name = ourName(row);
    const share = row.budget <= 1 ? row.budget : table.tokens ? row.budget / table.tokens : null;
    if (name === null || share === null) return null;
    const { run } = state;
    const rows = rowsOf(run, state.meaning).filter((one) => one.method === name && !one.refused && known(one.asked));
    const found = rows.find((one) => Math.abs(shareOf(run, one.asked) - share) < 0.012);
    return found ? { row: found, share: found.accuracy.value / run.dense.accuracy.value } : null;
  }

  // The one with most to compare is open.
  const lines = (table) => table.rows.filter((row) => keptOf(table, row) && ourName(row)).length;
  const first = DATA.published.reduce((a, b) => (lines(b) > lines(a) ? b : a));
  const shut = new Set(DATA.published.filter((table) => table !== first).map((table) => table.id));

  function draw() {
    put(byId("published-tables"), DATA.published.map((table, number) => {
      const flags = [...new Set([...(table.flags || []), ...table.rows.flatMap((row) => row.flags || [])])];
      const mark = (list) => (list || []).map((flag) => [" ", h("a", { class: "flag", href: `#flag-${number}-${flags.indexOf(flag)}`, title: flag, onclick: (event) => { event.preventDefault(); const note = byId(`flag-${number}-${flags.indexOf(flag)}`); note.scrollIntoView({ block: "center" }); note.focus({ preventScroll: true }); } }, `⚑${flags.indexOf(flag) + 1}`)]);
      const digits = Object.fromEntries(table.benchmarks.map((name) => [name, table.rows.some((row) => known(row.values[name]) && !Number.isInteger(row.values[name])) ? 1 : 0]));
      const turns = table.rows.filter((row, i) => i && row.budget !== table.rows[i - 1].budget).length;
      const grouped = turns < new Set(table.rows.map((row) => row.budget)).size;
      const pairs = table.rows.map((row) => ({ row, kept: keptOf(table, row), own: measured(table, row) }));
      const comparable = pairs.filter(({ kept, own, row }) => kept && own && near(own.row.asked, state.budget) && !(row.flags || []).length)
        .map(({ kept, own }) => ({ method: own.row.method, published: kept.mean, measured: own.share }));
      const turned = (event) => {
        if (event.target.open) shut.delete(table.id);
        else shut.add(table.id);
      };
      return h("details", { class: "source", open: !shut.has(table.id), ontoggle: turned },
        h("summary", null, h("h3", null, table.title), flags.length > 0 && h("span", { class: "flag" }, ` ⚑ ${plural(flags.length, "flag")}`)),
        h("p", { class: "about" }, `${table.model}. ${table.protocol}. Source: `, linked(table.source), ".", mark(table.flags)),
        h("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": table.title }, h("table", { class: "numbers" },
          h("thead", null, h("tr", null, h("th", { scope: "col" }, "Method"), h("th", { scope: "col" }, "Budget"), table.benchmarks.map((name) => h("th", { scope: "col" }, name)),
            h("th", { scope: "col", title: "Mean over the scores of the share of the unpruned model’s number (costs and printed averages left out); taken here, not by the paper" }, "Of unpruned, %"),
            h("th", { scope: "col", class: "own", title: `Measured here: ${state.run.id}, ${state.meaning} budget` }, "Measured here, %"), h("th", { scope: "col" }, "Source"))),
          h("tbody", null,
            h("tr", { class: "dense" }, h("th", { scope: "row" }, "unpruned"), h("td", null, table.tokens ? String(table.tokens) : ""), table.benchmarks.map((name) => h("td", null, known(table.dense[name]) ? table.dense[name].toFixed(digits[name]) : "–")), h("td", null, table.benchmarks.some((name) => known(table.dense[name])) ? "100" : "–"), h("td", { class: "own" }, "100"), h("td", null)),
            pairs.map(({ row, kept, own }, i) => h("tr", { class: i && grouped && row.budget !== pairs[i - 1].row.budget ? "next" : null },
              h("th", { scope: "row" }, row.method, mark(row.flags)), h("td", null, budgetCell(row.budget)),
              table.benchmarks.map((name) => h("td", null, known(row.values[name]) ? row.values[name].toFixed(digits[name]) : "–")),
              h("td", { title: kept && !kept.whole ? "over the scores that have a number" : "" }, kept ? `${bare(kept.mean)}${kept.whole ? "" : "*"}` : "–"),
              h("td", { class: "own", title: own ? `${own.row.method}: ${percent(own.row.accuracy.value)} right` : "" }, own ? bare(own.share) : "–"),
              h("td", null, linked(row.source || ""))))))),
        h("p", { class: "about" }, pairs.some(({ kept }) => kept && !kept.whole) && "* over the scores that have a number. ",
          `“Measured here” is ${state.run.id} at the same share of tokens (${state.meaning}), as a share of the unpruned model.`),
        flags.length > 0 && h("ol", { class: "flags" }, flags.map((flag, i) => h("li", { id: `flag-${number}-${i}`, tabindex: "-1" }, h("span", { class: "flag" }, "⚑ "), flag))),
        comparable.length > 2 && h("figure", { class: "chart scatter" }, scatter(comparable),
          h("figcaption", { class: "about" }, `At ${budgetName(state.budget)}, rows without a flag.`)));
    }));
  }

  const budgetCell = (budget) => (budget > 0 && budget <= 1 ? percent(budget) : String(budget));
  watch(["budget", "meaning"], draw);
}
