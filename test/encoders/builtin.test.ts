import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "uvu";
import { builtinModel } from "../../lib/encoders/builtin.ts";
import { buildGabor, GABOR, gaborFilters } from "../../lib/encoders/gabor.ts";
import { buildLogMel, LOGMEL, pitchLag } from "../../lib/encoders/logmel.ts";
import { hamming, melFilters } from "../../lib/encoders/mel.ts";
import { parseManifest } from "../../lib/encoders/manifest.ts";
import { BUILTIN } from "../../lib/encoders/builtin.ts";
import { EncoderPool } from "../../lib/encoders/pool.ts";

const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

// Any change of a generated file changes what features mean: raise the manifest's version along with these.
test("generated ONNX files have the same bytes everywhere", () => {
  assert.equal(sha(buildLogMel()), "522562dc383077b8db53aff5c82000d62403b2e2febfdb9c7b402b6b75beee5a");
  assert.equal(sha(buildGabor()), "6df0cf72794e3be3901c99558f9cce3bc4bc019b1516af308a168295e1d711ec");
  assert.equal(builtinModel("logmel"), builtinModel("logmel"));
});

/** The formulas of logmel.ts in float64, with the analytic DFT instead of the file's rounded filters. */
function referenceLogMel(x: Float32Array): { mel: Float64Array[]; energy: number[]; pitch: number[] } {
  const { window, hop, bins, mels, lags, epsilon } = LOGMEL;
  const w = hamming(window);
  const gain = 2 / w.reduce((a, b) => a + b, 0);
  const M = melFilters({ mels, low: LOGMEL.melLow, high: LOGMEL.melHigh }, bins, 25);
  const count = Math.floor(x.length / hop);
  const frames = Array.from({ length: count }, (_, f) => {
    const power = Float64Array.from({ length: bins }, (_, k) => {
      let re = 0;
      let im = 0;
      for (let n = 0; n < window; n++) {
        const at = f * hop - (window - hop) / 2 + n;
        const v = (x[at] ?? 0) * (w[n] as number) * gain;
        re += v * Math.cos((2 * Math.PI * (k + 1) * n) / window);
        im += v * Math.sin((2 * Math.PI * (k + 1) * n) / window);
      }
      return re * re + im * im;
    });
    const mel = Float64Array.from({ length: mels }, (_, m) => {
      let sum = 0;
      for (let k = 0; k < bins; k++) sum += (M[m * bins + k] as number) * (power[k] as number);
      return Math.log(epsilon + sum);
    });
    const taper = (k: number): number => 0.5 + 0.5 * Math.cos((Math.PI * k) / LOGMEL.pitchBins);
    const r = Float64Array.from({ length: lags }, (_, l) => {
      let top = 0;
      let bottom = 0;
      for (let k = 0; k < LOGMEL.pitchBins; k++) {
        const magnitude = taper(k) * Math.sqrt((power[k] as number) + 1e-12);
        top += magnitude * Math.cos(2 * Math.PI * 25 * (k + 1) * pitchLag(l));
        bottom += magnitude;
      }
      return top / bottom;
    });
    const weights = r.map((v) => Math.exp(24 * v));
    const norm = weights.reduce((a, b) => a + b, 0);
    const pitch = weights.reduce((sum, v, l) => sum + (v / norm) * Math.log2(1 / (200 * pitchLag(l))), 0);
    return { mel, energy: Math.log(epsilon + power.reduce((a, b) => a + b, 0)), pitch };
  });
  const pooled = (get: (f: number) => number, t: number): number =>
    [0, 1, 2, 3].reduce((s, i) => s + get(4 * t + i), 0) / 4;
  const rows = Math.floor(count / 4);
  type Frame = (typeof frames)[number];
  const frame = (f: number): Frame => frames[f] as Frame;
  return {
    mel: Array.from({ length: rows }, (_, t) =>
      Float64Array.from({ length: mels }, (_, m) => pooled((f) => frame(f).mel[m] as number, t)),
    ),
    energy: Array.from({ length: rows }, (_, t) => pooled((f) => frame(f).energy, t)),
    pitch: Array.from({ length: rows }, (_, t) => pooled((f) => frame(f).pitch, t)),
  };
}

/** A gliding voice-like tone of four harmonics with a little noise: every band lies well above the floor. */
function glide(seconds: number, low = 110, high = 240): Float32Array {
  let noise = 12345;
  let phase = 0;
  return Float32Array.from({ length: Math.round(seconds * 16000) }, (_, n) => {
    phase += (low + ((high - low) * n) / (seconds * 16000)) / 16000;
    noise = (Math.imul(noise, 1103515245) + 12345) >>> 0;
    const tone = [1, 2, 3, 4].reduce((s, h) => s + Math.sin(2 * Math.PI * h * phase) / h, 0);
    return 0.15 * tone + 0.03 * (noise / 2 ** 31 - 1);
  });
}

