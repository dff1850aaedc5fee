import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { parseManifest } from "../../lib/encoders/manifest.ts";
import { hann, melFilters } from "../../lib/encoders/mel.ts";
import { OnnxGraph } from "../../lib/encoders/onnx.ts";
import { EncoderPool } from "../../lib/encoders/pool.ts";
import { isAffuseError } from "../../lib/errors.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-mel-"));
const test = suite("log-mel inputs");
test.after(() => rmSync(dir, { recursive: true, force: true }));

/** A model that gives its input back. */
function identity(name: string, shape: (string | number)[]): string {
  const g = new OnnxGraph(name);
  g.node("Identity", [g.input("mel", shape)], {}, "y");
  g.output("y", shape);
  const file = path.join(dir, `${name}.onnx`);
  writeFileSync(file, g.bytes());
  return file;
}

test("Slaney's filters with unit area are librosa's", () => {
  // librosa.filters.mel(sr=16000, n_fft=400, n_mels=80): the first two rows at 40 Hz
  const filters = melFilters({ mels: 80, low: 0, high: 8000, scale: "slaney", norm: "area" }, 200, 40);
  assert.ok(Math.abs((filters[0] as number) - 0.02486259) < 1e-7, String(filters[0]));
  assert.ok(Math.abs((filters[200] as number) - 0.00199082) < 1e-7, String(filters[200]));
});

const N = 4000;
const x = Float32Array.from(
  { length: N },
  (_, n) => 0.4 * Math.sin(n * n * 0.0001) + 0.1 * Math.sin(n * 1.3),
);

/** The manifest's words in float64: window, DFT, bands, floor, logarithm. */
function reference(centre: boolean): Float64Array[] {
  const [window, fft, hop, mels] = [400, 512, 160, 24];
  const w = hann(window);
  const pad = centre ? window / 2 : 0;
  const frames = Math.floor((N + 2 * pad - window) / hop) + 1;
  const filters = melFilters({ mels, low: 50, high: 7000 }, fft / 2, 16000 / fft);
  return Array.from({ length: frames }, (_, f) => {
    const power = Float64Array.from({ length: fft / 2 }, (_, k) => {
      let [re, im] = [0, 0];
      for (let n = 0; n < window; n++) {
        const v = (x[f * hop - pad + n] ?? 0) * (w[n] as number);
        re += v * Math.cos((2 * Math.PI * (k + 1) * n) / fft);
        im += v * Math.sin((2 * Math.PI * (k + 1) * n) / fft);
      }
      return re * re + im * im;
    });
    return Float64Array.from({ length: mels }, (_, m) => {
      const energy = power.reduce((sum, p, k) => sum + p * (filters[m * (fft / 2) + k] as number), 0);
      return (10 * Math.log10(Math.max(energy, 0.01)) - 3) / 2;
    });
  });
}

test("energies agree with the formula, in both orders of axes", async () => {
  const base = {
    modality: "audio",
    output: { layout: "BDT", dim: 24, rate: 100 },
    input: {
      kind: "log-mel",
      mels: 24,
      low: 50,
      high: 7000,
      floor: 0.01,
      floorBy: "clamp",
      log: "db",
      mean: 3,
      std: 2,
    },
  };
  const manifests = [
    parseManifest({
      ...base,
      name: "bmt",
      model: identity("bmt", [1, 24, "t"]),
      input: { ...base.input, layout: "BMT" },
    }),
    parseManifest({
      ...base,
      name: "bctm",
      model: identity("bctm", [1, 1, "t", 24]),
      input: { ...base.input, layout: "BCTM", centre: true },
      output: { ...base.output, layout: "BLTD" },
    }),
  ];
  const pool = await EncoderPool.open(manifests, { workers: 1, threads: 1 });
  try {
    for (const [i, centre] of [false, true].entries()) {
      const expected = reference(centre);
      const { data, rows } = await pool.encodeAudio(i, x.slice(), 16000);
      assert.equal(rows, expected.length);
      let worst = 0;
      for (let t = 0; t < rows; t++) {
        for (let m = 0; m < 24; m++) {
          worst = Math.max(
            worst,
            Math.abs((data[t * 24 + m] as number) - ((expected[t] as Float64Array)[m] as number)),
          );
        }
      }
      // Filters on a grid of 2⁻¹⁵: the least band, 0.01, lies some 40 dB above what that adds.
      assert.ok(worst < 0.02, `largest difference ${worst}`);
    }
    const short = await pool.encodeAudio(0, new Float32Array(10), 16000);
    assert.equal(short.rows, 1, "a clip shorter than the window is filled up");
  } finally {
    await pool.close();
  }
});

test("windows and bands that cannot be are refused", () => {
  const wrong = (input: object): void => {
    assert.throws(
      () =>
        parseManifest({
          name: "x",
          modality: "audio",
          model: "x",
          input: { kind: "log-mel", ...input },
          output: { dim: 80 },
        }),
      (error) => isAffuseError(error) && error.code === "ERR_AFFUSE_MANIFEST",
    );
  };
  wrong({ fft: 256 });
  wrong({ high: 9000 });
  wrong({ low: 8000 });
  wrong({ window: 401 });
  wrong({ layout: "BT" });
});

test.run();
