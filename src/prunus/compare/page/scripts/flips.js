// Questions whose answer pruning turned from right to wrong, or back.

const PAGE_OF_FLIPS = 12;

function showFlips() {
  const view = { method: null, way: "lost", type: "all", most: PAGE_OF_FLIPS };
  if (!DATA.runs.some((run) => Object.keys(run.right).length)) return void byId("flips").remove();

  /** The key under which a row's answers lie, its first seed's where it has several. */
  const keyOf = (run, row) => (row.key in run.right ? row.key : Object.keys(run.right).find((key) => key.startsWith(`${row.key}#`)));

  const rowsHere = () => rowsAt(state.run, state.meaning, state.budget).filter((row) => !row.refused && keyOf(state.run, row));

  function flipsOf(run, key) {
    const [now, before] = [bitsOf(run.right[key]), bitsOf(run.right[run.dense.key])];
    const changed = [];
    for (let index = 0; index < run.asked.length; index++) if (now(index) !== before(index)) changed.push({ index, won: Boolean(now(index)) });
    const told = (name, i) => (run.told[name] ? run.words[run.told[name][i]] : null);
    return changed.map((flip, i) => ({ ...flip, answer: told(key, i), dense: told(`${key}<dense`, i) }));
  }

  const change = (changes) => { Object.assign(view, { most: PAGE_OF_FLIPS }, changes); draw(); };

  function drawTools() {
    const rows = rowsHere().sort((a, b) => rank(a.method) - rank(b.method));
    if (!rows.some((row) => row.method === view.method)) view.method = rows[0]?.method ?? null;
    if (!["all", ...state.run.kinds].includes(view.type)) view.type = "all";
    put(byId("flip-tools"),
      chooser("Method", "flip-method", rows.map((row) => [row.method, row.method]), view.method, (method) => change({ method })),
      segments("Answers", "flip-way", [["lost", "right → wrong"], ["won", "wrong → right"], ["both", "both"]], view.way, (way) => change({ way })),
      chooser("Type", "flip-type", [["all", "all types"], ...state.run.kinds.map((kind) => [kind, kind])], view.type, (type) => change({ type })));
  }

  function draw() {
    const { run } = state;
    const row = rowsHere().find((one) => one.method === view.method);
    const cards = byId("flip-cards");
    if (!row || !run.right[run.dense.key]) {
      put(cards);
      put(byId("flip-more"));
      return void put(byId("flip-count"), "There are no answers to compare here.");
    }
    const key = keyOf(run, row);
    const all = flipsOf(run, key).filter(({ index }) => view.type === "all" || run.kinds[run.asked[index][1]] === view.type);
    const list = all.filter(({ won }) => view.way === "both" || won === (view.way === "won"));
    const lost = all.filter((flip) => !flip.won).length;
    const asked = run.asked.filter((one) => view.type === "all" || run.kinds[one[1]] === view.type).length;
    const seed = key === row.key ? "" : ` (seed ${key.slice(row.key.length + 1)} of ${row.seeds.length})`;
    put(byId("flip-count"), h("b", null, row.method), `${known(row.asked) ? ` at ${budgetName(row.asked)}` : ""}${seed}: of ${plural(asked, "question")} `,
      h("b", { class: "bad" }, `${lost} lost`), ", ", h("b", { class: "good" }, `${all.length - lost} won`), ".");
    // Those that can be looked at come first.
    const images = new Map(picturesOf(run).map((picture) => [picture.image, DATA.images[picture.picture]]));
    for (const [image, picture] of Object.entries(run.thumbnails || {})) images.set(Number(image), picture);
    const seen = (flip) => images.has(run.asked[flip.index][0]);
    const shown = [...list.filter(seen), ...list.filter((flip) => !seen(flip))].slice(0, view.most);
    put(cards, shown.map((flip) => card(run, flip, images)));
    put(byId("flip-more"), list.length > shown.length && h("button", { type: "button", class: "button", onclick: () => {
      const from = view.most;
      Object.assign(view, { most: view.most + 48 });
      draw();
      cards.children[from]?.setAttribute("tabindex", "-1");
      cards.children[from]?.focus();
    } }, `Show ${Math.min(48, list.length - shown.length)} more of ${list.length}`));
  }

  function card(run, flip, images) {
    const [image, kind, text, answer] = run.asked[flip.index];
    const picture = images.get(image);
    return h("li", { class: `flip ${flip.won ? "won" : "lost"}` },
      picture && h("img", { src: picture, alt: `${run.kind} ${image}`, loading: "lazy" }),
      h("div", null,
        h("p", { class: "what" }, `${flip.won ? "wrong → right" : "right → wrong"} · ${run.kinds[kind]} · ${run.kind} ${image}`),
        h("q", null, text),
        h("dl", null, h("dt", null, "answer"), h("dd", null, answer),
          flip.dense !== null && [h("dt", null, "unpruned"), h("dd", null, h("span", { class: `verdict ${flip.won ? "bad" : "good"}` }, flip.dense))],
          flip.answer !== null && [h("dt", null, "pruned"), h("dd", null, h("span", { class: `verdict ${flip.won ? "good" : "bad"}` }, flip.answer))])));
  }

  watch(["budget", "meaning"], () => { drawTools(); draw(); });
}
