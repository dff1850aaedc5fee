// Each instruction set that this CPU has, in a process of its own (AFFUSE_CPU): every operator within the
// bounds of the reference, and the same bits with 1, 2 and 3 threads.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { serialize } from "node:v8";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { addon, allRuns, modelOf, operators } from "./suite.ts";

const script = path.join(packageRoot, "test/operators/isa-child.ts");
const levels = addon.cpu().levels;
// The reference and its bounds are the same for every level: computed once.
const folder = mkdtempSync(path.join(tmpdir(), "affuse-isa-"));
const models = path.join(folder, "models.bin");
writeFileSync(models, serialize(Array.from(allRuns(), modelOf)));

interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(level: string): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import", "tsx", script, models], {
      env: { ...process.env, AFFUSE_CPU: level },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

// Two at a time.
const LEVELS = ["baseline", "avx2", "avx512", "neon"];
const wanted = LEVELS.filter((level) => levels.includes(level));
const finished = new Map<string, Promise<Finished>>();
wanted.forEach((level, i) => {
  const earlier = i >= 2 ? finished.get(wanted[i - 2] as string) : undefined;
  finished.set(level, earlier ? earlier.then(() => start(level)) : start(level));
});

test("baseline is always there", () => assert.ok(levels.includes("baseline"), levels.join(", ")));

for (const level of LEVELS) {
  const run = levels.includes(level) ? test : test.skip;
  run(level, async () => {
    const child = (await finished.get(level)) as Finished;
    assert.is(child.code, 0, child.stderr);
    const report = JSON.parse(child.stdout) as {
      isa: string;
      operators: number;
      runs: number;
      found: string[];
    };
    assert.is(report.isa, level, "the process ran another level than asked for");
    assert.is(report.operators, operators.length);
    assert.equal(
      report.found.slice(0, 12).join("\n"),
      "",
      `${report.found.length} findings in ${report.runs} runs`,
    );
  });
}

test("an unknown level is refused", () => {
  const child = spawnSync(process.execPath, ["--import", "tsx", script, models], {
    env: { ...process.env, AFFUSE_CPU: "avx1024" },
    encoding: "utf8",
  });
  assert.is.not(child.status, 0);
  assert.match(child.stderr, /ERR_AFFUSE_/);
  assert.match(child.stderr, /avx1024/);
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

test.run();
