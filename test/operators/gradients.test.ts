// Every reference backward against derivatives of its reference forward, in float64, for every float input
// and every choice of every attribute.
//
// The derivative along one element comes from central differences at three step sizes, extrapolated (Ridders
// 1982); the spread of the extrapolation says how far it can be trusted. Elements where it cannot (a kink
// within the step, a root near zero) are skipped, but no more than 3 % of an operator's elements may be.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { casesOf } from "./cases.ts";
import { checkGradients } from "./derivative.ts";
import { addon, forwards } from "./suite.ts";

const ELEMENTS = 24; // per input and case

for (const info of forwards) {
  if (!info.backward) continue;
  test(info.name, () => {
    const found: string[] = [];
    const choices = new Map(
      info.attributes
        .filter((a) => a.kind === "choice" || a.kind === "boolean")
        .map((a) => [a.name, new Set(a.kind === "boolean" ? ["true", "false"] : a.choices)]),
    );
    const inputs = new Set(info.inputs.filter((rule) => rule.dtype === "f32").map((rule) => rule.name));
    let checked = 0;
    let doubtful = 0;
    // tf32 concerns devices (cuda/tf32.test.ts), of which the references know as little as of bf16.
    const cases = casesOf(info);
    const tf32: typeof cases = cases
      .filter(({ attributes }) => attributes.precision === "bf16")
      .map((c) => ({ ...c, label: `${c.label} as tf32`, attributes: { ...c.attributes, precision: "tf32" } }));
    for (const c of [...cases, ...tf32]) {
      if (c.large) continue;
      const result = checkGradients(addon.call, info, c, new Random(3, `elements/${c.label}`), ELEMENTS);
      found.push(...result.found);
      checked += result.checked;
      doubtful += result.doubtful;
      if (result.checked === 0) continue;
      for (const [name, left] of choices)
        left.delete(String(c.attributes[name] ?? info.attributes.find((a) => a.name === name)?.default));
      for (const name of Object.keys(c.inputs)) inputs.delete(name);
    }
    assert.equal(found.slice(0, 12).join("\n"), "", `${found.length} findings`);
    assert.ok(checked >= 10, `only ${checked} elements were checked`);
    assert.ok(
      doubtful <= 0.03 * (checked + doubtful),
      `${doubtful} of ${checked + doubtful} elements were in doubt`,
    );
    for (const [name, left] of choices) assert.equal([...left], [], `choices of ${name} never checked`);
    assert.equal([...inputs], [], "inputs never checked");
  });
}

test.run();
