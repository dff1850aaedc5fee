import { test } from "uvu";
import * as assert from "uvu/assert";
import { attentionContrast } from "../../lib/demo/index.ts";
import type { ClipTruth } from "../../lib/synth/index.ts";

const truth = (intervals: [number, number][], duration: number) =>
  ({ visual: intervals, audio: [], duration }) as unknown as ClipTruth;

test("frames are judged by the time of their centre", () => {
  // Four frames of one second; the second and third are expressive.
  const clip = { weights: Float32Array.of(0.1, 0.3, 0.5, 0.1), truth: truth([[1, 3]], 4) };
  const { expressive, neutral, ratio } = attentionContrast([clip], "visual");
  assert.ok(Math.abs(expressive - 0.4) < 1e-7);
  assert.ok(Math.abs(neutral - 0.1) < 1e-7);
  assert.ok(Math.abs(ratio - 4) < 1e-6);
});

test("uniform weights have a contrast of 1 on clips of equal length", () => {
  const weights = new Float32Array(10).fill(0.1);
  const { ratio } = attentionContrast(
    [
      { weights, truth: truth([[0, 2]], 10) },
      { weights, truth: truth([[5, 8]], 10) },
    ],
    "visual",
  );
  assert.ok(Math.abs(ratio - 1) < 1e-6);
});

test("every frame counts once, whatever its clip's length", () => {
  const long = { weights: new Float32Array(8).fill(1 / 8), truth: truth([[0, 4]], 8) };
  const short = { weights: new Float32Array(2).fill(1 / 2), truth: truth([[0, 1]], 2) };
  const { expressive } = attentionContrast([long, short], "visual");
  assert.ok(Math.abs(expressive - (4 / 8 + 1 / 2) / 5) < 1e-7);
});

test.run();
