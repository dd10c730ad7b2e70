// How each method is drawn: colour, dash and mark together are its own.

const DASHES = ["", "7 4", "2 3", "10 3 2 3", "1 4"];
const MARKS = ["circle", "square", "up", "diamond", "down", "cross", "plus", "star"];

const LOOKS = new Map();
{
  const seen = { ours: 0, composition: 0, mixed: 0, control: 0, other: 0 };
  const rivals = new Set(DATA.runs.map((run) => run.rival));
  for (const name of ORDER) {
    const kind = kindOf(name);
    const number = seen[kind]++;
    const rival = rivals.has(name);
    const color = (index) => `var(--s${index % 8})`;
    const look = {
      ours: { color: color(number), dash: "", mark: MARKS[number % 4], width: 2.5 },
      composition: { color: color(4 + (number % 4)), dash: "", mark: "star", width: 3 },
      mixed: { color: color(number), dash: DASHES[1 + (number % 4)], mark: "star", width: 1.4 },
      control: { color: "var(--ink)", dash: DASHES[1 + (number % 4)], mark: ["cross", "plus", "circle", "square"][number % 4], width: 2, open: number % 4 > 1 },
      other: { color: color(number), dash: DASHES[Math.floor(number / 8) % 5], mark: MARKS[(number + 2) % 8], width: 1.4 },
    }[kind];
    const apart = rival && kind === "other" ? { color: "var(--s7)", dash: "9 3", mark: "diamond", width: 2.5 } : {};
    LOOKS.set(name, { ...look, ...apart, strong: !["other", "mixed"].includes(kind) || rival });
  }
}
const DENSE_LOOK = { color: "var(--ink)", dash: "1 3", mark: "circle", width: 1.5, strong: true };
const lookOf = (name) => LOOKS.get(name) || DENSE_LOOK;

/** The outline of a mark around (x, y). */
function markPath(mark, x, y, r) {
  const at = (dx, dy) => `${(x + dx * r).toFixed(1)} ${(y + dy * r).toFixed(1)}`;
  const polygon = (...corners) => `M${corners.map(([dx, dy]) => at(dx, dy)).join("L")}Z`;
  switch (mark) {
    case "square": return polygon([-0.86, -0.86], [0.86, -0.86], [0.86, 0.86], [-0.86, 0.86]);
    case "up": return polygon([0, -1.15], [1.08, 0.8], [-1.08, 0.8]);
    case "down": return polygon([0, 1.15], [1.08, -0.8], [-1.08, -0.8]);
    case "diamond": return polygon([0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]);
    case "plus": return polygon([-0.35, -1.15], [0.35, -1.15], [0.35, -0.35], [1.15, -0.35], [1.15, 0.35], [0.35, 0.35], [0.35, 1.15], [-0.35, 1.15], [-0.35, 0.35], [-1.15, 0.35], [-1.15, -0.35], [-0.35, -0.35]);
    case "cross": return polygon([-1.05, -0.6], [-0.6, -1.05], [0, -0.45], [0.6, -1.05], [1.05, -0.6], [0.45, 0], [1.05, 0.6], [0.6, 1.05], [0, 0.45], [-0.6, 1.05], [-1.05, 0.6], [-0.45, 0]);
    case "star": {
      const corners = Array.from({ length: 10 }, (_, i) => [Math.sin((i * Math.PI) / 5) * (i % 2 ? 0.6 : 1.4), -Math.cos((i * Math.PI) / 5) * (i % 2 ? 0.6 : 1.4)]);
      return polygon(...corners);
    }
    default: return `M${at(-1, 0)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

/** A small sample of a method's line and mark. */
function swatch(name) {
  const look = lookOf(name);
  return s("svg", { viewBox: "0 0 26 12", "aria-hidden": "true", focusable: "false" },
    s("path", { d: "M1 6H25", fill: "none", "stroke-width": Math.min(look.width, 2), "stroke-dasharray": look.dash, style: { stroke: look.color } }),
    name === "dense" ? null : s("path", { d: markPath(look.mark, 13, 6, 4), style: { fill: look.color } }));
}

/** Words that say what a method is, below its name. */
function tags(name) {
  const facts = DATA.methods[name] || {};
  const kind = kindOf(name);
  const words = { ours: "prunus", composition: "prunus’ composition", mixed: "composition", control: "control" };
  const told = [words[kind], facts.merges && "merges", facts.question && "sees the question"].filter(Boolean);
  return told.length ? h("span", { class: `tags ${["ours", "composition"].includes(kind) ? "ours" : ""}` }, told.join(" · ")) : null;
}
