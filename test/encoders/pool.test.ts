import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { parseManifest } from "../../lib/encoders/manifest.ts";
import { OnnxGraph } from "../../lib/encoders/onnx.ts";
import { EncoderPool } from "../../lib/encoders/pool.ts";
import { isAffuseError } from "../../lib/errors.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-pool-"));
const test = suite("encoder pool");
test.after(() => rmSync(dir, { recursive: true, force: true }));

const coded = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(isAffuseError(error), String(error));
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};

function save(name: string, graph: OnnxGraph): string {
  const file = path.join(dir, `${name}.onnx`);
  writeFileSync(file, graph.bytes());
  return file;
}

/** Audio [1,N] → two "hidden layers" [1,T,2] of 100 samples a row: (x, 2x) and (10x, 20x) of the row's first sample. */
function layers(): string {
  const g = new OnnxGraph("layers");
  const x = g.input("audio", [1, "n"]);
  const wave = g.node("Unsqueeze", [x, g.integers([1])]);
  for (const [name, factor] of [
    ["h1", 1],
    ["h2", 10],
  ] as const) {
    const taps = [factor, 2 * factor].flatMap((v) => [v, ...Array<number>(99).fill(0)]);
    const rows = g.node("Conv", [wave, g.constant([2, 1, 100], taps)], {
      kernel_shape: [100],
      strides: [100],
    });
    g.node("Transpose", [rows], { perm: [0, 2, 1] }, name);
    g.output(name, [1, "t", 2]);
  }
  const both = g.node(
    "Concat",
    [g.node("Unsqueeze", ["h1", g.integers([0])]), g.node("Unsqueeze", ["h2", g.integers([0])])],
    { axis: 0 },
    "all",
  );
  g.output(both, [2, 1, "t", 2]);
  return save("layers", g);
}

/** A ramp: sample i of row t (100 samples each) starts with t. */
const ramp = (rows: number): Float32Array =>
  Float32Array.from({ length: rows * 100 }, (_, n) => (n % 100 === 0 ? n / 100 : 0));

test("hidden layers: single, mean, concatenation, an L axis, pooling", async () => {
  const model = layers();
  const base = { modality: "audio", model, input: { kind: "waveform", sampleRate: 1000, minSamples: 100 } };
  const manifests = [
    { ...base, name: "one", output: { tensors: ["h2"], dim: 2, rate: 10 } },
    { ...base, name: "mean", output: { tensors: ["h1", "h2"], combine: "mean", dim: 2, rate: 10 } },
    { ...base, name: "concat", output: { tensors: ["h1", "h2"], combine: "concat", dim: 4, rate: 10 } },
    { ...base, name: "axis", output: { tensors: ["all"], layout: "LBTD", layers: [-1], dim: 2, rate: 10 } },
    { ...base, name: "utt", output: { tensors: ["h1"], dim: 2, rate: 10 }, pooling: "mean" },
    {
      ...base,
      name: "chunks",
      output: { tensors: ["h1"], dim: 2, rate: 10 },
      chunk: { seconds: 1, context: 0.5 },
    },
  ].map((m) => parseManifest(m));
  const pool = await EncoderPool.open(manifests, { workers: 2, threads: 2 });
  try {
    const rows = async (i: number, n: number): Promise<number[]> => [
      ...(await pool.encodeAudio(i, ramp(n), 1000)).data,
    ];
    assert.deepEqual(await rows(0, 3), [0, 0, 10, 20, 20, 40]);
    assert.deepEqual(await rows(1, 2), [0, 0, 5.5, 11]);
    assert.deepEqual(await rows(2, 2), [0, 0, 0, 0, 1, 2, 10, 20]);
    assert.deepEqual(await rows(3, 2), [0, 0, 10, 20]);
    assert.deepEqual(await rows(4, 3), [1, 2]);
    for (const n of [1, 9, 10, 14, 15, 16, 25, 26, 40, 41]) {
      assert.deepEqual(
        await rows(5, n),
        Array.from({ length: n }, (_, t) => [t, 2 * t]).flat(),
        `${n} rows in pieces`,
      );
    }
    // A view into a larger buffer must not hand that buffer over.
    const all = ramp(4);
    await pool.encodeAudio(0, all.subarray(0, 100), 1000);
    assert.equal(all.length, 400);
  } finally {
    await pool.close();
  }
});

