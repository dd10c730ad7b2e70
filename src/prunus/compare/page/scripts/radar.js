// By type of question: a star for the eye, a table for the numbers.

const MOST_STARS = 6;

function showRadar() {
  const rowsHere = () => rowsAt(state.run, state.meaning, state.budget).filter((row) => !row.refused);

  function chosen() {
    const rows = rowsHere();
    if (state.radar) return rows.filter((row) => state.radar.has(row.method)).slice(0, MOST_STARS);
    const first = (kind, most) => rows.filter((row) => kindOf(row.method) === kind).sort((a, b) => b.accuracy.value - a.accuracy.value).slice(0, most);
    const rival = rows.filter((row) => row.method === state.run.rival);
    return [...first("ours", 2), ...first("composition", 1), ...rows.filter((row) => row.method === "random"), ...rival]
      .sort((a, b) => rank(a.method) - rank(b.method));
  }

  function star(rows) {
    const { run } = state;
    const wide = Math.max(280, Math.round(byId("radar").clientWidth || 460));
    const longest = Math.max(...run.types.map((type) => textWidth(type, 13)));
    const reach = Math.max(60, Math.min(150, wide / 2 - longest - 20)), middle = wide / 2, high = 2 * reach + 64, centre = reach + 34;
    const all = [run.dense, ...rows];
    const values = all.flatMap((row) => run.types.map((type) => row.by_type[type]?.value ?? 1));
    const low = Math.max(0, Math.floor((Math.min(...values) - 0.04) * 10) / 10);
    const r = linear(low, 1, 18, reach);
    const angle = (i) => (2 * Math.PI * i) / run.types.length - Math.PI / 2;
    const at = (i, radius) => [middle + radius * Math.cos(angle(i)), centre + radius * Math.sin(angle(i))];
    const ringed = (radius) => `M${run.types.map((_, i) => at(i, radius).map((v) => v.toFixed(1)).join(" ")).join("L")}Z`;
    const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `Right answers by type of question of ${all.map((row) => row.method).join(", ")}; the numbers are in the table beside it.` });
    const rings = ticks(low, 1, 4);
    for (const value of rings) svg.append(s("path", { class: "ringline", d: ringed(r(value)) }));
    run.types.forEach((type, i) => {
      const [ex, ey] = at(i, reach), [tx, ty] = at(i, reach + 16);
      svg.append(s("path", { class: "spoke", d: `M${at(i, 18).join(" ")}L${ex} ${ey}` }));
      const chance = run.chance[type];
      if (known(chance) && chance >= low) {
        const [cx, cy] = at(i, r(chance)), dx = -Math.sin(angle(i)) * 7, dy = Math.cos(angle(i)) * 7;
        svg.append(s("path", { class: "chance", d: `M${cx - dx} ${cy - dy}L${cx + dx} ${cy + dy}` }));
      }
      const side = Math.cos(angle(i));
      svg.append(s("text", { class: "type", x: tx, y: ty + 4, "text-anchor": side > 0.25 ? "start" : side < -0.25 ? "end" : "middle" }, type));
    });
    for (const row of all) {
      const look = row === run.dense ? DENSE_LOOK : lookOf(row.method);
      const corners = run.types.map((type, i) => at(i, r(Math.max(low, row.by_type[type]?.value ?? low))));
      svg.append(s("path", { class: "area", d: `M${corners.map((one) => one.map((v) => v.toFixed(1)).join(" ")).join("L")}Z`, "stroke-width": Math.max(1.75, look.width), "stroke-dasharray": look.dash, style: { stroke: look.color, fill: ["ours", "composition"].includes(kindOf(row.method)) ? look.color : "none" } }));
      if (row !== run.dense) for (const [cx, cy] of corners) svg.append(s("path", { class: "mark", d: markPath(look.mark, cx, cy, 3.6), style: { fill: look.color } }));
    }
    for (const value of rings) svg.append(s("text", { x: middle + 4, y: centre - r(value) + 11 }, tickText(value)));
    return svg;
  }

  function table(rows) {
    const { run } = state;
    const all = [run.dense, ...rows];
    return h("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": "Right answers by type of question" }, h("table", { class: "small" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "right, %"), run.types.map((type) => h("th", { scope: "col" }, type)))),
      h("tbody", null,
        all.map((row) => h("tr", null, h("th", { scope: "row" }, swatch(row.method), row === run.dense ? "unpruned" : row.method), run.types.map((type) => {
          const one = row.by_type[type];
          const top = Math.max(...rows.map((other) => other.by_type[type]?.value ?? 0));
          return h("td", { class: row !== run.dense && one && one.value === top ? "best" : "", title: one ? `${between(one)} (95 % interval)` : "" }, one ? bare(one.value) : "–");
        }))),
        run.types.some((type) => known(run.chance[type])) && h("tr", { class: "soft" }, h("th", { scope: "row" }, "chance"), run.types.map((type) => h("td", null, known(run.chance[type]) ? bare(run.chance[type]) : "–"))))));
  }

  whenResized(byId("radar"), () => put(byId("radar"), star(chosen())));
  watch(["budget", "meaning", "radar"], () => {
    const rows = chosen();
    put(byId("radar"), star(rows));
    put(byId("radar-table"), table(rows));
    const isOn = (name) => chosen().some((row) => row.method === name);
    const there = rowsHere().map((row) => row.method).sort((a, b) => rank(a) - rank(b));
    const place = byId("radar-choice");
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.method : null;
    put(place, h("p", { class: "soft" }, `Up to ${MOST_STARS} at a time.`), chips(there, isOn, (name) => {
      const radar = new Set(chosen().map((row) => row.method));
      if (!radar.delete(name)) radar.add(name);
      if (radar.size <= MOST_STARS) set({ radar });
    }));
    if (focused) place.querySelector(`[data-method="${CSS.escape(focused)}"]`)?.focus();
  });
}