test("logmel agrees with its formulas in float64", async () => {
  const x = glide(1.6);
  const expected = referenceLogMel(x);
  const pool = await EncoderPool.open(["logmel"], { workers: 1, threads: 1 });
  try {
    const { data, rows, dim } = await pool.encodeAudio(0, x.slice(), 16000);
    assert.equal(rows, 20);
    assert.equal(dim, 64);
    let worst = 0;
    let worstPitch = 0;
    for (let t = 0; t < rows; t++) {
      for (let m = 0; m < 32; m++) {
        const [mean, deviation] = m < 16 ? [-7, 3] : [-11, 2];
        worst = Math.max(
          worst,
          Math.abs(
            (data[t * 64 + m] as number) * deviation +
              mean -
              ((expected.mel[t] as Float64Array)[m] as number),
          ),
        );
      }
      worst = Math.max(
        worst,
        Math.abs((data[t * 64 + 48] as number) * 2.8 - 2.5 - (expected.energy[t] as number)),
      );
      worstPitch = Math.max(
        worstPitch,
        Math.abs((data[t * 64 + 49] as number) * 0.4 - 0.3 - (expected.pitch[t] as number)),
      );
    }
    // Filters on a grid of 2⁻¹⁵ put noise about 95 dB below the signal into each bin: below 1 % of bands 60 dB down.
    assert.ok(worst < 0.01, `largest difference of a log energy ${worst}`);
    assert.ok(worstPitch < 0.01, `largest difference of the pitch in octaves ${worstPitch}`);
    // and the pitch column really follows the pitch: 110 → 240 Hz is 1.13 octaves
    const rise = ((data[18 * 64 + 49] as number) - (data[64 + 49] as number)) * 0.4;
    assert.ok(rise > 0.7 && rise < 1.4, `pitch rose by ${rise} octaves`);
  } finally {
    await pool.close();
  }
});

test("long sound in pieces gives the rows of one run", async () => {
  const x = glide(40, 100, 400);
  const whole = parseManifest({ ...BUILTIN.logmel?.manifest, name: "whole", chunk: undefined });
  const pool = await EncoderPool.open(["logmel", whole], { workers: 1, threads: 1 });
  try {
    const pieces = await pool.encodeAudio(0, x.slice(), 16000);
    const once = await pool.encodeAudio(1, x.slice(), 16000);
    assert.equal(pieces.rows, 500);
    assert.equal(once.rows, 500);
    let worst = 0;
    for (let i = 0; i < once.data.length; i++)
      worst = Math.max(worst, Math.abs((once.data[i] as number) - (pieces.data[i] as number)));
    assert.ok(worst < 1e-3, `largest difference ${worst}`);
  } finally {
    await pool.close();
  }
});

test("gabor-face agrees with its formula, ignores light and contrast, and sees a mouth change", async () => {
  const { size, filter, orientations, middle, grid } = GABOR;
  const face = (mouth: number, gain = 1, offset = 0): Uint8Array =>
    Uint8Array.from({ length: size * size }, (_, i) => {
      const [x, y] = [i % size, Math.floor(i / size)];
      const curve = 34 + (mouth * (x - 24) ** 2) / 40;
      const level =
        150 - 60 * Math.exp(-((y - curve) ** 2) / 3) * (Math.abs(x - 24) < 9 ? 1 : 0) - (y < 12 ? 40 : 0);
      return Math.round(offset + gain * level);
    });
  const frames = [face(1), face(-1), face(1, 0.8, 20)];
  const pool = await EncoderPool.open(["gabor-face"], { workers: 1, threads: 1 });
  try {
    const data = new Uint8Array(3 * size * size);
    frames.forEach((f, t) => {
      data.set(f, t * size * size);
    });
    async function* blocks() {
      yield { data: data.slice(), frames: 3, height: size, width: size, channels: 1 as const };
    }
    const features = await pool.encodeFrames(0, blocks());
    assert.deepEqual([features.rows, features.dim, features.frames, features.blankFrames], [3, 144, 3, 0]);
    const row = (t: number): Float32Array => features.data.subarray(t * 144, (t + 1) * 144);

    const x = Float64Array.from(frames[0] as Uint8Array, (v) => v / 255);
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const std = Math.sqrt(x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length);
    const y = x.map((v) => (v - mean) / (std + 1 / 64));
    const filters = gaborFilters();
    const margin = (size - middle) / 2;
    let worst = 0;
    for (let o = 0; o < orientations; o++) {
      for (let cell = 0; cell < grid * grid; cell++) {
        let sum = 0;
        for (let p = 0; p < 36; p++) {
          const cx = margin + (cell % grid) * 6 + (p % 6);
          const cy = margin + Math.floor(cell / grid) * 6 + Math.floor(p / 6);
          const [e, d] = [o, o + orientations].map((f) => {
            let s = 0;
            for (let i = 0; i < filter * filter; i++) {
              s +=
                (filters[f * 49 + i] as number) *
                (y[(cy + Math.floor(i / 7) - 3) * size + cx + (i % 7) - 3] as number);
            }
            return s;
          }) as [number, number];
          sum += Math.sqrt(e * e + d * d + 1e-6);
        }
        worst = Math.max(worst, Math.abs((sum / 36 - 0.2) * 8 - (row(0)[o * 36 + cell] as number)));
      }
    }
    assert.ok(worst < 1e-4, `largest difference ${worst}`);
    const distance = (a: Float32Array, b: Float32Array): number =>
      Math.sqrt(a.reduce((s, v, i) => s + (v - (b[i] as number)) ** 2, 0));
    assert.ok(
      distance(row(0), row(1)) > 4 * distance(row(0), row(2)),
      "the mouth counts, the light does not",
    );
  } finally {
    await pool.close();
  }
});

test.run();
