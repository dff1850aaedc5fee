/**
 * Drawn faces. A clip has one identity (head shape, place and size, tone of skin and hair, light, resting features) and
 * shows, inside its expressive intervals, the movements of brows, eyes and mouth of its face kind. At rest the mouth
 * follows the speech, the eyes blink and the head sways, whatever the class.
 *
 * Identities differ in their resting features by about a quarter to a half of what an expression moves. So the mean
 * over a whole clip, in which an expression counts for a fifth of its size, says little; the expressive moments say all.
 */
import { sin } from "../data/portable.ts";
import { Canvas } from "./canvas.ts";
import { Noise } from "./noise.ts";
import { type ClipPlan, clipRandom, expressiveness, FPS } from "./plan.ts";
import { type Syllable, syllableLevel } from "./speech.ts";

/** Height and width of a face frame in pixels. */
export const FACE_SIZE = 48;
const TWO_PI = 6.283185307179586;

/** Movable features, in pixels of a face of scale 1 (y points down; raise and curve count upwards). */
interface Features {
  /** Height of left and right brow above rest; how far their inner ends rise above the outer. */
  browLeft: number;
  browRight: number;
  browTilt: number;
  /** Half-height of left and right eye opening. */
  eyeLeft: number;
  eyeRight: number;
  /** Half-width, half-height of the opening, rise of the corners, share of the opening that shows teeth. */
  mouthWidth: number;
  mouthOpen: number;
  mouthCurve: number;
  teeth: number;
}

/** Change of the features at intensity 1. */
const FACE_KINDS: readonly Features[] = [
  // F0 bared teeth, narrowed eyes, lowered brows: rage or laughter
  { browLeft: -1.6, browRight: -1.6, browTilt: -0.8, eyeLeft: -0.8, eyeRight: -0.8, mouthWidth: 2.2, mouthOpen: 2.3, mouthCurve: 0.3, teeth: 1 },
  // F1 drooping corners and lids, inner brows up
  { browLeft: 0.2, browRight: 0.2, browTilt: 2.6, eyeLeft: -1.1, eyeRight: -1.1, mouthWidth: -0.5, mouthOpen: -0.3, mouthCurve: -2.8, teeth: 0 },
  // F2 staring eyes, brows up and drawn together, thin tense mouth with a little teeth
  { browLeft: 1.6, browRight: 1.6, browTilt: 1.4, eyeLeft: 1.2, eyeRight: 1.2, mouthWidth: 1.2, mouthOpen: 0.7, mouthCurve: -1.2, teeth: 0.9 },
  // F3 round open mouth, brows far up
  { browLeft: 2.6, browRight: 2.6, browTilt: 0, eyeLeft: 0.9, eyeRight: 0.9, mouthWidth: -2.6, mouthOpen: 4, mouthCurve: 0, teeth: -0.2 },
  // F4 one brow up and one eye shut, lips pressed into a crooked smile
  { browLeft: 2.6, browRight: -1.4, browTilt: -0.6, eyeLeft: 0.3, eyeRight: -1.7, mouthWidth: 2, mouthOpen: -0.5, mouthCurve: 2.4, teeth: 0 },
];

interface Identity {
  rest: Features;
  x: number;
  y: number;
  scale: number;
  roll: number;
  headWidth: number;
  headHeight: number;
  skin: number;
  hair: number;
  hairline: number;
  lip: number;
  browWeight: number;
  eyeSpread: number;
  mouthHeight: number;
  glasses: boolean;
  background: number;
  backgroundSlope: number;
  /** Light: gain, and slopes per half image across and down. */
  light: number;
  lightX: number;
  lightY: number;
  /** How far speech opens the mouth. */
  articulation: number;
  /** Head sway: amplitude (px), rate (Hz) and phase (turns), across and down. */
  sway: number[];
  blinks: number[];
  /** Centre, radii and grey level of an occluder and the frames [from, to) that it covers; none when from = to. */
  occluder: { from: number; to: number; x: number; y: number; dx: number; dy: number; radius: number; tone: number };
}

