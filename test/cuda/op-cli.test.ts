// `affuse op NAME --device emulated` (or cuda) for every operator that `affuse op --list` names: the same files, by way of the
// command line's own code, on the device and on the CPU.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Command } from "commander";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { register } from "../../lib/cli/op.ts";
import { readSafetensors, type WritableTensor, writeSafetensors } from "../../lib/data/safetensors.ts";
import type { OperatorInfo } from "../../lib/native/addon.ts";
import { casesOf, entryOf } from "../operators/cases.ts";
import { differences } from "../operators/model.ts";
import type { Outputs, Values } from "../operators/run.ts";
import { addon, forwards, modelOf, type Run, runsOf } from "../operators/suite.ts";
import { device, ensureDevice } from "./device.ts";

ensureDevice();
const folder = mkdtempSync(path.join(tmpdir(), "affuse-op-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** `affuse op ARGS…`, in this process; what it prints. */
async function op(...args: string[]): Promise<string> {
  const program = new Command("affuse").exitOverride();
  register(program);
  const { write } = process.stdout;
  let printed = "";
  process.stdout.write = ((text: string) => {
    printed += text;
    return true;
  }) as typeof write;
  try {
    await program.parseAsync(["op", ...args], { from: "user" });
  } finally {
    process.stdout.write = write;
  }
  return printed;
}

const listed = JSON.parse(await op("--list", "--json")) as OperatorInfo[];
const size = (run: Run) => Object.values(run.inputs).reduce((sum, { data }) => sum + data.length, 0);

const forwardOf = (info: OperatorInfo) =>
  forwards.find((f) => f.name === info.name || f.backward === info.name) as OperatorInfo;

/** The first run of an operator with something to do that the emulator does at once. */
function smallRun(info: OperatorInfo): Run {
  const forward = forwardOf(info);
  for (const c of casesOf(forward)) {
    const run = runsOf(addon.call, forward, c).find((r) => r.info.name === info.name && size(r) > 1);
    if (run && size(run) < 2500 && c.attributes.precision !== "bf16") return run;
  }
  throw new Error(`no small run of ${info.name}`);
}

for (const info of listed) {
  test(`affuse op ${info.name} --device ${device}`, async () => {
    const run = smallRun(info);
    const { inputs, case: c } = run;
    const file = (name: string) => path.join(folder, `${name}.safetensors`);
    const tensors = Object.entries(inputs).map(([name, { shape, data }]): [string, WritableTensor] => [
      name,
      { shape, data: data instanceof Int32Array ? data : Float32Array.from(data) },
    ]);
    writeSafetensors(file("in"), tensors);
    const attributes = Object.entries(c.attributes).map(([name, value]) => `${name}=${value}`);
    const results = [];
    for (const on of ["cpu", device]) {
      const options = ["--in", file("in"), "--out", file(on.replace(":", "")), "--device", on];
      await op(info.name, ...options, ...(attributes.length > 0 ? ["--attr", ...attributes] : []));
      results.push(readSafetensors(file(on.replace(":", ""))));
    }
    const [expected, got] = results.map(({ tensors: made }) =>
      Object.fromEntries(
        [...made].map(([name, { shape, data }]): [string, Values] => [
          name,
          { shape, data: data instanceof Int32Array ? data : Float64Array.from(data as Float32Array) },
        ]),
      ),
    ) as [Outputs, Outputs];
    assert.equal(Object.keys(got), Object.keys(expected));
    assert.ok(Object.keys(expected).length > 0, "no output");
    // Each may be off the exact result by the bound of the model that parity.test.ts holds it to.
    const { bounds } = modelOf(run);
    const twice = Object.fromEntries(Object.entries(bounds).map(([name, b]) => [name, b.map((x) => 2 * x)]));
    const { transform } = entryOf(forwardOf(info));
    for (const [name, values] of Object.entries(expected)) {
      assert.equal(got[name]?.shape, values?.shape, name);
      if (values && transform && values.data instanceof Float64Array)
        values.data = transform(name, values.data);
    }
    assert.equal(differences(got, expected, twice, transform), []);
  });
}

test("all operators were listed", () => {
  assert.equal(
    listed.map(({ name }) => name),
    addon.operators().map(({ name }) => name),
  );
});

test.run();
