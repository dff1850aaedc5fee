// Every operator's float32 kernel against its float64 reference, forward and backward, within the error model
// of model.ts.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { casesOf, table } from "./cases.ts";
import { addon, checkRun, forwards, operators, runsOf } from "./suite.ts";

test("every operator has cases, and every backward belongs to a forward", () => {
  for (const info of forwards)
    assert.ok(table[info.name], `${info.name} has no entry in test/operators/cases.ts`);
  const owned = new Set(forwards.flatMap((info) => (info.backward ? [info.backward] : [])));
  for (const info of operators)
    assert.ok(!info.name.endsWith(".backward") || owned.has(info.name), `${info.name} is nobody's backward`);
});

for (const info of forwards) {
  test(info.name, () => {
    const found: string[] = [];
    let runs = 0;
    for (const c of casesOf(info)) {
      for (const run of runsOf(addon.call, info, c)) {
        found.push(...checkRun(addon.call, run));
        runs++;
      }
    }
    assert.ok(runs > 0, "no run at all");
    assert.equal(found.slice(0, 12).join("\n"), "", `${found.length} findings`);
  });
}

test.run();