function drawIdentity(seed: number | bigint, plan: ClipPlan, noise: number): Identity {
  const r = clipRandom(seed, plan.split, plan.index, "face");
  const length = plan.frames / FPS;
  const brow = r.normal(0, 0.7);
  const eye = r.uniform(1.35, 2.1);
  const skin = r.uniform(105, 205);
  const identity: Identity = {
    rest: {
      browLeft: brow + r.normal(0, 0.2),
      browRight: brow + r.normal(0, 0.2),
      browTilt: r.normal(0, 0.6),
      eyeLeft: eye,
      eyeRight: eye,
      mouthWidth: r.uniform(4.3, 6.2),
      mouthOpen: r.uniform(0, 0.7),
      mouthCurve: r.normal(0.1, 0.7),
      teeth: 0.25,
    },
    x: 24 + r.normal(0, 0.8),
    y: 24.5 + r.normal(0, 0.8),
    scale: r.uniform(0.93, 1.07),
    roll: r.normal(0, 0.04),
    headWidth: r.uniform(14.5, 17.5),
    headHeight: r.uniform(19, 21.5),
    skin,
    hair: r.bernoulli(0.75) ? r.uniform(20, 80) : r.uniform(120, 190),
    hairline: r.uniform(-16, -13.5),
    lip: r.uniform(0.55, 0.75),
    browWeight: r.uniform(0.75, 1.25),
    eyeSpread: r.uniform(6, 7.2),
    mouthHeight: r.uniform(9.8, 11.2),
    glasses: r.bernoulli(0.15),
    background: r.uniform(40, 215),
    backgroundSlope: r.uniform(-40, 40),
    light: r.uniform(0.85, 1.12),
    lightX: r.uniform(-0.22, 0.22),
    lightY: r.uniform(-0.15, 0.1),
    articulation: r.uniform(0.6, 1.5),
    sway: [r.uniform(0.2, 0.7), r.uniform(0.15, 0.5), r.uniform(), r.uniform(0.2, 0.6), r.uniform(0.15, 0.5), r.uniform()],
    blinks: [],
    occluder: { from: 0, to: 0, x: 0, y: 0, dx: 0, dy: 0, radius: 0, tone: 0 },
  };
  for (let t = r.uniform(0, 3); t < length; t += r.uniform(1.2, 4)) identity.blinks.push(t);
  if (r.bernoulli(Math.min(0.8, 0.2 * noise))) {
    const covered = Math.round(plan.frames * r.uniform(0.08, 0.2));
    const from = r.integer(plan.frames - covered + 1);
    identity.occluder = {
      from,
      to: from + covered,
      x: r.uniform(8, 40),
      y: r.uniform(14, 44),
      dx: r.uniform(-0.6, 0.6),
      dy: r.uniform(-0.6, 0.6),
      radius: r.uniform(6, 9),
      tone: r.uniform(40, 200),
    };
  }
  return identity;
}

/** 1 with open eyes, 0 in the middle of a blink of a quarter of a second. */
function lids(blinks: readonly number[], seconds: number): number {
  let open = 1;
  for (const blink of blinks) open = Math.min(open, Math.abs(seconds - blink) / 0.125);
  return open;
}

function featuresAt(identity: Identity, plan: ClipPlan, seconds: number, speech: number): Features {
  const { rest } = identity;
  const kind = FACE_KINDS[plan.face] as Features;
  const show = expressiveness(plan.visual, seconds, 1.5 / FPS) * plan.intensity;
  const blink = lids(identity.blinks, seconds);
  const talk = speech * identity.articulation * (1 - 0.4 * Math.min(1, show));
  return {
    browLeft: rest.browLeft + show * kind.browLeft,
    browRight: rest.browRight + show * kind.browRight,
    browTilt: rest.browTilt + show * kind.browTilt,
    eyeLeft: blink * Math.max(0.1, rest.eyeLeft + show * kind.eyeLeft),
    eyeRight: blink * Math.max(0.1, rest.eyeRight + show * kind.eyeRight),
    mouthWidth: Math.max(2, rest.mouthWidth + show * kind.mouthWidth - 0.3 * talk),
    mouthOpen: Math.max(0, rest.mouthOpen + show * kind.mouthOpen + talk),
    mouthCurve: rest.mouthCurve + show * kind.mouthCurve,
    teeth: Math.max(0, Math.min(1, rest.teeth + show * kind.teeth)),
  };
}

