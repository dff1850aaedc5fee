/**
 * A source–filter voice (after Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980): a glottal
 * pulse (Rosenberg's, differentiated, which includes radiation at the lips), a one-pole spectral tilt, breath noise and
 * a cascade of four formant resonators, controlled every 5 ms. Pitch, loudness, tilt, breath and resonances move from
 * the speaker's own rest to the voice kind's display in the expressive intervals.
 */
import { exp, ln, sin } from "../data/portable.ts";
import { Noise } from "./noise.ts";
import { type ClipPlan, clipRandom, expressiveness, SAMPLE_RATE, SAMPLES_PER_FRAME } from "./plan.ts";
import { type Syllable, syllableLevel } from "./speech.ts";

const CONTROL = 80; // samples per control block: 5 ms, 16 blocks a face frame
const TWO_PI = 6.283185307179586;

/** First three formants in Hz of six vowels (Peterson and Barney, 1952, men's means; the last is the neutral tube). */
const VOWEL_FORMANTS = [
  [730, 1090, 2440],
  [270, 2290, 3010],
  [300, 870, 2240],
  [530, 1840, 2480],
  [570, 840, 2410],
  [500, 1500, 2500],
] as const;

/** A voice kind: what it does to the resting voice at intensity 1. */
interface VoiceKind {
  /** Natural log of the pitch factor and of the loudness factor. */
  pitch: number;
  loudness: number;
  /** Added to the tilt (0 dull … 1 bright) and to the breath (0 … 1). */
  tilt: number;
  breath: number;
  /** Share of the pulse that remains, and depth of a 5.5 Hz pitch swing. */
  pulse: number;
  swing: number;
  /** Resonances it pulls the vowels towards (Hz), and how far (0 … 1). */
  formants: readonly [number, number, number, number];
  pull: number;
}

const LOUD = 0.1151292546497; // ln 10 / 20: natural log units per dB

/**
 * V0 pressed, loud and bright; V1 high and swinging; V2 low, slow, with a booming chest; V3 a stage whisper; V4 a
 * closed, twanging resonance. Rest is quiet and dull, so every kind stands out from it, each in a band of its own.
 */
const VOICE_KINDS: readonly VoiceKind[] = [
  { pitch: 0.3, loudness: 13 * LOUD, tilt: 0.5, breath: 0, pulse: 1, swing: 0, formants: [850, 1350, 2600, 3600], pull: 0.4 },
  { pitch: 0.75, loudness: 9 * LOUD, tilt: 0.15, breath: 0.01, pulse: 1, swing: 0.13, formants: [450, 1900, 2900, 3800], pull: 0.3 },
  { pitch: -0.4, loudness: 7 * LOUD, tilt: -0.25, breath: 0, pulse: 1, swing: 0, formants: [380, 750, 2300, 3300], pull: 0.7 },
  { pitch: 0, loudness: 7 * LOUD, tilt: 0.2, breath: 1, pulse: 0.04, swing: 0, formants: [600, 1500, 2500, 3500], pull: 0.2 },
  { pitch: 0.05, loudness: 8 * LOUD, tilt: 0.15, breath: 0, pulse: 1, swing: 0, formants: [280, 2550, 2850, 3200], pull: 0.9 },
];

/** What stays the same while one speaker speaks. */
interface Speaker {
  /** Hz. */
  pitch: number;
  formantScale: number;
  tilt: number;
  breath: number;
  /** Linear gain of speaker and microphone. */
  gain: number;
  /** One-pole colour of the channel, −0.35 … 0.35. */
  colour: number;
}

function drawSpeaker(seed: number | bigint, plan: ClipPlan): { speaker: Speaker; tune: number[] } {
  const random = clipRandom(seed, plan.split, plan.index, "voice");
  // Pitch and tract length go together, loosely: high voices have short tracts.
  const height = random.uniform(-1, 1);
  const speaker = {
    pitch: exp(ln(150) + 0.38 * height + random.normal(0, 0.06)),
    formantScale: 1 + 0.1 * height + random.uniform(-0.05, 0.05),
    tilt: random.uniform(0.3, 0.5),
    breath: random.uniform(0.01, 0.04),
    gain: exp(random.uniform(-4.5, 4.5) * LOUD),
    colour: random.uniform(-0.35, 0.35),
  };
  // Intonation: two slow swings with random rate and phase, and a fall over the clip.
  const tune = [
    random.uniform(0.25, 0.6), random.uniform(0, 1), random.uniform(0.03, 0.09),
    random.uniform(0.9, 1.6), random.uniform(0, 1), random.uniform(0.02, 0.05),
    random.uniform(0, 0.12),
  ];
  return { speaker, tune };
}

/** cos(2π f) of a frequency in turns per sample. */
function cosTurns(turns: number): number {
  return sin(TWO_PI * (turns + 0.25));
}

/**
 * The clip's sound: 16-bit samples at 16 kHz, `plan.frames · 1280` of them.
 * @param noise 0 clean, 1 moderate (about 25 dB below resting speech), more is louder in proportion
 */
