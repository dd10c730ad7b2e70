// The same question, every method: which tokens each keeps, and what it answers then.

/** Where a method keeps what it keeps at a stage: its word for it, and the layer. */
function stageName(method, shown, number) {
  const word = shown.labels[number] || "";
  const own = word === method ? "" : word.replace(`${method} `, "");
  const layer = shown.layers[number];
  return [own, known(layer) && !own.includes("layer") ? `layer ${layer}` : ""].filter(Boolean).join(", ");
}

function showViewer() {
  const place = byId("viewer");
  if (!DATA.pictures.length) return void byId("pictures").remove();
  const shots = h("ul", { class: "shots", id: "shots" });
  const head = h("div", null);
  const tools = h("div", { class: "tools" });
  put(place, head, tools, shots);

  const pictureNow = () => picturesOf(state.run)[state.picture];

  function drawHead() {
    const list = picturesOf(state.run);
    byId("pictures").hidden = !list.length;
    if (!list.length) return;
    const picture = pictureNow();
    const focused = head.contains(document.activeElement);
    put(head,
      h("fieldset", { class: "picker" }, h("legend", { class: "quiet" }, "Picture"),
        list.map((one, i) => h("label", null,
          h("input", { type: "radio", name: "picture", value: String(i), checked: i === state.picture, onchange: () => set({ picture: i }) }),
          h("img", { src: DATA.images[one.picture], alt: `${one.frames > 1 ? "Frames" : "Picture"} ${one.image}: ${one.text}` })))),
      h("div", { class: "asked" }, h("q", null, picture.text), h("span", null, "answer: ", h("b", null, picture.answer)), h("span", null, "unpruned says: ", h("b", null, picture.dense))));
    if (focused) head.querySelector("input:checked")?.focus();
  }

  function drawTools() {
    const { run } = state;
    const budgets = budgetsOf(run);
    const stages = Math.max(1, ...picturesOf(run).flatMap((one) => Object.values(one.shown).map((shown) => shown.kept.length)));
    const now = () => budgets.findIndex((one) => near(one, state.budget));
    const output = h("output", { for: "scrub" }, budgetName(state.budget ?? 1));
    put(tools,
      budgets.length > 1 && h("div", { class: "slider" }, h("label", { for: "scrub", class: "soft" }, "Budget"),
        h("input", { type: "range", id: "scrub", min: 0, max: budgets.length - 1, step: 1, value: now(), "aria-valuetext": budgetName(state.budget), list: "scrub-ticks", oninput: (event) => set({ budget: budgets[Number(event.target.value)] }) }),
        output, h("datalist", { id: "scrub-ticks" }, budgets.map((_, i) => h("option", { value: i })))),
      segments("Show", "mode", [["kept", "kept tokens"], ["scores", "scores"]], state.mode, (mode) => set({ mode })),
      stages > 1 && chooser("Stage", "stage", [...Array.from({ length: stages }, (_, i) => [i, `after stage ${i + 1}`]), ["end", "at the end"]], state.stage, (stage) => set({ stage })),
      chooser("Methods", "group", [["all", "all"], ...Object.entries(KINDS)], state.group, (group) => set({ group })),
      h("span", { class: "soft", id: "ramp", hidden: state.mode !== "scores" }, "low", h("span", { class: "ramp", "aria-hidden": "true" }), "high, each map on its own scale"));
  }

  function rowsShown() {
    const picture = pictureNow();
    return rowsAt(state.run, state.meaning, state.budget)
      .filter((row) => picture.shown[row.key] && (state.group === "all" || kindOf(row.method) === state.group))
      .sort((a, b) => rank(a.method) - rank(b.method));
  }

  async function drawShots() {
    const picture = pictureNow();
    if (!picture) return put(shots);
    const image = await imageOf(picture.picture);
    if (picture !== pictureNow()) return;
    shots.classList.toggle("film", picture.frames > 1);
    const rows = rowsShown();
    const old = new Map([...shots.children].map((item) => [item.dataset.method, item]));
    const items = rows.map((row) => old.get(row.method) || card(row.method));
    if (items.length !== shots.children.length || items.some((item, i) => item !== shots.children[i])) put(shots, items);
    rows.forEach((row, i) => tell(items[i], row, picture, image));
  }

  function card(name) {
    const canvas = h("canvas", null);
    return h("li", { class: `shot ${["ours", "composition"].includes(kindOf(name)) ? "ours" : ""}`, "data-method": name },
      h("button", { type: "button", onclick: () => openCloseup(name) }, canvas),
      h("div", { class: "words" }));
  }

  function tell(item, row, picture, image) {
    const shown = picture.shown[row.key];
    const told = toldOf(picture, shown, state.stage);
    const canvas = item.querySelector("canvas");
    paint(canvas, image, picture, shown, { stage: state.stage, mode: state.mode, wide: Math.max(120, item.clientWidth || 170) });
    item.querySelector("button").setAttribute("aria-label", `${row.method}: keeps ${told.chosen.length} of ${told.total} tokens, answers ${shown.answer}, ${shown.right ? "right" : "wrong"}. Look closer`);
    const label = stageName(row.method, shown, told.number);
    put(item.querySelector(".words"),
      h("p", null, h("b", null, breakable(row.method)), h("span", { class: `verdict ${shown.right ? "good" : "bad"}` }, shown.answer)),
      h("p", { class: "soft" }, h("span", null, `${told.chosen.length} of ${told.total}`, label ? `, ${label}` : "", state.mode === "scores" && !told.scores ? "; has no scores" : "")));
  }

  watch(["picture"], drawHead);
  watch(["run"], drawTools);
  watch(["budget"], () => {
    const slider = byId("scrub");
    if (!slider) return;
    slider.value = budgetsOf(state.run).findIndex((one) => near(one, state.budget));
    slider.setAttribute("aria-valuetext", budgetName(state.budget));
    tools.querySelector("output").textContent = budgetName(state.budget);
  });
  watch(["mode"], () => { byId("ramp").hidden = state.mode !== "scores"; });
  watch(["picture", "budget", "meaning", "stage", "mode", "group", "dark"], drawShots);
  whenResized(shots, drawShots);
  showCloseup(pictureNow, rowsShown);
}
