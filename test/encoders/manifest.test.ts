import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { BUILTIN } from "../../lib/encoders/builtin.ts";
import { parseManifest, readManifest } from "../../lib/encoders/manifest.ts";
import { OnnxGraph } from "../../lib/encoders/onnx.ts";
import { resolveEncoder } from "../../lib/encoders/pool.ts";
import { PRESETS } from "../../lib/encoders/presets.ts";
import { isAffuseError } from "../../lib/errors.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-manifest-"));
const test = suite("encoder manifests");
test.after(() => rmSync(dir, { recursive: true, force: true }));

const coded = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(isAffuseError(error), String(error));
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};

const minimal = {
  name: "mine",
  modality: "audio",
  model: "mine.onnx",
  input: { kind: "waveform" },
  output: { dim: 4 },
};

test("defaults are filled in", () => {
  const manifest = parseManifest(minimal);
  assert.equal(manifest.pooling, "none");
  assert.equal(manifest.output.layout, "BTD");
  assert.deepEqual(manifest.input, {
    kind: "waveform",
    layout: "BN",
    sampleRate: 16000,
    normalize: "none",
    scale: 1,
    minSamples: 400,
    multipleOf: 1,
  });
});

test("every preset is a valid manifest once a model is named", () => {
  for (const preset of Object.keys(PRESETS)) {
    const manifest = parseManifest({ preset, model: "x.onnx" });
    assert.equal(manifest.name, preset);
  }
  const own = parseManifest({
    preset: "hubert-large",
    model: "x.onnx",
    name: "h24",
    output: { tensors: ["a", "b"], combine: "concat", dim: 2048 },
  });
  assert.equal(own.output.rate, 50);
  assert.equal(own.output.dim, 2048);
  assert.equal(own.input.kind === "waveform" && own.input.normalize, "standard");
});

const wrong: [string, unknown, RegExp][] = [
  ["no object", [], /expected an object/],
  ["unknown key", { ...minimal, poling: "mean" }, /poling/],
  ["unknown key inside", { ...minimal, input: { kind: "waveform", sampelRate: 8000 } }, /sampelRate/],
  ["no dim", { ...minimal, output: {} }, /output\.dim/],
  ["modality against input", { ...minimal, modality: "visual" }, /does not go with/],
  ["name with a slash", { ...minimal, name: "a/b" }, /name/],
  ["name upwards", { ...minimal, name: ".." }, /name/],
  ["layout without time", { ...minimal, input: { kind: "waveform", layout: "BC" } }, /must contain N/],
  ["letter twice", { ...minimal, output: { dim: 4, layout: "TTD" } }, /each letter/],
  ["unknown preset", { preset: "gpt", model: "x" }, /Presets: hubert-base/],
  ["preset that is no name", { preset: "constructor", model: "x" }, /not known|expected/],
  [
    "channels",
    {
      ...minimal,
      modality: "visual",
      input: { kind: "frames", size: [8, 8], colour: "grey", mean: [1, 2, 3] },
    },
    /expected 1 or 1 values, got 3/,
  ],
  ["chunk without rate", { ...minimal, chunk: { seconds: 10 } }, /output\.rate/],
  [
    "chunk of broken rows",
    { ...minimal, output: { dim: 4, rate: 50 }, chunk: { seconds: 1.01 } },
    /whole numbers of rows/,
  ],
  ["sha256", { ...minimal, sha256: "abc" }, /sha256/],
];
for (const [what, value, text] of wrong) {
  test(`refused: ${what}`, () => {
    assert.throws(() => parseManifest(value), coded("ERR_AFFUSE_MANIFEST", text));
  });
}

test("files: YAML, JSON, relative model, broken text", async () => {
  const yaml = path.join(dir, "a.yaml");
  writeFileSync(yaml, "preset: wavlm-base\nmodel: sub/model.onnx\n");
  assert.equal(readManifest(yaml).model, path.join(dir, "sub/model.onnx"));
  const broken = path.join(dir, "b.yaml");
  writeFileSync(broken, "preset: [unclosed\n");
  assert.throws(() => readManifest(broken), coded("ERR_AFFUSE_MANIFEST", /not valid YAML/));
  const bomb = path.join(dir, "c.yaml");
  writeFileSync(
    bomb,
    `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n`,
  );
  assert.throws(() => readManifest(bomb), coded("ERR_AFFUSE_MANIFEST", /alias/i));
  const json = path.join(dir, "d.json");
  writeFileSync(json, "{");
  assert.throws(() => readManifest(json), coded("ERR_AFFUSE_MANIFEST", /not valid JSON/));
  assert.throws(
    () => readManifest(path.join(dir, "none.yaml")),
    coded("ERR_AFFUSE_NOT_FOUND", /does not exist/),
  );
});

test("resolving: unknown names, presets, missing and changed model files", async () => {
  await assert.rejects(
    resolveEncoder("nothing"),
    coded("ERR_AFFUSE_ENCODER_UNKNOWN", /Built in: logmel, gabor-face/),
  );
  await assert.rejects(
    resolveEncoder("hubert-base"),
    coded("ERR_AFFUSE_ENCODER_UNKNOWN", /write a manifest with preset/),
  );
  await assert.rejects(
    resolveEncoder(parseManifest({ ...minimal, model: path.join(dir, "no.onnx") })),
    coded("ERR_AFFUSE_NOT_FOUND", /No weights come/),
  );
  await assert.rejects(
    resolveEncoder(parseManifest({ ...minimal, model: "builtin:no" })),
    coded("ERR_AFFUSE_ENCODER_UNKNOWN", /built-in model/),
  );
  const file = path.join(dir, "m.onnx");
  writeFileSync(file, new OnnxGraph("empty").bytes());
  const found = await resolveEncoder(parseManifest({ ...minimal, model: file }));
  assert.match(found.sha256, /^[0-9a-f]{64}$/);
  await assert.rejects(
    resolveEncoder(parseManifest({ ...minimal, model: file, sha256: "0".repeat(64) })),
    coded("ERR_AFFUSE_ENCODER_SHA256", /another model/),
  );
  assert.equal((await resolveEncoder("logmel")).manifest, BUILTIN.logmel?.manifest);
});

test.run();
