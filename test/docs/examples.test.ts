/** What the README shows is what the examples hold, and the examples run on the built package. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";

const example = path.join(packageRoot, "examples", "typescript", "gather.ts");

test("the README's first program is the example", () => {
  const readme = readFileSync(path.join(packageRoot, "README.md"), "utf8");
  assert.is(/```ts\n([\s\S]*?)```/.exec(readme)?.[1], readFileSync(example, "utf8"));
});

test("the example runs and padding has weight 0", () => {
  const out = execFileSync(process.execPath, ["--import", "tsx", example], { cwd: packageRoot, encoding: "utf8" });
  assert.match(out, /\[ 2, 1, 3 \]/);
  const weights = /Float32Array\(10\) \[([\s\S]*)\]/.exec(out)?.[1]?.split(",").map(Number) ?? [];
  assert.equal(weights.slice(8), [0, 0]);
  assert.ok(Math.abs(weights.slice(0, 5).reduce((a, b) => a + b, 0) - 1) < 1e-6);
});

test("require gives the same package as import", () => {
  const script = 'const a = require("affuse"); console.log(typeof a.kernels.afg, Object.keys(a).length)';
  const required = execFileSync(process.execPath, ["-e", script], { cwd: packageRoot, encoding: "utf8" });
  const imported = execFileSync(
    process.execPath,
    ["--input-type=module", "-e", 'import * as a from "affuse"; console.log(typeof a.kernels.afg, Object.keys(a).length)'],
    { cwd: packageRoot, encoding: "utf8" },
  );
  assert.is(required, imported);
  assert.match(required, /^function \d+/);
});

test.run();
