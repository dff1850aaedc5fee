// Writes the tables of README.md and docs/benchmarks.md, and for every folder of docs/results with results of `affuse bench --json`
// on one machine its README.md and bench.html; no figure is typed by hand.
//
//   node scripts/docs-tables.mjs            writes
//   node scripts/docs-tables.mjs --record   first records machine and commit into the demo's files that lack them
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
    if (value.provenance || value.context) continue;
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
    `attention, expressive : neutral (${Object.keys(runs[0].attention).join(", ")})`,
    ...runs.map((run) => Object.values(run.attention).map(({ ratio }) => ratio.toFixed(1)).join(", ")),
  ]);
  rows.push(["seconds", ...runs.map((run) => run.seconds.total.toFixed(0))]);
  const text = table(["WA in % / MER metric", ...runs.map((run) => `seed ${run.settings.seed}`)], rows);
  return `${text}\n\n\`affuse demo --seed N\`, ${testClips} test clips; ${provenance.machine}, commit ${provenance.commit}, the machine shared with other work.`;
}

const built = path.join(packageRoot, "dist/esm/bench"); // by npm run build:ts
const { benchPage, mergeReports } = await import(path.join(built, "page.js"));
const { duration: time } = await import(path.join(built, "table.js"));
const { verdict } = await import(path.join(built, "targets.js"));

// A machine is a folder, named after the level that its processor runs: the widest first.
const machines = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => {
    const files = readdirSync(path.join(folder, name)).filter((file) => /^bench.*\.json$/.test(file)).sort();
    const reports = files.map((file) => read(path.join(name, file)));
    return { name, reports, merged: mergeReports(reports) };
  })
  .sort((a, b) => (a.name < b.name ? 1 : -1));

const figure = (value, unit) => `${value.toFixed(unit === "%" ? 1 : 2)} ${unit}`;

function provenance({ merged }) {
  const { cpu, num_cpus, level, versions, commit, torch, load_avg, executable } = merged.context;
  const commits = commit.split("; ");
  const shown = (command) => `\`${command.replace(/ --(json|html) \S+/g, "").replace(/(--filter) ([^'" ]*[^\w/=,.:+' -][^ ]*)/, "$1 '$2'")}\``;
  const commands = executable.split("; ").map((command, i) => `${shown(command)} (commit ${commits[i]})`).join(" and ");
  const shared = merged.benchmarks.filter((entry) => entry.shared).length;
  const other = shared > 0 ? ` Something else used the cores during ${shared} of ${merged.benchmarks.length} timings: their speeds are too low, a * marks them in the tables.` : "";
  const load = load_avg[0] > num_cpus / 2 ? ` The machine did other work meanwhile (load ${load_avg[0].toFixed(0)}): single figures may be too low.` : "";
  const busy = other || load;
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
  return `${commands}: ${cpu}, ${num_cpus} cores, ${level}; ${names}${torch ? ` (${torch.blas ?? torch.libraries.join(", ")})` : ""}.${busy}`;
}

const provenances = () => machines.map((machine) => `- ${machine.name}: ${provenance(machine)}`).join("\n");

// Every row of the targets, and what each machine gave.
function targetTable() {
  const rows = new Map();
  for (const { name, merged } of machines)
    for (const target of merged.targets) {
      const { row, sense, bound, unit } = target;
      if (!rows.has(row)) rows.set(row, { goal: `${sense === "at least" ? "≥" : "≤"} ${figure(bound, unit)}` });
      rows.get(row)[name] = target.value === null ? verdict(target) : `${figure(target.value, unit)}, ${verdict(target)}`;
    }
  const names = machines.map(({ name }) => name);
  const cells = [...rows].map(([row, { goal, ...of }]) => [row, goal, ...names.map((name) => of[name] ?? "–")]);
  return `${table(["row", "target", ...names], cells)}\n\n${provenances()}`;
}

const mark = ({ shared }) => (shared ? "*" : "");
const least = (entries) => entries.reduce((a, b) => (b.median < (a?.median ?? Number.POSITIVE_INFINITY) ? b : a), undefined);

// Every case of the targets that a peer has too: our best, the better peer's, and that over ours.
function peersTable() {
  const rows = new Map();
  for (const { name: machine, merged } of machines) {
    const tagged = merged.benchmarks.filter(({ tags }) => tags.includes("targets"));
    for (const name of new Set(tagged.map((entry) => entry.case))) {
      const best = (...peers) => least(tagged.filter((entry) => entry.case === name && peers.includes(entry.peer)));
      const own = best("affuse");
      const other = best("onnxruntime", "torch");
      if (!other) continue;
      if (!rows.has(name)) rows.set(name, {});
      rows.get(name)[machine] = [
        `${time(own.median)}${mark(own)}`,
        `${time(other.median)}${mark(other)} ${other.peer === "torch" ? "PyTorch" : other.peer}`,
        `${(other.median / own.median).toFixed(2)} ×`,
      ];
    }
  }
  const head = ["case", ...machines.flatMap(({ name }) => [`affuse, ${name}`, "better peer", ""])];
  const cells = [...rows].map(([name, of]) => [`\`${name}\``, ...machines.flatMap((machine) => of[machine.name] ?? ["–", "–", "–"])]);
  return `${table(head, cells)}\n\n${provenances()}`;
}

