// Every CUDA kernel against the float64 reference, within the same error model as the CPU's; on the emulator with the sizes
// that it can do, and again with shuffled blocks and threads, which must give the same bits.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { casesOf } from "../operators/cases.ts";
import { inferred, runKernel, sameBits } from "../operators/run.ts";
import { addon, checkRun, forwards, modelOf, type Run, runsOf } from "../operators/suite.ts";
import { device, deviceCall, ensureDevice, ported } from "./device.ts";

ensureDevice();
const emulated = device === "emulated";

/** Outputs whose bits change with the order in which the emulator runs blocks and threads. */
function unstable(run: Run): string[] {
  const { info, inputs } = run;
  const attributes = run.case.attributes;
  const shapes = inferred(addon, info, inputs, attributes);
  const seeded = (seed: string) => {
    process.env.AFFUSE_EMULATOR_SEED = seed;
    return runKernel(deviceCall, info, inputs, attributes, shapes).raw;
  };
  const [first, ...others] = ["0", "1", "29"].map(seeded);
  process.env.AFFUSE_EMULATOR_SEED = "0";
  return Object.entries(first as object)
    .filter(([name, values]) => others.some((other) => !sameBits(values, other[name] as typeof values)))
    .map(([name]) => `${info.name} (${run.label}): ${name} depends on the order of blocks or threads`);
}

/** What the emulator can do in reasonable time: elements of all inputs together. Fewer under sanitizers, on a GPU too. */
const brief = process.env.AFFUSE_TEST_MOST !== undefined;
const MOST = Number(process.env.AFFUSE_TEST_MOST ?? 6000);
/** Products do hundreds of operations for an element, the others a few. */
const PRODUCTS = new Set(["linear", "fbp", "afg", "conv2d"]);
const most = (name: string) => (brief || PRODUCTS.has(name) ? MOST : 12 * MOST);
const size = (run: Run) => Object.values(run.inputs).reduce((sum, values) => sum + values.data.length, 0);

const names = ported();
for (const info of forwards) {
  (names.has(info.name) ? test : test.skip)(info.name, () => {
    const found: string[] = [];
    let runs = 0;
    for (const c of casesOf(info)) {
      for (const run of runsOf(addon.call, info, c)) {
        if ((emulated || brief) && size(run) > most(info.name)) continue;
        found.push(...checkRun(deviceCall, run, [1], modelOf(run)));
        if (emulated && runs % 3 === 0 && !brief) found.push(...unstable(run));
        runs++;
      }
    }
    assert.ok(runs > 0, "no run at all");
    assert.equal(found.slice(0, 12).join("\n"), "", `${found.length} findings`);
  });
}

test.run();