export function renderVoice(seed: number | bigint, plan: ClipPlan, rhythm: readonly Syllable[], noise: number): Int16Array {
  const { speaker, tune } = drawSpeaker(seed, plan);
  const bulk = new Noise(clipRandom(seed, plan.split, plan.index, "samples"));
  const kind = VOICE_KINDS[plan.voice] as VoiceKind;
  const count = plan.frames * SAMPLES_PER_FRAME;
  const out = new Int16Array(count);

  const b = new Float64Array(4);
  const c = new Float64Array(4);
  const gainIn = new Float64Array(4);
  const y1 = new Float64Array(4);
  const y2 = new Float64Array(4);
  const formant = new Float64Array(4).fill(500);
  let phase = 0;
  let tilted = 0;
  let hiss = 0;
  let rumble = 0;
  let coloured = 0;
  let period = 1;
  let voiced = 0;
  let airy = 0;
  let at = 0;

  for (let block = 0; block < count; block += CONTROL) {
    const seconds = (block + CONTROL / 2) / SAMPLE_RATE;
    while (at < rhythm.length && seconds >= (rhythm[at] as Syllable).end) at++;
    const syllable = rhythm[at];
    const level = syllableLevel(syllable, seconds);
    const show = expressiveness(plan.audio, seconds, 0.08) * plan.intensity;
    const share = Math.min(1, show);

    // Formants glide towards the syllable's vowel, pulled by the kind.
    const vowel = VOWEL_FORMANTS[syllable?.vowel ?? 5] as readonly number[];
    const pull = kind.pull * share;
    for (let i = 0; i < 4; i++) {
      const own = (i < 3 ? (vowel[i] as number) : 3500) * speaker.formantScale;
      const goal = own + pull * ((kind.formants[i] as number) * (0.5 + 0.5 * speaker.formantScale) - own);
      const now = (formant[i] as number) + 0.25 * (goal - (formant[i] as number));
      formant[i] = now;
      const width = 60 + 0.035 * now; // bandwidth in Hz
      const radius = exp((-Math.PI * width) / SAMPLE_RATE);
      const bi = 2 * radius * cosTurns(now / SAMPLE_RATE);
      const ci = -radius * radius;
      b[i] = bi;
      c[i] = ci;
      gainIn[i] = 1 - bi - ci;
    }

    const swing = kind.swing * share * sin(TWO_PI * 5.5 * seconds);
    const melody =
      (tune[2] as number) * sin(TWO_PI * ((tune[0] as number) * seconds + (tune[1] as number))) +
      (tune[5] as number) * sin(TWO_PI * ((tune[3] as number) * seconds + (tune[4] as number))) -
      (tune[6] as number) * (seconds / (count / SAMPLE_RATE));
    const hertz = speaker.pitch * exp(melody * (1 - 0.5 * share) + kind.pitch * show + swing + 0.008 * bulk.normal());
    const step = hertz / SAMPLE_RATE;
    period = Math.max(step, 1e-4);

    const loud = speaker.gain * exp(kind.loudness * show) * level;
    const tilt = Math.min(0.97, Math.max(0.06, speaker.tilt + kind.tilt * show));
    const breath = speaker.breath + kind.breath * show;
    const burst = syllable && seconds >= syllable.start && seconds < syllable.start + 0.045 ? syllable.consonant * 0.034 * speaker.gain : 0;
    const voicedGoal = loud * (1 + share * (kind.pulse - 1)) * (burst > 0 ? 0.4 : 1);
    const airyGoal = loud * breath;
    const background = noise * 0.00045;

    for (let n = block; n < block + CONTROL; n++) {
      voiced += 0.02 * (voicedGoal - voiced);
      airy += 0.02 * (airyGoal - airy);
      phase += period;
      if (phase >= 1) phase -= 1;
      // Rosenberg's pulse, differentiated: opening for 42 % of a period, closing within 16 %.
      let pulse = 0;
      if (phase < 0.42) {
        const x = phase / 0.42;
        pulse = (6 * (x - x * x)) / 0.42;
      } else if (phase < 0.58) {
        pulse = (-2 * (phase - 0.42)) / (0.16 * 0.16);
      }
      tilted += tilt * (pulse - tilted);
      const white = bulk.normal();
      const aspiration = airy * (phase < 0.58 ? 1 : 0.5) * white;
      let x = 0.028 * voiced * tilted + 0.18 * aspiration;
      for (let i = 0; i < 4; i++) {
        const y = (gainIn[i] as number) * x + (b[i] as number) * (y1[i] as number) + (c[i] as number) * (y2[i] as number);
        y2[i] = y1[i] as number;
        y1[i] = y;
        x = y;
      }
      // Consonants: high-passed noise past the tract.
      hiss += 0.5 * (white - hiss);
      x += burst * 0.5 * (white - hiss);
      coloured = x + speaker.colour * coloured;
      // Background: white and low-passed noise, half each.
      const room = bulk.normal();
      rumble += 0.06 * (room - rumble);
      const sample = (1 - Math.abs(speaker.colour)) * coloured + background * (room + 4 * rumble);
      // A soft limit at full scale; √ is exact on every machine.
      const limited = sample / Math.sqrt(1 + sample * sample);
      out[n] = Math.floor(limited * 32000 + 0.5);
    }
  }
  return out;
}
