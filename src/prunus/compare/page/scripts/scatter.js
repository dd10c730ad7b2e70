// What papers report beside what was measured: one point for each method.

/** `list`: {method, published, measured}, both as shares of the unpruned model. */
function scatter(list) {
  const wide = 440, high = 330, left = 46, right = 428, top = 26, bottom = 284;
  const range = (values) => roomy(Math.min(...values), Math.max(...values), 5, 0, 2);
  const across = range(list.map((one) => one.published)), up = range(list.map((one) => one.measured));
  const x = linear(...across, left, right), y = linear(...up, bottom, top);
  const svg = s("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `Published and measured shares of the unpruned model: ${list.map((one) => `${one.method} ${percent(one.published)} and ${percent(one.measured)}`).join("; ")}` });
  for (const value of ticks(...up, 5)) svg.append(s("path", { class: "grid", d: `M${left} ${y(value)}H${right}` }), s("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  for (const value of ticks(...across, 5)) svg.append(s("path", { class: "grid", d: `M${x(value)} ${top}V${bottom}` }), s("text", { x: x(value), y: bottom + 17, "text-anchor": "middle" }, tickText(value)));
  svg.append(s("path", { class: "base", d: `M${left} ${top}V${bottom}H${right}` }),
    s("text", { class: "axis-title", x: left, y: high - 8 }, "published, % of unpruned"),
    s("text", { class: "axis-title", x: 0, y: 12 }, "measured, % of unpruned"));
  const labels = list.map((one) => {
    const px = x(one.published), inside = px + 9 + textWidth(one.method) < right;
    const end = inside ? px + 9 : px - 9;
    return { ...one, x: px, y: y(one.measured), inside, end, from: inside ? end : end - textWidth(one.method), to: inside ? end + textWidth(one.method) : end };
  });
  for (const label of spread(labels, 13, top + 4, bottom)) {
    const look = lookOf(label.method);
    svg.append(s("path", { class: "mark", d: markPath(look.mark, label.x, label.y, 5), style: { fill: look.color } }),
      s("text", { class: "name", x: label.end, y: label.at + 4, "text-anchor": label.inside ? "start" : "end", style: { fill: look.color } }, label.method));
  }
  return svg;
}
