// The data, and what is looked up in it.

const DATA = JSON.parse(byId("data").textContent);
const NAMES = Object.keys(DATA.methods);
const near = (a, b) => Math.abs(a - b) <= 1e-6 * Math.max(1, Math.abs(a));

const runOf = (id) => DATA.runs.find((run) => run.id === id) || DATA.runs[0];
const meaningsOf = (run) => ["true", "nominal"].filter((one) => run.rows.some((row) => row.meaning === one));

/** Budgets that were asked for in a run, the largest first. */
function budgetsOf(run) {
  const found = [];
  for (const { asked } of run.rows) if (known(asked) && !found.some((one) => near(one, asked))) found.push(asked);
  return found.sort((a, b) => b - a);
}

/** Rows of one meaning, those of methods that find their own count with them. */
const rowsOf = (run, meaning) => run.rows.filter((row) => row.meaning === meaning || row.meaning === "own");

/** The row of each method at one budget. */
const rowsAt = (run, meaning, budget) =>
  rowsOf(run, meaning).filter((row) => row.meaning === "own" || near(row.asked, budget));

const shareOf = (run, budget) => (budget <= 1 ? budget : budget / run.tokens);
const picturesOf = (run) => DATA.pictures.filter((picture) => picture.run === run.id);

/** What a method is in a word: methods that the data does not describe are plain ones. */
function kindOf(name) {
  const facts = DATA.methods[name] || {};
  return facts.composition ? (facts.ours ? "composition" : "mixed") : facts.ours ? "ours" : facts.control ? "control" : "other";
}
/** Whether a method could be used: the ground truth and a question without its image cannot. */
const isMethod = (name) => !((DATA.methods[name] || {}).control && !DATA.methods[name].paper);
const KINDS = { ours: "prunus’ systems", composition: "prunus’ compositions", mixed: "Other compositions", control: "Controls", other: "Other methods" };
/** Where a method works, in the words in which methods say it. */
const PLACES = { tower: ["in the vision tower", "vision tower"], before: ["before the language model", "before the language"], inside: ["inside the language model", "decoder layers"] };
const worksIn = (name, place) => ((DATA.methods[name] || {}).place || "").includes(PLACES[place][1]);
const ORDER = Object.keys(KINDS).flatMap((kind) => NAMES.filter((name) => kindOf(name) === kind));
const rank = (name) => (ORDER.indexOf(name) + 1 || ORDER.length + 1);

const COSTS = {
  llm_flops: { name: "LLM FLOPs", axis: "FLOPs of the language model, share of the unpruned model’s", of: (row) => row.cost.llm_flops },
  flops: { name: "all FLOPs", axis: "FLOPs of everything (tower, selector, language model), share of the unpruned model’s", of: (row) => row.cost.flops },
  kv: { name: "KV cache", axis: "bytes of the KV cache, share of the unpruned model’s", of: (row) => row.cost.kv },
  time: { name: "time", axis: "measured time of a prefill with its tower, share of the unpruned model’s", of: (row) => (row.cost.time ? row.cost.time.median : null) },
};
