// `affuse bench --perf`: which part a function belongs to, sums of samples, a perf that fails, the real one where there is one.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { runBench } from "../../bench/index.ts";
import { Perf, partsOf } from "../../bench/perf.ts";
import { describeCase } from "../../bench/table.ts";
import { partOf, pathOf, Tally } from "../../bench/where.ts";
import type { AffuseError } from "../../lib/errors.ts";
import { affuse } from "../helpers/cli.ts";

const test = suite("bench --perf");
const folder = mkdtempSync(join(tmpdir(), "affuse-perf-test-"));
const { PATH: path, TMPDIR: temporary } = process.env;
/** Where whatever is under test has its temporary files: nothing may stay. */
const own = join(folder, "tmp");
mkdirSync(own);
test.before.each(() => {
  process.env.TMPDIR = own;
});
test.after.each(() => {
  process.env.PATH = path;
  assert.equal(readdirSync(own), []);
});
test.after(() => {
  if (temporary === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = temporary;
  rmSync(folder, { recursive: true, force: true });
});

// As perf 6.1 prints them: some with arguments, some without.
const SYMBOLS = [
  ["affuse::avx2::gemm::(anonymous namespace)::multiply<6, 2>", "tiles"],
  ["void affuse::avx512::gemm::(anonymous namespace)::beside<14, 2>(long, float const*, float const*)", "tiles"],
  ["void affuse::gemm::(anonymous namespace)::multiply_dot<3, 2>(long, float const*)", "tiles"],
  ["affuse::neon::gemm::lines_multiply", "tiles"],
  ["affuse::avx2::gemm::(anonymous namespace)::interleave", "packing"],
  ["affuse::avx2::gemm::pack_columns(float const*, long)::{lambda(long, int)#2}::operator()(long, int) const", "packing"],
  ["affuse::parallel<affuse::avx2::gemm::pack_columns(float const*)::{lambda(long, int)#1}>(long)::{lambda()#1}::_FUN", "packing"],
  ["affuse::avx2::gemm::Bf16Rows<affuse::avx2::gemm::PlainRows>::pack", "packing"],
  ["affuse::avx2::(anonymous namespace)::pack_forward(affuse::Conv const&)", "packing"],
  ["affuse::avx2::gemm::run<affuse::avx2::gemm::PlainRows, affuse::avx2::gemm::Store>(long)::{lambda(long, int)#1}::operator()", "kernels"],
  ["void affuse::parallel<affuse::avx2::gemm::run<affuse::avx2::gemm::PlainRows>(long)::{lambda(long, int)#1}>(long)", "kernels"],
  ["affuse::avx2::(anonymous namespace)::Forward::tile(affuse::avx2::gemm::Tile const&, float __vector(8)*) const", "kernels"],
  ["affuse::avx2::transpose_forward", "kernels"],
  ["affuse::Program::execute", null],
  ["affuse::roof::avx2::roof_loop", null],
  ["v8::internal::Scavenger::ScavengeObject<v8::internal::FullHeapObjectSlot>", null],
  ["[unknown]", null],
] as const;

test("functions by part", () => {
  for (const [symbol, part] of SYMBOLS) assert.is(partOf(symbol), part, symbol);
});

/** Functions of the addon; null where there is no nm. */
function functions(): string[] | null {
  const file = join(packageRoot, "build", "Release", "affuse.node");
  try {
    const text = execFileSync("nm", ["-C", file], { encoding: "utf8", maxBuffer: 2 ** 27 });
    return [...text.matchAll(/^[0-9a-f]* +[tw] (.*)$/gim)].map(([, symbol]) => symbol as string);
  } catch (error) {
    console.log(`skipped: no symbols (${(error as Error).message.split("\n")[0]})`);
    return null;
  }
}
const symbols = functions();

(symbols ? test : test.skip)("no function of the addon's matrix core is among the other kernels by oversight", () => {
  const parts = {
    tiles: "tile_multiply tile_multiply_lying tile_multiply_aside tile_multiply_bf16 panels_multiply_into lines_multiply multiply multiply_lying multiply_pairs multiply_dot multiply_row multiply_few few beside directly",
    packing: "interleave pack_rows pack_rows_indirect pack_rows_transposed pack_columns pack_columns_bf16 pack_panel pack_panel_indirect pack_source_rows store_pairs round_in_place",
    kernels: "run run_lying run_unpacked stream stream_ahead stream_fresh column_sums",
  };
  const wanted = new Map(Object.entries(parts).flatMap(([part, names]) => names.split(" ").map((name) => [name, part])));
  const found = new Set<string>();
  for (const symbol of symbols ?? []) {
    const name = /^affuse::(?:\w+::)?gemm::(\w+)$/.exec(pathOf(symbol))?.[1];
    if (name === undefined) continue;
    const part = partOf(symbol);
    if (part === "kernels" || wanted.has(name)) assert.is(part, wanted.get(name), symbol);
    found.add(name);
  }
  // Those that no compiler puts into another function.
  for (const name of ["multiply", "multiply_lying", "multiply_pairs", "few", "beside", "directly", "pack_rows", "pack_columns"])
    assert.ok(found.has(name), `no ${name} in the addon`);
});

const line = (tid: number, symbol: string, file = "/x/build/Release/affuse.node") =>
  `${tid}     250000      7f7706f3265f ${symbol} (${file})`;

test("samples are summed up over the threads that computed, the C library's with them", () => {
  const tally = new Tally();
  for (const tid of [11, 12]) {
    for (let i = 0; i < 10; i++) assert.ok(tally.add(line(tid, SYMBOLS[0][0])));
    tally.add(line(tid, SYMBOLS[4][0]));
    tally.add(line(tid, "__memmove_avx_unaligned_erms", "/usr/lib/x86_64-linux-gnu/libc.so.6"));
    tally.add(line(tid, "tanhf", "/lib/libm-2.31.so"));
    tally.add(line(tid, "affuse::Program::execute"));
  }
  for (let i = 0; i < 12; i++) tally.add(line(10, "v8::internal::Heap::Scavenge", "/usr/bin/node"));
  tally.add(line(10, "malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6"));
  assert.not.ok(tally.add("# cmdline : perf"));
  const { seconds, samples } = tally.sum();
  assert.is(samples, 26);
  assert.is(tally.samples, 41);
  assert.equal([seconds.tiles, seconds.packing, seconds.kernels].map((s) => Math.round(1e6 * s)), [5000, 500, 1000]);
  // Busy for 0.82 of the wall time: 0.52 of it in kernels.
  const where = partsOf(tally, 0.82);
  for (const [part, value] of Object.entries({ tiles: 0.4, packing: 0.04, kernels: 0.08, between: 0.48 }))
    assert.ok(Math.abs(where[part as keyof typeof where] - value) < 1e-9, part);
  const full = partsOf(tally, 1.7);
  assert.is(full.between, 0);
  assert.ok(Math.abs(full.tiles + full.packing + full.kernels - 1) < 1e-9);
});

test("a stripped addon is an error", () => {
  const tally = new Tally();
  for (let i = 0; i < 9; i++) tally.add(line(11, "[unknown]"));
  tally.add(line(11, SYMBOLS[0][0]));
  assert.throws(() => partsOf(tally, 1), (error: AffuseError) => /ERR_AFFUSE_BENCH_PERF/.test(error.code) && /stripped/.test(error.message));
});

/** A program in perf's place, by what it does as `perf record` and as `perf script`. */
function fake(name: string, record: string, script = ""): void {
  const place = join(folder, name);
  mkdirSync(place);
  const body = `#!${process.execPath}
const { writeSync } = require("node:fs");
const answer = (how) => new (require("node:net").Socket)({ fd: 3 }).on("data", (text) => how(String(text).trim()));
if (process.argv[2] === "record") { ${record} } else { ${script} }`;
  writeFileSync(join(place, "perf"), body, { mode: 0o755 });
  process.env.PATH = place;
}
const WELL = `answer(() => writeSync(4, "ack\\n\\0"));`;

test("a perf that is missing, refuses, ends, hangs or says something else is a coded error", async () => {
  for (const [name, record, script, reason] of [
    ["missing", null, "", /cannot be run .*ENOENT/],
    ["refuses", `console.error("Error:\\nAccess is limited."); process.exit(255);`, "", /exit code 255 \(Access is limited\.\)/],
    ["ends", `answer((order) => order === "enable" ? writeSync(4, "ack\\n") : process.kill(process.pid, "SIGKILL"));`, "", /SIGKILL/],
    ["hangs", "setInterval(() => {}, 1000);", "", /more than 0.5 s/],
    ["stays", `${WELL} process.on("SIGINT", () => {});`, "", /more than 0.5 s/],
    ["breaks", WELL, `console.error("no data"); process.exit(1);`, /exit code 1 \(no data\)/],
    ["chatters", WELL, `console.log("\\nhello");`, /it said "hello"/],
    ["silent", WELL, "", /it gave none/],
  ] as const) {
    if (record === null) process.env.PATH = own;
    else fake(name, record, script);
    const error = await Perf.start(["hangs", "stays"].includes(name) ? 0.5 : 60).then(
      () => null,
      (thrown: unknown) => thrown as AffuseError,
    );
    assert.is(error?.code, "ERR_AFFUSE_BENCH_PERF", name);
    assert.match(error?.message ?? "", reason, name);
    assert.equal(readdirSync(own), [], name);
  }
});

test("so is a temporary folder that is not there, and what it says is fit for a terminal", async () => {
  const codeAndText = () =>
    Perf.start(60).then(
      () => "",
      (error: AffuseError) => `${error.code} ${error.message}`,
    );
  fake("escapes", WELL, `console.log("\\x1b[2Jhello");`);
  assert.match(await codeAndText(), /ERR_AFFUSE_BENCH_PERF .*it said "\?\[2Jhello"/);
  const { TMPDIR } = process.env;
  process.env.TMPDIR = join(folder, "nowhere");
  try {
    assert.match(await codeAndText(), /ERR_AFFUSE_BENCH_PERF .*ENOENT/);
  } finally {
    process.env.TMPDIR = TMPDIR;
  }
});

const options = { filter: "^(linear/M=257|overhead/addon)", peers: [], threads: 1, quick: true, perf: true, command: "affuse bench" };

test("samples outside of kernels leave the case out; timings stay", async () => {
  fake("elsewhere", WELL, `console.log(${JSON.stringify(line(1, "main", "/usr/bin/node"))});`);
  const { benchmarks, skipped } = await runBench({ ...options, note: () => {} });
  assert.equal(benchmarks.map(({ where, where_samples }) => [where, where_samples]), [[null, null], [null, null]]);
  assert.equal(skipped.map(({ peer, code }) => [peer, code]), [["perf", "ERR_AFFUSE_BENCH_PERF"]]);
  assert.match(skipped[0]?.reason ?? "", /none of 1 is in a kernel/);
});

test("without perf the command line says so once, and exits as it would", async () => {
  const args = ["bench", "--filter", options.filter, "--peers", "none", "--threads", "1", "--quick", "--perf"];
  const { code, stdout, stderr } = await affuse(args, { env: { PATH: own, TMPDIR: own } });
  assert.is(code, 0, stderr);
  assert.is(stderr.split("ERR_AFFUSE_BENCH_PERF").length, 2, stderr);
  assert.match(stdout, /linear\/M=257/);
  assert.not.match(stdout, /where:/);
});

const missing = await Perf.start().then(
  () => null,
  (error: AffuseError) => error.message,
);
if (missing !== null) console.log(`skipped: ${missing}`);

(missing === null ? test : test.skip)("the real perf", async () => {
  const { benchmarks, skipped } = await runBench({ ...options, note: () => {} });
  assert.equal(skipped, []);
  const [linear, overhead] = benchmarks;
  assert.is(overhead?.where, null);
  const where = linear?.where;
  assert.ok(where && linear);
  assert.ok(Math.abs(where.tiles + where.packing + where.kernels + where.between - 1) < 1e-9);
  // However busy the machine is, a matrix product multiplies more than it copies.
  assert.ok(where.tiles > where.packing + where.kernels && (linear.where_samples ?? 0) > 50, JSON.stringify(where));
  assert.match(describeCase([linear]), /where: register tiles \d+ %, packing \d+ %, other kernels \d+ %, between runs \d+ %/);
});

test.run();
