// Accuracy over cost.

function showPareto() {
  const figure = byId("pareto");
  let points = [];   // what can be pointed at: {x, y, row, mark}
  let here = null;

  const visible = (name) => !state.hidden.has(name);
  const hide = (names) => set({ hidden: new Set(names) });
  const costs = Object.entries(COSTS).filter(([, cost]) => DATA.runs.some((run) => run.rows.some((row) => !row.refused && known(cost.of(row)))));
  if (!costs.some(([key]) => key === state.cost) && costs.length) state.cost = costs[0][0];

  put(byId("pareto-tools"),
    segments("Cost", "cost", costs.map(([key, cost]) => [key, cost.name]), state.cost, (cost) => set({ cost })),
    h("span", { class: "field" },
      h("button", { type: "button", class: "button", onclick: () => hide(NAMES.filter((name) => !isMethod(name))) }, "All methods"),
      h("button", { type: "button", class: "button", onclick: () => hide(NAMES.filter((name) => !lookOf(name).strong || !isMethod(name))) }, "prunus and controls"),
      chooser("Place", "place", [["all", "everywhere"], ...Object.entries(PLACES).map(([key, [words]]) => [key, words])], "all", (place) =>
        hide(NAMES.filter((name) => !isMethod(name) || (place !== "all" && name !== "random" && !worksIn(name, place)))))));

  function point(name) {
    const svg = figure.querySelector("svg");
    if (!svg) return;
    svg.classList.toggle("pointing", name !== null && visible(name));
    for (const series of svg.querySelectorAll(".series")) series.classList.toggle("here", series.dataset.method === name);
  }

  function aim(found, byKey) {
    here = found;
    const svg = figure.querySelector("svg");
    const ring = svg.querySelector(".ring");
    const whisker = svg.querySelector("g.whiskers");
    whisker.replaceChildren();
    if (!found) {
      ring.setAttribute("visibility", "hidden");
      hideTip();
      return point(null);
    }
    ring.setAttribute("visibility", byKey ? "visible" : "hidden");
    ring.setAttribute("cx", found.x);
    ring.setAttribute("cy", found.y);
    whisker.append(...found.whiskers());
    point(found.row.method);
    const box = svg.getBoundingClientRect();
    showTip(box.left + found.x * (box.width / svg.viewBox.baseVal.width), box.top + found.y * (box.height / svg.viewBox.baseVal.height), ...rowTip(found.row));
    if (!byKey) return;
    byId("pareto-said").textContent = describe(found.row);
    tipFollows = () => aim(found, true);
  }

  function describe(row) {
    const value = COSTS[state.cost].of(row);
    return `${row.method}${known(row.asked) ? ` at ${budgetName(row.asked)}` : ""}: ${percent(row.accuracy.value)} right, ${between(row.accuracy)}; ${percent(value)} of the ${COSTS[state.cost].name}`;
  }

  function keys(event) {
    const order = [...points].sort((a, b) => rank(a.row.method) - rank(b.row.method) || a.x - b.x);
    if (!order.length) return;
    const at = here ? order.findIndex((one) => one.row === here.row) : -1;
    const jump = (step) => {
      for (let i = at + step; i >= 0 && i < order.length; i += step) if (at < 0 || order[i].row.method !== order[at].row.method) return i;
      return at;
    };
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: jump(1), ArrowUp: jump(-1), Home: 0, End: order.length - 1 }[event.key];
    if (event.key === "Escape") aim(null);
    if (next === undefined) return;
    event.preventDefault();
    aim(order[Math.max(0, Math.min(order.length - 1, next))], true);
  }

  function draw() {
    const { run, meaning } = state;
    const cost = COSTS[state.cost];
    const wide = Math.max(300, Math.round(figure.clientWidth || 900));
    const narrow = wide < 640;
    const high = narrow ? 380 : 500;
    const box = { left: 46, right: wide - (narrow ? 8 : 16), top: 26, bottom: high - 48 };
    const rows = rowsOf(run, meaning).filter((row) => !row.refused && visible(row.method) && known(cost.of(row)));
    const dense = run.dense;
    const values = [...rows.map((row) => row.accuracy.value), dense.accuracy.value, dense.accuracy.high];
    const spent = rows.map(cost.of);
    const [low, top] = roomy(Math.min(...values), Math.max(...values), 6, 0, 1);
    const leftmost = Math.min(...spent, 1);
    const room = narrow ? 0 : 0.14 * (Math.max(...spent, 0.1) - leftmost);
    const [from, to] = roomy(leftmost - room, Math.max(...spent, leftmost + 0.1), narrow ? 5 : 9, 0, 10);
    const x = linear(from, to, box.left, box.right);
    const y = linear(low, top, box.bottom, box.top);

    const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, tabindex: "0", role: "application", "aria-roledescription": "chart",
      "aria-label": `Right answers over ${cost.axis}, ${plural(new Set(rows.map((row) => row.method)).size, "method")}. Arrow keys go from point to point. The same numbers are in the table below.` });

    for (const value of ticks(low, top, narrow ? 5 : 7)) {
      svg.append(s("path", { class: "grid", d: `M${box.left} ${y(value)}H${box.right}` }),
        s("text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
    }
    for (const value of ticks(from, to, narrow ? 5 : 9)) {
      svg.append(s("path", { class: "grid", d: `M${x(value)} ${box.top}V${box.bottom}` }),
        s("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, tickText(value)));
    }
    svg.append(s("path", { class: "base", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
      s("text", { class: "axis-title", x: box.left, y: high - 8 }, `${narrow ? cost.name : cost.axis}, %`),
      s("text", { class: "axis-title", x: 0, y: 12 }, "right answers, %"));

    const clip = (value) => Math.max(box.top, Math.min(box.bottom, y(value)));
    svg.append(
      s("rect", { class: "dense-band", x: box.left, width: box.right - box.left, y: clip(dense.accuracy.high), height: Math.max(0, clip(dense.accuracy.low) - clip(dense.accuracy.high)) }),
      s("path", { class: "dense-line", d: `M${box.left} ${y(dense.accuracy.value)}H${box.right}` }),
      s("text", { class: "band-label", x: box.right - 4, y: clip(dense.accuracy.value) - 6, "text-anchor": "end" }, `unpruned ${bare(dense.accuracy.value)}`));

    const random = rows.filter((row) => row.method === "random").sort((a, b) => cost.of(a) - cost.of(b));
    if (random.length === 1) {
      const [row] = random;
      svg.append(s("rect", { class: "random-band", x: x(cost.of(row)) - 12, width: 24, y: clip(row.accuracy.high), height: clip(row.accuracy.low) - clip(row.accuracy.high) }));
    } else if (random.length) {
      const up = random.map((row) => `${x(cost.of(row))} ${clip(row.accuracy.high)}`);
      const down = random.map((row) => `${x(cost.of(row))} ${clip(row.accuracy.low)}`).reverse();
      svg.append(s("path", { class: "random-band", d: `M${[...up, ...down].join("L")}Z` }));
    }

    const best = frontier(rows.filter((row) => isMethod(row.method)).map((row) => ({ x: cost.of(row), y: row.accuracy.value })));
    if (best.length) {
      const steps = best.slice(1).map((point, i) => `H${x(point.x)}V${y(point.y)}`);
      svg.append(s("path", { class: "frontier", d: `M${x(best[0].x)} ${y(best[0].y)}${steps.join("")}H${box.right}` }));
    }

    points = [];
    const labels = [];
    const drawn = [...new Set(rows.map((row) => row.method))].sort((a, b) => lookOf(a).strong - lookOf(b).strong || rank(b) - rank(a));
    for (const name of drawn) {
      const look = lookOf(name);
      const own = rows.filter((row) => row.method === name).sort((a, b) => cost.of(a) - cost.of(b));
      const at = own.map((row) => [x(cost.of(row)), y(row.accuracy.value)]);
      const series = s("g", { class: `series ${look.strong ? "" : "faint"}`, "data-method": name, style: { "--own": look.color } },
        s("path", { class: "line", d: `M${at.map((one) => one.map((v) => v.toFixed(1)).join(" ")).join("L")}`, "stroke-width": look.width, "stroke-dasharray": look.dash }));
      own.forEach((row, i) => {
        const chosen = row.meaning === "own" || near(row.asked, state.budget);
        const size = (look.strong ? 4.6 : 3.2) + (chosen ? 1.3 : 0);
        series.append(s("path", { class: `mark ${look.open ? "open" : ""}`, d: markPath(look.mark, ...at[i], size) }));
        const whiskers = () => {
          const { time } = row.cost;
          return [
            s("path", { class: "whisker", d: `M${at[i][0]} ${clip(row.accuracy.low)}V${clip(row.accuracy.high)}`, style: { stroke: look.color } }),
            state.cost === "time" && time && s("path", { class: "whisker", d: `M${x(time.q1)} ${at[i][1]}H${x(time.q3)}`, style: { stroke: look.color } }),
          ].filter(Boolean);
        };
        points.push({ x: at[i][0], y: at[i][1], row, whiskers });
      });
      if (look.strong) {
        const [px, py] = at[0];
        const inside = px - 12 - textWidth(name) > box.left;
        const end = inside ? px - 10 : px + 10;
        labels.push({ name, x: px, y: py, color: look.color, inside, end, from: inside ? end - textWidth(name) : end, to: inside ? end : end + textWidth(name) });
      }
      svg.append(series);
    }
    svg.append(s("g", { class: "whiskers" }), s("circle", { class: "ring", r: 9, visibility: "hidden" }));
    if (!narrow) {
      const names = s("g", { class: "names" });
      svg.append(names);
      for (const label of spread(labels, 14, box.top + 4, box.bottom - 4)) {
        if (Math.abs(label.at - label.y) > 7) names.append(s("path", { class: "leader", d: `M${label.x + (label.inside ? -5 : 5)} ${label.y}L${label.end + (label.inside ? 1 : -1)} ${label.at - 1}`, style: { stroke: label.color } }));
        names.append(s("text", { class: "name", x: label.end, y: label.at + 4, "text-anchor": label.inside ? "end" : "start", style: { fill: label.color } }, label.name));
      }
    }

    const closest = (event) => {
      const frame = svg.getBoundingClientRect();
      const px = ((event.clientX - frame.left) / frame.width) * wide;
      const py = ((event.clientY - frame.top) / frame.height) * high;
      const away = (one) => (one.x - px) ** 2 + (one.y - py) ** 2;
      const found = points.reduce((a, b) => (a && away(a) <= away(b) ? a : b), null);
      return found && away(found) < 30 ** 2 ? found : null;
    };
    svg.addEventListener("pointermove", (event) => aim(closest(event)));
    svg.addEventListener("pointerdown", (event) => aim(closest(event)));
    svg.addEventListener("pointerleave", () => aim(null));
    svg.addEventListener("keydown", keys);
    svg.addEventListener("blur", () => aim(null));
    const focused = figure.contains(document.activeElement);
    put(figure, svg, h("p", { class: "quiet", id: "pareto-said", role: "status" }));
    here = null;
    if (focused) svg.focus();
  }

  watch(["hidden", "cost", "budget", "meaning"], draw);
  const legend = () => put(byId("pareto-legend"), chips(ORDER.filter((name) => state.run.rows.some((row) => row.method === name && !row.refused)), visible, (name) => {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(name)) hidden.add(name);
    set({ hidden });
  }, point));
  watch(["run"], legend);
  watch(["hidden"], () => press(byId("pareto-legend"), visible));
  whenResized(figure, draw);
}

/** Draw anew when the width of an element changes. */
function whenResized(element, draw) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
}
