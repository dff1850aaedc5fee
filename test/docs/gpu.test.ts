/** Pages that speak of GPUs say that nothing was measured on one, until a results file of the GPU suite is there. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";

const PAGES = ["README.md", "docs/architecture.md", "docs/benchmarks.md"];
const PHRASE = "not yet measured on a GPU";

const results = path.join(packageRoot, "bench/results");
const measured =
  statSync(results, { throwIfNoEntry: false })?.isDirectory() &&
  readdirSync(results)
    .filter((name) => name.endsWith(".json"))
    .some((name) => JSON.parse(readFileSync(path.join(results, name), "utf8")).bench?.device === "cuda");

for (const page of PAGES)
  test(`${page} ${measured ? "gives figures" : "says that there are none"}`, () => {
    const text = readFileSync(path.join(packageRoot, page), "utf8").replace(/\s+/g, " ");
    assert.is(text.includes(PHRASE), !measured, `"${PHRASE}" in ${page}`);
  });

test.run();
