// The table of all numbers: sorted by any column, filtered by word and kind.

function showTable() {
  const view = { by: "right", descending: true, word: "", kind: "all", refused: true };
  const place = byId("table");
  state.every = false;

  const change = (changes) => { Object.assign(view, changes); draw(); };
  put(byId("table-tools"),
    h("label", { class: "field" }, h("span", null, "Find"), h("input", { class: "input", type: "search", name: "find", size: 14, placeholder: "a method", oninput: (event) => change({ word: event.target.value }) })),
    chooser("Show", "kind", [["all", "all methods"], ...Object.entries(KINDS), ["question", "looks at the question"], ["blind", "does not look at it"], ["merges", "merges tokens"], ...Object.entries(PLACES).map(([key, [words]]) => [key, words])], "all", (kind) => change({ kind })),
    h("label", { class: "field" }, h("input", { type: "checkbox", name: "every", onchange: (event) => { state.every = event.target.checked; draw(); } }), h("span", null, "all budgets")),
    h("label", { class: "field" }, h("input", { type: "checkbox", name: "refused", checked: true, onchange: (event) => change({ refused: event.target.checked }) }), h("span", null, "refused ones")));

  function wanted(row) {
    const facts = DATA.methods[row.method] || {};
    const kinds = { all: true, question: facts.question, blind: !facts.question, merges: facts.merges, ...Object.fromEntries(Object.keys(PLACES).map((key) => [key, worksIn(row.method, key)])) };
    const fits = view.kind in kinds ? kinds[view.kind] : kindOf(row.method) === view.kind;
    const words = `${row.method} ${facts.summary || ""} ${facts.paper || ""}`.toLowerCase();
    return fits && (view.refused || !row.refused) && words.includes(view.word.trim().toLowerCase());
  }

  function heading(column) {
    const here = view.by === column.key;
    const first = column.low ? "ascending" : "descending";
    const next = here ? (view.descending ? "ascending" : "descending") : first;
    return h("th", { scope: "col", "data-column": column.key, title: column.title, "aria-sort": here ? (view.descending ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "sorter", onclick: () => {
        change({ by: column.key, descending: next === "descending" });
        place.querySelector(`[data-column="${CSS.escape(column.key)}"] button`)?.focus();
      } }, column.name));
  }

  function body(row, columns) {
    const label = h("th", { scope: "row", title: (DATA.methods[row.method] || {}).summary }, swatch(row.method), row.method === "dense" ? "unpruned" : row.method, row.method === "dense" ? null : tags(row.method));
    if (row.refused) {
      return h("tr", { "data-key": row.key }, label,
        state.every && h("td", null, known(row.asked) ? budgetName(row.asked) : "own"),
        h("td", { class: "text", colspan: columns.length - (state.every ? 2 : 1) }, "refused: ", row.refused));
    }
    return h("tr", { "data-key": row.key, class: row === state.run.dense ? "dense" : null }, label,
      columns.slice(1).map((column) => h("td", null, column.show(row))));
  }

  function draw() {
    const { run, meaning, budget } = state;
    const all = state.every ? rowsOf(run, meaning) : rowsAt(run, meaning, budget);
    const rows = all.filter(wanted);
    const fine = all.filter((row) => !row.refused);
    const range = [Math.min(...fine.map((row) => row.accuracy.low), run.dense.accuracy.low), Math.max(...fine.map((row) => row.accuracy.high), run.dense.accuracy.high)];
    const columns = columnsOf(run, range);
    const column = columns.find((one) => one.key === view.by) || columns[0];
    const list = sorted([...rows.filter((row) => !row.refused), ...(view.word || view.kind !== "all" ? [] : [run.dense])], column.value, view.descending);
    const refused = sorted(rows.filter((row) => row.refused), (row) => row.method, false);
    const left = place.scrollLeft, top = place.scrollTop;
    put(place, h("table", { class: "numbers" },
      h("caption", { class: "quiet" }, `${run.id}, ${state.every ? "all budgets" : known(budget) ? budgetName(budget) : ""}, ${meaning}`),
      h("thead", null, h("tr", null, columns.map(heading))),
      h("tbody", null, [...list, ...refused].map((row) => body(row, columns)),
        list.length + refused.length === 0 && h("tr", null, h("td", { class: "none", colspan: columns.length }, "No method is like that.")))));
    place.scrollTo(left, top);
    put(byId("numbers-about"), `${run.id}: right answers with 95${THIN}% intervals, paired differences in percentage points (▲ and ▼: p below .05 after correction for many comparisons), and costs as shares of what the unpruned model needs. Press a heading to sort.`);
  }

  watch(["budget", "meaning"], draw);
}
