import { test } from "uvu";
import * as assert from "uvu/assert";
import { ceilings } from "../../lib/synth/ceilings.ts";
import { renderClip } from "../../lib/synth/clip.ts";
import { CLASSES, type ClipPlan, expressiveness, FPS, planSplit } from "../../lib/synth/plan.ts";

const plans = planSplit(3n, "train", 1200);
const count = (keep: (plan: ClipPlan) => boolean): number => plans.filter(keep).length;

test("classes and displays are balanced", () => {
  for (const name of CLASSES) assert.is(count((plan) => plan.discrete === name), 200);
  assert.is(count((p) => p.discrete === "neutral" && p.face === 3 && p.voice === 3), 100);
  assert.is(count((p) => p.discrete === "surprise" && p.face === 3 && p.voice === 4), 100);
});

test("20–30 % of every clip is expressive, in one or two intervals away from the ends", () => {
  let two = 0;
  for (const plan of plans) {
    const length = plan.frames / FPS;
    const shown = plan.visual.reduce((sum, [start, end]) => sum + end - start, 0);
    assert.ok(Math.abs(shown / length - 0.25) <= 0.05 + 0.5 / plan.frames, `${plan.name}: ${shown / length}`);
    assert.ok((plan.visual[0]?.[0] ?? 0) > 0.1 && (plan.visual.at(-1)?.[1] ?? 99) < length - 0.1);
    if (plan.visual.length === 2) {
      two++;
      assert.ok((plan.visual[1]?.[0] ?? 0) - (plan.visual[0]?.[1] ?? 0) >= 0.39);
    }
    plan.audio.forEach(([start, end], i) => {
      const [from, to] = plan.visual[i] as readonly [number, number];
      assert.ok(start - from >= 0 && start - from <= 0.1 && end - to <= 0.1);
    });
  }
  assert.ok(two > 300 && two < 900);
});

test("lengths vary threefold and valence follows class and intensity", () => {
  const frames = plans.map((plan) => plan.frames);
  assert.is(Math.min(...frames), 25);
  assert.is(Math.max(...frames), 75);
  for (const plan of plans) assert.ok(Math.abs(plan.valence) < 3);
  assert.ok(count((plan) => plan.discrete === "angry" && plan.valence < -1.3) === 200);
});

test("ceilings are those of the design, for the generator and for given labels", () => {
  const all = ceilings(plans);
  assert.is(all.audio.bayes, 0.666667);
  assert.is(all.visual.bayes, 0.666667);
  assert.is(all.fused.bayes, 1);
  assert.is(all.audio.accuracy, 0.666667);
  assert.is(all.visual.accuracy, 0.666667);
  assert.is(all.fused.accuracy, 1);
  assert.ok(all.fused.mse < 1e-6 && all.audio.mse > 0.03 && all.visual.mse > 1);
  // Two of V2's three clips are sad: the best rule from the voice gets those and the angry one.
  const clip = (discrete: ClipPlan["discrete"], face: number, voice: number) => ({ discrete, face, voice, intensity: 1, valence: 0 });
  const few = [clip("sad", 1, 2), clip("sad", 1, 2), clip("worried", 2, 2), clip("angry", 0, 0)];
  assert.is(ceilings(few).audio.accuracy, 0.75);
  assert.is(ceilings(few).visual.accuracy, 1);
  assert.is(ceilings([]).fused.bayes, 1);
});

test("a moment's expressiveness is 1 inside, 0 outside, ½ at an edge", () => {
  assert.is(expressiveness([[1, 2]], 1.5, 0.1), 1);
  assert.is(expressiveness([[1, 2]], 0.9, 0.1), 0);
  assert.is(expressiveness([[1, 2]], 1, 0.1), 0.5);
  assert.is(expressiveness([], 1, 0.1), 0);
});

/** Mean of each cell of a 6 × 6 grid over the frames in which `keep`. */
function grid(faces: Uint8Array, frames: number, keep: (frame: number) => boolean): number[] {
  const cells = new Array<number>(36).fill(0);
  let kept = 0;
  for (let t = 0; t < frames; t++) {
    if (!keep(t)) continue;
    kept++;
    for (let i = 0; i < 2304; i++) {
      const cell = Math.floor(Math.floor(i / 48) / 8) * 6 + Math.floor((i % 48) / 8);
      cells[cell] = (cells[cell] as number) + (faces[t * 2304 + i] as number) / 64;
    }
  }
  return cells.map((sum) => sum / Math.max(1, kept));
}

test("the face moves in its expressive intervals only", () => {
  let shown = 0;
  let rest = 0;
  for (const plan of plans.slice(0, 24)) {
    const { faces } = renderClip(3n, plan, 0);
    const inside = (t: number): boolean => expressiveness(plan.visual, (t + 0.5) / FPS, 0.01) > 0.5;
    const still = grid(faces, plan.frames, (t) => !inside(t) && t % 2 === 0);
    const distance = (other: number[]): number => Math.sqrt(other.reduce((sum, v, i) => sum + (v - (still[i] as number)) ** 2, 0));
    shown += distance(grid(faces, plan.frames, inside));
    rest += distance(grid(faces, plan.frames, (t) => !inside(t) && t % 2 === 1));
  }
  assert.ok(shown > 5 * rest, `${shown} against ${rest}`);
});

test("noise is added to both modalities in proportion", () => {
  const plan = plans[0] as ClipPlan;
  const clean = renderClip(3n, plan, 0);
  const spread = (noise: number): [number, number] => {
    const noisy = renderClip(3n, plan, noise);
    let pixels = 0;
    for (let i = 0; i < 2304; i++) pixels += ((noisy.faces[i] as number) - (clean.faces[i] as number)) ** 2;
    let samples = 0;
    noisy.samples.forEach((s, i) => {
      samples += (s - (clean.samples[i] as number)) ** 2;
    });
    return [Math.sqrt(pixels / 2304), Math.sqrt(samples / noisy.samples.length)];
  };
  const [p1, s1] = spread(1);
  const [p2, s2] = spread(2);
  assert.ok(p1 > 3 && p2 / p1 > 1.7 && p2 / p1 < 2.3, `${p1} ${p2}`);
  assert.ok(s1 > 5 && s2 / s1 > 1.9 && s2 / s1 < 2.1, `${s1} ${s2}`);
});

test.run();
