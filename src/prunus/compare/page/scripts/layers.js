// How many visual tokens each layer works on: one panel for all methods that do the same.

function showLayers() {
  function panel(rows, most) {
    const row = rows[0];
    const wide = 210, high = 96, left = 26, right = 206, top = 6, bottom = 78;
    const layers = row.per_layer;
    const x = linear(0, layers.length, left, right);
    const y = linear(0, most, bottom, top);
    const names = rows.map((one) => one.method);
    const figure = h("figure", { class: `panel ${names.some((name) => ["ours", "composition"].includes(kindOf(name))) ? "ours" : ""} ${names.length > 8 ? "broad" : ""}` },
      h("p", { class: "soft" }, `${count(row.average)} on average, ${percent(row.average / state.run.tokens)}`));
    const bars = layers.map((tokens, i) => s("rect", { x: x(i) + 0.5, width: Math.max(0.5, x(1) - x(0) - 1), y: y(tokens), height: Math.max(0, bottom - y(tokens)) }));
    const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `Visual tokens in layers 0 to ${layers.length - 1}: ${layers.map(count).join(", ")}` },
      s("rect", { class: "whole", x: left, y: top, width: right - left, height: bottom - top }),
      s("g", { class: "bars" }, bars),
      s("path", { class: "mean", d: `M${left} ${y(row.average)}H${right}` }),
      s("text", { x: left - 4, y: top + 8, "text-anchor": "end" }, count(most)),
      s("text", { x: left - 4, y: bottom, "text-anchor": "end" }, "0"),
      s("text", { x: left, y: high - 4 }, "layer 0"),
      s("text", { x: right, y: high - 4, "text-anchor": "end" }, String(layers.length - 1)));
    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect();
      const place = ((event.clientX - frame.left) / frame.width) * wide;
      const layer = Math.floor(((place - left) / (right - left)) * layers.length);
      bars.forEach((bar, i) => bar.classList.toggle("here", i === layer));
      if (layer < 0 || layer >= layers.length) return hideTip();
      showTip(event.clientX, event.clientY, h("b", null, `layer ${layer}`), terms([["visual tokens", count(layers[layer])], ["of all", percent(layers[layer] / state.run.tokens)]]));
    });
    svg.addEventListener("pointerleave", () => {
      bars.forEach((bar) => bar.classList.remove("here"));
      hideTip();
    });
    figure.append(svg, h("figcaption", null, names.join(", ")));
    return figure;
  }

  watch(["budget", "meaning"], () => {
    const rows = rowsAt(state.run, state.meaning, state.budget).filter((row) => !row.refused).sort((a, b) => rank(a.method) - rank(b.method));
    const groups = new Map();
    for (const row of rows) {
      const key = row.per_layer.map((tokens) => tokens.toFixed(1)).join();
      groups.set(key, [...(groups.get(key) || []), row]);
    }
    const most = Math.max(state.run.tokens, ...rows.flatMap((row) => row.per_layer));
    put(byId("layer-panels"), [...groups.values()].map((one) => panel(one, most)));
  });
}
