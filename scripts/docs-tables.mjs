// Writes the tables of README.md from docs/results/*.json, between the marker comments; no figure is typed by hand.
//
//   node scripts/docs-tables.mjs            writes
//   node scripts/docs-tables.mjs --record   first records machine and commit into files that lack them
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";

const folder = path.join(packageRoot, "docs", "results");
const read = (name) => JSON.parse(readFileSync(path.join(folder, name), "utf8"));
const files = readdirSync(folder).filter((name) => name.endsWith(".json")).sort();

if (process.argv.includes("--record")) {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: packageRoot, encoding: "utf8" }).trim();
  const machine = `${os.cpus()[0]?.model.trim() ?? "unknown processor"}, ${os.availableParallelism()} cores, Node ${process.version}`;
  for (const name of files) {
    const value = read(name);
    if (value.provenance) continue;
    writeFileSync(path.join(folder, name), `${JSON.stringify({ provenance: { machine, commit }, ...value }, null, 2)}\n`);
  }
}

const table = (head, rows) =>
  [head, head.map((_, i) => (i === 0 ? "---" : "--:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
const percent = (x) => `${(100 * x).toFixed(1)}`;

function demoTable() {
  const runs = files.filter((name) => name.startsWith("demo-")).map(read);
  if (runs.length === 0) return "";
  const { provenance, testClips } = runs[0];
  const cell = ({ wa, merMetric }) => `${percent(wa)} / ${merMetric.toFixed(2)}`;
  const rows = Object.keys(runs[0].results).map((system) => [system, ...runs.map((run) => cell(run.results[system]))]);
  rows.push(["ceiling of one modality", ...runs.map((run) => `${percent(run.ceiling.audio)}, ${percent(run.ceiling.visual)}`)]);
  rows.push([
    "attention, expressive : neutral",
    ...runs.map((run) => Object.values(run.attention).map(({ ratio }) => ratio.toFixed(1)).join(", ")),
  ]);
  rows.push(["seconds", ...runs.map((run) => run.seconds.total.toFixed(0))]);
  const text = table(["WA in % / MER metric", ...runs.map((run) => `seed ${run.settings.seed}`)], rows);
  return `${text}\n\n\`affuse demo --seed N\`, ${testClips} test clips; ${provenance.machine}, commit ${provenance.commit}, the machine shared with other work.`;
}

function benchTable() {
  const rows = [];
  const sources = [];
  for (const [name, command] of [
    ["bench-forward.json", "node --import tsx bench/forward.ts"],
    ["bench-step.json", "node --import tsx bench/step.ts"],
  ]) {
    if (!files.includes(name)) continue;
    const { cases, provenance, context } = read(name);
    const prefix = name === "bench-step.json" ? "training step, " : "";
    for (const [label, { wall, processor }] of Object.entries(cases)) {
      const ms = ({ median }) => (1000 * median).toFixed(2);
      rows.push([prefix + label, ms(processor.affuse), ms(processor.torch), processor.ratio.toFixed(2), wall.ratio.toFixed(2)]);
    }
    sources.push(`\`${command}\` (${provenance.machine}, ${context.cpu.isa}, commit ${provenance.commit}; PyTorch ${context.peer.torch}, ${context.peer.blas})`);
  }
  if (rows.length === 0) return "";
  const head = ["one thread each", "affuse, CPU ms", "PyTorch, CPU ms", "ratio of CPU times", "ratio of wall times"];
  return `${table(head, rows)}\n\nMedians of interleaved calls; above 1 affuse is faster. ${sources.join("; ")}. The machine was shared with other work.`;
}

const readme = path.join(packageRoot, "README.md");
let text = readFileSync(readme, "utf8");
for (const [name, content] of [
  ["demo-table", demoTable()],
  ["bench-table", benchTable()],
]) {
  const marks = new RegExp(`(<!-- ${name}:begin -->\\n)[\\s\\S]*?(<!-- ${name}:end -->)`);
  if (!marks.test(text)) throw new Error(`README.md has no markers for ${name}`);
  text = text.replace(marks, (_, begin, end) => `${begin}${content}${content && "\n"}${end}`);
}
writeFileSync(readme, text);
