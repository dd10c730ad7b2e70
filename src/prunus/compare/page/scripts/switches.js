// Switches: one of a few as buttons in a row, one of many as a list.

/** Radio buttons in a row; `options` are [value, label] pairs. */
function segments(label, name, options, chosen, choose) {
  return h("fieldset", { class: "segments", "data-name": name },
    h("legend", null, label),
    h("div", { class: "row" }, options.map(([value, text]) =>
      h("label", null,
        h("input", { type: "radio", name, value: String(value), checked: value === chosen, onchange: () => choose(value) }),
        h("span", null, text)))));
}

/** A list to choose from. */
function chooser(label, name, options, chosen, choose) {
  return h("label", { class: "field" }, h("span", null, label),
    h("select", { name, onchange: (event) => choose(options[event.target.selectedIndex][0]) },
      options.map(([value, text]) => h("option", { selected: value === chosen }, text))));
}

function showBar() {
  const theme = themeButton();
  const draw = () => {
    const focused = document.activeElement && byId("bar").contains(document.activeElement) ? document.activeElement : null;
    const { run } = state;
    const meanings = meaningsOf(run);
    put(byId("bar"), h("div", null,
      DATA.runs.length > 1 && chooser("Model and questions", "run", DATA.runs.map((one) => [one, one.id]), run, (one) => set({ run: one })),
      state.budget !== null && segments("Budget", "budget", budgetsOf(run).map((one) => [one, budgetName(one)]), state.budget, (budget) => set({ budget })),
      meanings.length > 1 && segments("Budgets are", "meaning", meanings.map((one) => [one, one]), state.meaning, (meaning) => set({ meaning })),
      h("span", { class: "push" }, theme)));
    if (focused) refocus(focused);
  };
  // Only another run needs other switches; the viewer's slider moves the budget, and these follow.
  watch(["run"], draw);
  watch(["budget", "meaning"], () => {
    for (const input of byId("bar").querySelectorAll("input")) {
      input.checked = input.value === String(state[input.name]);
    }
  });
}

/** Focus what took the place of an element that was drawn anew. */
function refocus(old) {
  const same = old.id ? byId(old.id) : old.name && document.querySelector(`[name="${CSS.escape(old.name)}"]`);
  if (same) same.focus();
}