function drawFace(canvas: Canvas, identity: Identity, f: Features): void {
  const { skin, hair, headWidth: w, headHeight: h, eyeSpread } = identity;
  canvas.fill(identity.background, identity.backgroundSlope);
  canvas.ellipse(0, 25, 20, 9, skin * 0.5); // shoulders
  canvas.ellipse(0, 18, 6.5, 8, skin * 0.8); // neck
  canvas.ellipse(0, -3.5, w + 1.8, h - 1, hair);
  canvas.ellipse(0, 0, w, h, skin, 0.22); // head, darker towards its rim
  canvas.ellipse(0, 0, w + 0.5, h + 0.5, hair, 0, identity.hairline);
  canvas.stroke(-0.6, -1.5, -1.3, 4.4, 0.5, skin * 0.82); // nose
  canvas.stroke(-1.6, 5, 1.6, 5, 0.6, skin * 0.68);
  for (const side of [-1, 1]) {
    const open = side < 0 ? f.eyeLeft : f.eyeRight;
    const raise = side < 0 ? f.browLeft : f.browRight;
    const x = side * eyeSpread;
    const y = -3;
    canvas.ellipse(x, y, 3.6, 2.9, skin * 0.88); // socket
    if (open > 0.25) {
      canvas.ellipse(x, y, 3.1, open, 228);
      canvas.ellipse(x, y, Math.min(1.6, open + 0.3), Math.min(open, 1.6), 38);
    }
    canvas.stroke(x - 3.1, y - open * 0.7, x + 3.1, y - open * 0.7, 0.45, skin * 0.4); // lid
    const browY = y - 4.6 - raise;
    const tilt = f.browTilt * 0.5;
    canvas.stroke(
      x - side * 3.2, browY - tilt, // inner end
      x + side * 3.8, browY + tilt, // outer end
      identity.browWeight,
      Math.min(hair, skin * 0.45),
    );
    if (identity.glasses) {
      canvas.stroke(x - 3.9, y + 3.4, x + 3.9, y + 3.4, 0.35, 40);
      canvas.stroke(x + side * 4, y - 2, x + side * 4, y + 3.4, 0.35, 40);
    }
  }
  canvas.mouth({
    y: identity.mouthHeight,
    width: f.mouthWidth,
    open: f.mouthOpen,
    curve: f.mouthCurve,
    teeth: f.teeth,
    lip: skin * identity.lip,
    inside: 30,
    tooth: 232,
  });
}

/**
 * The clip's face frames: grey levels, `plan.frames` × 48 × 48, row by row.
 * @param noise 0 clean, 1 moderate (pixel noise of 5 grey levels, an occluder in a fifth of the clips)
 */
export function renderFaces(seed: number | bigint, plan: ClipPlan, rhythm: readonly Syllable[], noise: number): Uint8Array {
  const identity = drawIdentity(seed, plan, noise);
  const bulk = new Noise(clipRandom(seed, plan.split, plan.index, "pixels"));
  const pixels = FACE_SIZE * FACE_SIZE;
  const out = new Uint8Array(plan.frames * pixels);
  const canvas = new Canvas(FACE_SIZE);
  const light = new Float64Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const across = ((i % FACE_SIZE) - FACE_SIZE / 2) / (FACE_SIZE / 2);
    const down = (Math.floor(i / FACE_SIZE) - FACE_SIZE / 2) / (FACE_SIZE / 2);
    light[i] = identity.light * (1 + identity.lightX * across + identity.lightY * down);
  }
  const [ax, fx, px, ay, fy, py] = identity.sway as [number, number, number, number, number, number];
  let at = 0;
  let level = 0;
  for (let frame = 0; frame < plan.frames; frame++) {
    const seconds = (frame + 0.5) / FPS;
    while (at < rhythm.length && seconds >= (rhythm[at] as Syllable).end) at++;
    level += 0.75 * (syllableLevel(rhythm[at], seconds) - level);
    canvas.place(
      identity.x + ax * sin(TWO_PI * (fx * seconds + px)),
      identity.y + ay * sin(TWO_PI * (fy * seconds + py)),
      identity.scale,
      identity.roll + 0.02 * sin(TWO_PI * (0.5 * fx * seconds + py)),
    );
    drawFace(canvas, identity, featuresAt(identity, plan, seconds, level));
    const { occluder } = identity;
    if (frame >= occluder.from && frame < occluder.to) {
      canvas.place(
        occluder.x + occluder.dx * (frame - occluder.from),
        occluder.y + occluder.dy * (frame - occluder.from),
        1,
        0,
      );
      canvas.ellipse(0, 0, occluder.radius, occluder.radius * 0.8, occluder.tone, 0.3);
    }
    const base = frame * pixels;
    const spread = 5 * noise;
    for (let i = 0; i < pixels; i++) {
      const value = (canvas.grey[i] as number) * (light[i] as number) + spread * bulk.normal();
      out[base + i] = value <= 0 ? 0 : value >= 255 ? 255 : Math.floor(value + 0.5);
    }
  }
  return out;
}
