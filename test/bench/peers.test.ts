// PyTorch in a process of its own: one that hangs, ends, chatters or tires.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { runBench } from "../../bench/index.ts";
import { TorchPeer } from "../../bench/peers/torch.ts";
import type { AffuseError } from "../../lib/errors.ts";
import { codeOf } from "../native/helpers.ts";

const test = suite("bench peers");
const folder = mkdtempSync(join(tmpdir(), "affuse-bench-test-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** A program in Python's place: `answer` is what it does with each command. */
function python(name: string, answer: string): string {
  const file = join(folder, name);
  const body = `#!${process.execPath}
if (process.argv[2] === "-c") process.exit(0);
const say = (value) => console.log(JSON.stringify(value));
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { do: command } = JSON.parse(line);
  ${answer}
});`;
  writeFileSync(file, body, { mode: 0o755 });
  return file;
}

const about = `if (command === "about") return say({ torch: "0", blas: null, libraries: [], mkldnn: true });`;

test("a Python that hangs, ends or says something else is an error, and nothing of it stays", async () => {
  for (const [name, answer, reason] of [
    ["hangs", "", /said nothing for 0.5 s/],
    ["ends", "process.exit(3);", /it ended/],
    ["chatters", `console.log("Welcome");`, /it said "Welcome"/],
    ["null", "say(null);", /it said "null"/],
    ["other", "say({ hello: 1 });", /it said .*hello/],
    ["fails", `say({ error: "no" });`, /PyTorch: no/],
  ] as const) {
    const error = await TorchPeer.start(python(name, answer), name === "hangs" ? 0.5 : 60).then(
      () => null,
      (thrown: unknown) => thrown as AffuseError,
    );
    assert.is(error?.code, "ERR_AFFUSE_BENCH_TORCH", name);
    assert.match(error?.message ?? "", reason, name);
  }
  // What it says may end with a dot of its own.
  writeFileSync(join(folder, "refuses"), "#!/bin/sh\necho See the manual. >&2; exit 1\n", { mode: 0o755 });
  const refused = await TorchPeer.start(join(folder, "refuses")).catch((error: AffuseError) => error.message);
  assert.match(refused as string, /the manual\. Install it/);
  // Who has been lost once is not waited for again.
  const peer = await TorchPeer.start(python("later", `${about}\n  process.exit(1);`), 60);
  for (let again = 0; again < 2; again++)
    assert.is(await codeOf(() => peer.contender(1).sample(0)), "ERR_AFFUSE_BENCH_TORCH");
  peer.stop();
});

test("a peer that ends while it is timed is left out of the case, our timings stay", async () => {
  const noted: string[] = [];
  const { benchmarks, skipped } = await runBench({
    filter: "^adamw/N=",
    peers: ["torch"],
    threads: 1,
    quick: true,
    python: python(
      "tires",
      `${about}
  if (command === "load") return say({});
  if (command === "results") { require("node:fs").writeFileSync(JSON.parse(line).file, ""); return say({ names: [] }); }
  process.exit(1);`,
    ),
    command: "affuse bench",
    note: (text) => noted.push(text),
  });
  assert.equal(
    benchmarks.map(({ peer }) => peer),
    ["affuse"],
  );
  assert.equal(
    skipped.map(({ peer, code }) => [peer, code]),
    [["torch", "ERR_AFFUSE_BENCH_TORCH"]],
  );
  assert.ok(noted.some((text) => /torch: .*it ended/.test(text)));
});

test.run();
