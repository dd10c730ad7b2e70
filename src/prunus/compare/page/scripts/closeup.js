// One method's picture, large, with what became of every token.

let openCloseup = () => {};

function showCloseup(pictureNow, rowsShown) {
  const dialog = byId("closeup");
  let name = null, at = -1, layout = null;

  const rowNow = () => rowsShown().find((row) => row.method === name);

  function cellText(picture, shown, index) {
    const told = toldOf(picture, shown, "end");
    const place = picture.grid ? cellPlace(picture.grid, index) : `token ${index}`;
    const scores = told.scores;
    const score = scores && scores.shares[index] !== null
      ? `; score ${scores.value(scores.shares[index]).toPrecision(3)}, rank ${1 + scores.shares.filter((one) => one !== null && one > scores.shares[index]).length} of ${told.total}` : "";
    const dropped = shown.kept.findIndex((stage) => !bitsOf(stage)(index));
    const fate = dropped < 0 ? "kept to the end" : `not kept at ${stageName(name, shown, dropped) || `stage ${dropped + 1}`}`;
    const into = told.standins ? told.standins[index] : null;
    const count = told.standins ? told.standins.reduce((sum, one) => sum + (one === into ? 1 : 0), 0) : 0;
    const merged = into === null ? "" : into === index ? (count > 1 ? `, stands for ${count} tokens` : "") : into >= 0 ? `, part of token ${into} with ${count - 1} others` : ", part of none";
    return `${place}: ${fate}${merged}${score}.`;
  }

  function cellPlace([frames, rows, columns], index) {
    const [frame, rest] = [Math.floor(index / (rows * columns)), index % (rows * columns)];
    return `token ${index} (${frames > 1 ? `frame ${frame}, ` : ""}row ${Math.floor(rest / columns)}, column ${rest % columns})`;
  }

  async function draw() {
    const picture = pictureNow(), row = rowNow();
    if (!dialog.open || !picture || !row) return;
    const image = await imageOf(picture.picture);
    const shown = picture.shown[row.key];
    const told = toldOf(picture, shown, state.stage);
    dialog.querySelector("h3").textContent = row.method;
    put(dialog.querySelector(".verdict-line"), h("span", { class: `verdict ${shown.right ? "good" : "bad"}` }, shown.answer),
      ` · ${picture.text} · keeps ${told.chosen.length} of ${told.total} tokens${known(row.asked) ? ` at ${budgetName(row.asked)}` : ""}`);
    const canvas = dialog.querySelector("canvas");
    layout = paint(canvas, image, picture, shown, { stage: state.stage, mode: state.mode, wide: Math.max(240, canvas.parentElement.clientWidth), at });
    canvas.setAttribute("aria-label", `Tokens that ${row.method} keeps; arrow keys go from token to token`);
    dialog.querySelector(".cell").textContent = at >= 0 ? cellText(picture, shown, at) : "Point at a token, or focus the picture and use the arrow keys.";
  }

  function aim(event) {
    const canvas = event.currentTarget, picture = pictureNow();
    if (!layout) return;
    const frame = canvas.getBoundingClientRect();
    const wide = canvas.parentElement.clientWidth;
    const [px, py] = [((event.clientX - frame.left) / frame.width) * wide, ((event.clientY - frame.top) / frame.height) * layout.high];
    const found = picture.cells.findIndex(([left, top, right, bottom, number]) => {
      const [x, y] = layout.place.get(number);
      const [ox, oy] = [(px - x) / layout.scale, (py - y) / layout.scale];
      return ox >= left && ox < right && oy >= top && oy < bottom;
    });
    if (found === at) return;
    at = found;
    draw();
  }

  function keys(event) {
    const picture = pictureNow();
    const down = picture.grid ? picture.grid[2] : 1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: down, ArrowUp: -down }[event.key];
    if (!step) return;
    event.preventDefault();
    at = at < 0 ? 0 : Math.max(0, Math.min(picture.cells.length - 1, at + step));
    draw();
  }

  const turn = (step) => {
    const names = rowsShown().map((row) => row.method);
    name = names[(names.indexOf(name) + step + names.length) % names.length];
    draw();
  };
  put(dialog,
    h("header", null, h("h3", { id: "closeup-title" }), h("span", { class: "field" },
      h("button", { type: "button", class: "button", onclick: () => turn(-1), "aria-label": "Method before" }, "←"),
      h("button", { type: "button", class: "button", onclick: () => turn(1), "aria-label": "Next method" }, "→"),
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close"))),
    h("p", { class: "verdict-line soft" }),
    h("div", null, h("canvas", { tabindex: "0", role: "img", onpointermove: aim, onpointerdown: aim, onkeydown: keys })),
    h("p", { class: "cell soft", role: "status" }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  openCloseup = (chosen) => {
    name = chosen;
    at = -1;
    dialog.showModal();
    draw();
  };
  whenResized(dialog, draw);
  watch(["dark", "budget", "mode"], draw);
}