test("picture layouts: order of axes, colour, mean and std, spatial average", async () => {
  // [1,3,T,2,2] → per frame and channel the mean over the picture
  const g = new OnnxGraph("video");
  g.input("video", [1, 3, "t", 2, 2]);
  g.node("Identity", ["video"], {}, "y");
  g.output("y", [1, 3, "t", 2, 2]);
  const model = save("video", g);
  const base = { modality: "visual", model, output: { layout: "BDTHW", dim: 3 } };
  const input = { kind: "frames", layout: "BCTHW", size: [2, 2], scale: 1 };
  const pool = await EncoderPool.open(
    [
      parseManifest({ ...base, name: "rgb", input: { ...input, mean: [1, 2, 3], std: [1, 2, 4] } }),
      parseManifest({ ...base, name: "bgr", input: { ...input, colour: "bgr" } }),
    ],
    { workers: 1 },
  );
  async function* blocks() {
    yield {
      data: Uint8Array.from([9, 18, 27, 9, 18, 27, 9, 18, 27, 9, 18, 27]),
      frames: 1,
      height: 2,
      width: 2,
      channels: 3 as const,
    };
    yield { data: Uint8Array.from([0, 40, 80, 120]), frames: 1, height: 2, width: 2, channels: 1 as const };
  }
  try {
    assert.deepEqual([...(await pool.encodeFrames(0, blocks())).data], [8, 8, 6, 59, 29, 14.25]);
    const bgr = await pool.encodeFrames(1, blocks());
    assert.deepEqual([...bgr.data], [27, 18, 9, 60, 60, 60]);
    assert.equal(bgr.blankFrames, 1, "one flat frame");
  } finally {
    await pool.close();
  }
});

test("wrong manifests and models give coded errors and leave no thread behind", async () => {
  const model = layers();
  const base = {
    name: "x",
    modality: "audio",
    model,
    input: { kind: "waveform", sampleRate: 1000, minSamples: 100 },
  };
  const cases: [object, string, RegExp][] = [
    [
      { ...base, output: { tensors: ["h9"], dim: 2 } },
      "ERR_AFFUSE_MANIFEST",
      /no output "h9".*It has: h1, h2, all/,
    ],
    [
      { ...base, input: { ...base.input, tensor: "pixels" }, output: { dim: 2 } },
      "ERR_AFFUSE_MANIFEST",
      /no input "pixels"/,
    ],
    [
      { ...base, output: { tensors: ["h1"], dim: 3 } },
      "ERR_AFFUSE_ENCODER_OUTPUT",
      /expected rows of 3 values, got 2/,
    ],
    [
      { ...base, output: { tensors: ["h1"], layout: "TD", dim: 2 } },
      "ERR_AFFUSE_ENCODER_OUTPUT",
      /axes TD, got shape \[1,3,2\]/,
    ],
    [
      { ...base, output: { tensors: ["all"], layout: "LBTD", layers: [2], dim: 2 } },
      "ERR_AFFUSE_ENCODER_OUTPUT",
      /layer 2 is not among 2/,
    ],
    [
      { ...base, input: { ...base.input, layout: "BCN" }, output: { tensors: ["h1"], dim: 2 } },
      "ERR_AFFUSE_ENCODER",
      /failed on input \[1,1,300\]/,
    ],
  ];
  for (const [manifest, code, text] of cases) {
    const pool = await EncoderPool.open([parseManifest(manifest)], { workers: 1 });
    await assert.rejects(pool.encodeAudio(0, ramp(3), 1000), coded(code, text));
    await pool.close();
    await assert.rejects(
      async () => pool.encodeAudio(0, ramp(3), 1000),
      coded("ERR_AFFUSE_DISPOSED", /closed/),
    );
  }
  const bad = path.join(dir, "bad.onnx");
  writeFileSync(bad, "this is no model");
  await assert.rejects(
    EncoderPool.open([parseManifest({ ...base, model: bad, output: { dim: 2 } })], { workers: 2 }),
    coded("ERR_AFFUSE_ENCODER_MODEL", /cannot load/),
  );
});

test("a source that fails ends the clip with its error", async () => {
  const pool = await EncoderPool.open(["gabor-face"], { workers: 1 });
  async function* blocks() {
    yield { data: new Uint8Array(2304), frames: 1, height: 48, width: 48, channels: 1 as const };
    throw new Error("the tape broke");
  }
  try {
    await assert.rejects(pool.encodeFrames(0, blocks()), /the tape broke/);
  } finally {
    await pool.close();
  }
});

test("without a GPU, cuda runs on the CPU and says why", async () => {
  const pool = await EncoderPool.open(["gabor-face"], { workers: 1, provider: "cuda" });
  try {
    const [report] = pool.providers;
    // On a machine with CUDA libraries the first answer is right, everywhere else the second.
    if (report?.provider === "cuda") assert.equal(report.fallback, undefined);
    else assert.ok((report?.fallback ?? "").length > 10, JSON.stringify(report));
  } finally {
    await pool.close();
  }
});

test.run();