// Missed rows that multiply-adds bound: what the case takes and what the target would, beside its multiply-adds in bare tiles and
// its bytes at the rate of a copy, in milliseconds.
function missedTable({ reports, merged }) {
  // Of the run that it is from.
  const roofsOf = (entry) =>
    reports.find(({ benchmarks }) => benchmarks.includes(entry))?.context.roofs.find(({ threads }) => threads === entry.threads)?.roofs;
  const rows = merged.targets.flatMap(({ row, value, bound, pass, own, takes, bare }) => {
    const entry = own && merged.benchmarks.find(({ peer, case: name, threads }) => peer === "affuse" && name === own[0] && threads === own[1]);
    const roofs = entry && roofsOf(entry);
    if (pass !== false || bare?.loop !== "tile.l1" || takes?.percent > 100 || !roofs) return [];
    const tiles = entry.flops / roofs["tile.l1"];
    const memory = entry.bytes === null ? null : entry.bytes / Math.max(roofs["copy.dram"], roofs["copy-nt.dram"]);
    const times = [entry.median, (entry.median * value) / bound, tiles, memory, memory === null ? null : tiles + memory];
    return [[row, ...times.map((seconds) => (seconds === null ? "–" : (1e3 * seconds).toFixed(1)))]];
  });
  if (rows.length === 0) return "";
  return table(["row", "reached", "wanted", "multiply-adds in bare tiles", "bytes", "these together"], rows);
}

function casesTable({ merged }) {
  const { benchmarks } = merged;
  const threads = [...new Set(benchmarks.map((entry) => entry.threads))].sort((a, b) => a - b);
  const names = [...new Set(benchmarks.filter(({ tags }) => !tags.includes("sweep")).map((entry) => entry.case))];
  const rows = names.map((name) => {
    const of = (peer) => benchmarks.filter((entry) => entry.case === name && entry.peer === peer);
    const mine = of("affuse");
    const [first] = mine;
    const cell = (entry) => (entry ? `${time(entry.median)}${mark(entry)}` : "–");
    const best = (peer) => cell(least(of(peer)));
    const roof = first?.roof_percent == null ? "–" : `${first.roof_percent.toFixed(0)} % ${first.roof_kind}`;
    const own = threads.map((n) => cell(mine.find((entry) => entry.threads === n)));
    return [`\`${name}\``, ...own, roof, best("onnxruntime"), best("torch")];
  });
  const head = ["case", ...threads.map((n) => `affuse, ${n} thread${n > 1 ? "s" : ""}`), "of its roof, 1 thread", "onnxruntime, best", "PyTorch, best"];
  return table(head, rows);
}

// The sweep's cases below 60 % of their roof, each with its account.
function sweepTable({ merged }) {
  const all = merged.benchmarks.filter(({ tags, threads, peer, account }) => tags.includes("sweep") && threads === 1 && peer === "affuse" && account);
  if (all.length === 0) return "";
  const low = all.filter(({ roof_percent }) => roof_percent < 60).sort((a, b) => a.roof_percent - b.roof_percent);
  const measured = (where, median) =>
    ["tiles", "packing", "kernels", "between"].map((part) => (where ? micros(where[part] * median) : "–"));
  const micros = (seconds) => (seconds >= 1e-4 ? (1e6 * seconds).toFixed(0) : (1e6 * seconds).toPrecision(3));
  const sampled = low.some(({ where }) => where);
  const rows = low.map(({ case: name, median, roof_percent, account, where, shared }) => {
    const { tiles, functions, memory, packing, start } = account;
    const parts = [tiles, functions, memory, packing, start];
    const sum = parts.reduce((a, b) => a + b);
    return [`\`${name.replace("sweep ", "")}\``, micros(median) + mark({ shared }), `${roof_percent.toFixed(0)} %`, ...parts.map(micros),
      `${((100 * sum) / median).toFixed(0)} %`, ...(sampled ? measured(where, median) : [])];
  });
  const worst = Math.min(...all.map(({ roof_percent }) => roof_percent));
  const head = ["case", "median", "of its roof", "arithmetic in whole registers", "tanh", "memory", "packing", "start of the run", "these together"];
  const parts = sampled ? ["in register tiles", "in packing", "in other kernels", "between runs"] : [];
  const source = sampled ? " The last four are from samples" : "";
  return `${all.length} shapes, ${low.length} below 60 %, the worst at ${worst.toFixed(0)} %. Microseconds${source && `.${source}`}:\n\n${table(
    [...head, ...parts], rows)}`;
}

function write(file, tables) {
  let text = readFileSync(file, "utf8");
  for (const [name, content] of tables) {
    const marks = new RegExp(`(<!-- ${name}:begin -->\\n)[\\s\\S]*?(<!-- ${name}:end -->)`);
    if (!marks.test(text)) throw new Error(`${file} has no markers for ${name}`);
    text = text.replace(marks, (_, begin, end) => `${begin}${content}${content && "\n"}${end}`);
  }
  writeFileSync(file, text);
}
write(path.join(packageRoot, "README.md"), [["demo-table", demoTable()], ["bench-table", peersTable()]]);
write(path.join(packageRoot, "docs", "benchmarks.md"), [["bench-targets", targetTable()]]);

for (const machine of machines) {
  const place = path.join(folder, machine.name);
  writeFileSync(path.join(place, "bench.html"), benchPage(machine.merged));
  const missed = missedTable(machine);
  const sweep = sweepTable(machine);
  const sections = [
    `# ${machine.name}`,
    "Written by scripts/docs-tables.mjs from the files beside it; [how speed is measured](../../benchmarks.md), [plots](bench.html).",
    provenance(machine),
    `## Cases\n\n${casesTable(machine)}`,
  ];
  if (missed) sections.push(`## Missed rows that multiply-adds bound\n\nMilliseconds; bytes at the rate of a copy.\n\n${missed}`);
  if (sweep) sections.push(`## Sweep\n\n${sweep}`);
  writeFileSync(path.join(place, "README.md"), `${sections.join("\n\n")}\n`);
}
