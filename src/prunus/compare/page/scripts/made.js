// What made the numbers: enough to make them again.

function showMade() {
  const { made } = DATA;
  const plainValue = (value) => {
    if (Array.isArray(value)) return value.map(plainValue).join(", ");
    if (value && typeof value === "object") return Object.entries(value).map(([key, one]) => `${key} ${plainValue(one)}`).join(", ");
    return String(value);
  };
  const names = { command: "command", date: "date", seconds: "took", device: "device", threads: "threads", dtype: "precision", versions: "versions", settings: "settings", apart: "made of" };
  const empty = (value) => value && typeof value === "object" && Object.keys(value).length === 0;
  // Of a comparison that was joined, each part says its own command.
  const told = Object.keys(made).filter((key) => !empty(made[key]) && !(key === "command" && made.apart));
  const order = [...Object.keys(names).filter((key) => told.includes(key)), ...told.filter((key) => !(key in names))];
  const part = (one) => h("li", null, h("code", null, one.command), h("br"), `${one.date}, ${duration(one.seconds)}, ${one.device}; `, h("span", { class: "soft" }, plainValue(one.settings)));
  const show = (key) => (key === "command" ? h("code", null, made.command) : key === "seconds" ? duration(made.seconds)
    : key === "apart" ? h("ul", { class: "apart" }, made.apart.map(part)) : plainValue(made[key]));
  const methods = ORDER.map((name) => {
    const facts = DATA.methods[name];
    return h("tr", null, h("th", { scope: "row" }, name, tags(name)), h("td", { class: "text" }, facts.summary), h("td", { class: "text" }, facts.place), h("td", { class: "text" }, facts.paper ? linked(facts.paper) : "–"));
  });
  put(byId("made-facts"),
    h("dl", { class: "facts" }, order.map((key) => [h("dt", null, names[key] || key), h("dd", null, show(key))])),
    DATA.notes.length > 0 && [h("h3", null, "Notes"), h("ul", { class: "notes" }, DATA.notes.map((note) => h("li", null, note)))],
    h("details", { class: "chooser" }, h("summary", null, `What the ${NAMES.length} methods are`),
      h("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": "Methods" }, h("table", { class: "numbers" },
        h("thead", null, h("tr", null, ["Method", "What it does", "Where", "Paper"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", null, methods)))));
}
