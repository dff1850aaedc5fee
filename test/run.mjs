// Runs test suites, each file in a process of its own, and closes with "N passed, N failed" (", N skipped" when any was).
//
//   node test/run.mjs [PART …] [--jobs N]     only files whose path contains one of the parts
//
// Two files run at a time; *.after.test.ts when the others of its folder have ended, for suites that use what those leave in
// AFFUSE_TEST_SHARED (test/cuda/recorded.ts); *.serial.test.ts last and alone, for suites that measure time. A file that dies,
// hangs or reports no test counts as one failure.
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";

const TIMEOUT = Number(process.env.AFFUSE_TEST_TIMEOUT ?? 900) * 1000;
const argv = process.argv.slice(2);
let jobs = 2;
const parts = [];
while (argv.length > 0) {
  const argument = argv.shift();
  if (argument === "--jobs") jobs = Math.max(1, Number(argv.shift()) || 1);
  else parts.push(argument);
}

const files = readdirSync(path.join(packageRoot, "test"), { recursive: true })
  .map((file) => path.join("test", String(file)))
  .filter((file) => file.endsWith(".test.ts") && (parts.length === 0 || parts.some((part) => file.includes(part))))
  .sort();
if (files.length === 0) {
  console.error(`no test file matches ${parts.join(", ")}`);
  console.log("0 passed, 1 failed");
  process.exit(1);
}

const shared = mkdtempSync(path.join(tmpdir(), "affuse-shared-"));
process.on("exit", () => rmSync(shared, { recursive: true, force: true }));

const running = new Set();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    for (const child of running) child.kill("SIGKILL");
    process.exit(130);
  });
}

function runFile(file) {
  return new Promise((resolve) => {
    const started = Date.now();
    const child = spawn(process.execPath, ["--import", "tsx", file], {
      cwd: packageRoot,
      stdio: ["ignore", "pipe", "pipe"],
      // AFFUSE_WAKE: the small operators of tests run on several threads too.
      env: { AFFUSE_WAKE: "1", AFFUSE_TEST_SHARED: shared, ...process.env, NO_COLOR: "1", FORCE_COLOR: "0" },
    });
    running.add(child);
    let output = "";
    const collect = (chunk) => {
      output += chunk;
    };
    child.stdout.setEncoding("utf8").on("data", collect);
    child.stderr.setEncoding("utf8").on("data", collect);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, TIMEOUT);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ file, ...judge(output, code, signal, late), output, seconds: (Date.now() - started) / 1000 });
    });
  });
}

function judge(output, code, signal, late) {
  // uvu closes with these three lines; the last occurrence counts, as a test may print another run's summary.
  const count = (name) => Number([...output.matchAll(new RegExp(`^\\s*${name}:\\s+(\\d+)`, "gm"))].at(-1)?.[1] ?? Number.NaN);
  const total = count("Total");
  const passed = count("Passed");
  const skipped = count("Skipped") || 0;
  if (late) return { passed: 0, failed: 1, skipped: 0, problem: `no end after ${TIMEOUT / 1000} s` };
  if (Number.isNaN(total)) {
    return { passed: 0, failed: 1, skipped: 0, problem: signal ? `killed by ${signal}` : `ended with ${code} and no summary` };
  }
  if (total === 0 && skipped === 0) return { passed: 0, failed: 1, skipped: 0, problem: "reported no tests" };
  const failed = total - passed;
  if (failed === 0 && code !== 0) return { passed, failed: 1, skipped, problem: `all passed, but it ended with ${signal ?? code}` };
  return { passed, failed, skipped, problem: null };
}

const results = [];
function report(result) {
  results.push(result);
  const { file, passed, failed, skipped, problem, seconds, output } = result;
  const counts = `${passed} passed${failed ? `, ${failed} failed` : ""}${skipped ? `, ${skipped} skipped` : ""}`;
  console.log(`${failed ? "FAIL" : "ok  "} ${file}  ${counts}  (${seconds.toFixed(1)} s)${problem ? `  ${problem}` : ""}`);
  if (failed) console.log(output.replace(/^/gm, "    "));
}

const is = (kind, file) => file.endsWith(`.${kind}.test.ts`);
const order = (file) => `${path.dirname(file)}/${is("after", file) ? "~" : ""}${file}`;
const queue = files.filter((file) => !is("serial", file)).sort((a, b) => (order(a) < order(b) ? -1 : 1));
const busy = new Set();

/** The next file that need not wait for one of its folder. */
function next() {
  const at = queue.findIndex((file) => !is("after", file) || ![...busy].some((other) => path.dirname(other) === path.dirname(file)));
  return at < 0 ? undefined : queue.splice(at, 1)[0];
}

async function work() {
  for (let file = next(); file; file = next()) {
    busy.add(file);
    report(await runFile(file));
    busy.delete(file);
  }
}

await Promise.all(Array.from({ length: jobs }, work));
for (const file of files.filter((file) => is("serial", file))) report(await runFile(file));

const sum = (key) => results.reduce((total, result) => total + result[key], 0);
const skipped = sum("skipped");
const broken = results.filter((result) => result.failed).map((result) => result.file);
if (broken.length > 0) console.log(`\nfailing: ${broken.join(" ")}`);
console.log(`${sum("passed")} passed, ${sum("failed")} failed${skipped ? `, ${skipped} skipped` : ""}`);
process.exitCode = sum("failed") === 0 ? 0 : 1;
