// What was compared, in a sentence, and the shortest answer.

function showHead() {
  watch(["budget", "meaning"], () => {
    const { run, budget, meaning } = state;
    const dense = run.dense.accuracy;
    const what = run.kind === "video" ? "video" : "image";
    put(byId("lead"),
      h("b", null, run.model), ` answered ${plural(run.questions, "question")} about ${plural(run.images, what)} of `,
      h("b", null, run.set), budget === null ? ". " : ` while each method kept ${budgetName(budget)} of ${count(run.tokens)} visual tokens, `,
      budget === null ? "" : meaning === "true" ? "on average over all layers of the language model. " : "as its paper counts them. ",
      `Unpruned it gets ${percent(dense.value)} right (95${THIN}% interval ${between(dense)}).`,
      DATA.runs.length > 1 && ` This is one of ${DATA.runs.length} runs: choose another below.`);

    const rows = rowsAt(run, meaning, budget).filter((row) => !row.refused && row.meaning !== "own");
    const best = (list) => list.reduce((a, b) => (a && a.accuracy.value >= b.accuracy.value ? a : b), null);
    const found = rows.find((row) => row.method === "random");
    const others = rows.filter((row) => kindOf(row.method) !== "control" && isMethod(row.method));
    const tested = others.filter((row) => row.against.random && known(row.against.random.p_corrected));
    const ahead = tested.filter((row) => row.against.random.p_corrected < 0.05 && row.against.random.value > 0);
    const single = best(others.filter((row) => kindOf(row.method) !== "composition"));
    const composed = best(others.filter((row) => kindOf(row.method) === "composition"));
    const tile = (row, what) => row && h("li", null, h("span", { class: "what" }, what), h("b", null, percent(row.accuracy.value)),
      h("span", { class: "who" }, breakable(row.method), " ", h("span", { class: "soft" }, between(row.accuracy))));
    put(byId("tiles"),
      tile(single, "best single method"),
      tile(composed, "best composition"),
      tile(found, "a random choice"),
      tested.length > 0 && h("li", null, h("span", { class: "what" }, "better than a random choice"),
        h("b", null, `${ahead.length} of ${tested.length}`), h("span", { class: "who soft" }, "corrected p below .05")));
  });
}
