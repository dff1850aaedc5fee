/**
 * A source–filter voice (after Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980): a glottal
 * pulse (Rosenberg's, differentiated, which includes radiation at the lips), a one-pole spectral tilt, breath noise and
 * a cascade of four formant resonators, controlled every 5 ms. Pitch, loudness, tilt, breath and resonances move from
 * the speaker's own rest to the voice kind's display in the expressive intervals.
 */
import { exp, ln, sin } from "../data/portable.ts";
import { Noise } from "./noise.ts";
import { type ClipPlan, clipRandom, expressiveness, FPS, SAMPLE_RATE, SAMPLES_PER_FRAME } from "./plan.ts";
import { type Syllable, syllableLevel } from "./speech.ts";

const CONTROL = 80; // samples per control block: 5 ms, 16 blocks a face frame
const TWO_PI = 6.283185307179586;
/** Amplitude of the room's noise at noise level 1; full scale is 1. */
const ROOM = 0.0018;

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

/** The vocal tract: four resonators in cascade, which glide towards the formants they are told. */
class Tract {
  readonly #hertz = new Float64Array(4).fill(500);
  readonly #b = new Float64Array(4);
  readonly #c = new Float64Array(4);
  // The last two samples that each resonator gave.
  readonly #y1 = new Float64Array(4);
  readonly #y2 = new Float64Array(4);

  /** Moves resonator i a quarter of the way to a frequency in Hz. */
  glide(i: number, goal: number): void {
    const now = (this.#hertz[i] as number) + 0.25 * (goal - (this.#hertz[i] as number));
    this.#hertz[i] = now;
    const bandwidth = 60 + 0.035 * now; // Hz
    const radius = exp((-Math.PI * bandwidth) / SAMPLE_RATE);
    this.#b[i] = 2 * radius * cosTurns(now / SAMPLE_RATE);
    this.#c[i] = -radius * radius;
  }

  /** Filters samples in place; gain 1 at 0 Hz. */
  filter(samples: Float64Array): void {
    for (let i = 0; i < 4; i++) {
      const b = this.#b[i] as number;
      const c = this.#c[i] as number;
      const a = 1 - b - c;
      let y1 = this.#y1[i] as number;
      let y2 = this.#y2[i] as number;
      for (let n = 0; n < samples.length; n++) {
        const y = a * (samples[n] as number) + b * y1 + c * y2;
        y2 = y1;
        y1 = y;
        samples[n] = y;
      }
      this.#y1[i] = y1;
      this.#y2[i] = y2;
    }
  }
}

/** Rosenberg's glottal pulse, differentiated: opening for 42 % of a period, closing within 16 %. @param phase 0 … 1 */
function glottalPulse(phase: number): number {
  if (phase < 0.42) {
    const x = phase / 0.42;
    return (6 * (x - x * x)) / 0.42;
  }
  return phase < 0.58 ? (-2 * (phase - 0.42)) / (0.16 * 0.16) : 0;
}

/** What the larynx is to do for one control block. */
interface Control {
  /** Turns per sample. */
  pitch: number;
  /** Amplitudes of the pulse, of the breath and of a consonant's noise. */
  voiced: number;
  breath: number;
  consonant: number;
  /** Coefficient of the tilt's one-pole filter, 0 dull … 1 bright. */
  tilt: number;
}

/** Control values of a moment. @param jitter a normal deviate: the pitch's unsteadiness */
function controlAt(
  plan: ClipPlan,
  { speaker, tune }: ReturnType<typeof drawSpeaker>,
  syllable: Syllable | undefined,
  seconds: number,
  jitter: number,
): Control {
  const kind = VOICE_KINDS[plan.voice] as VoiceKind;
  const show = expressiveness(plan.audio, seconds, 0.08) * plan.intensity;
  const share = Math.min(1, show);
  const swing = kind.swing * share * sin(TWO_PI * 5.5 * seconds);
  const [rate1, phase1, depth1, rate2, phase2, depth2, fall] = tune as [number, number, number, number, number, number, number];
  const melody =
    depth1 * sin(TWO_PI * (rate1 * seconds + phase1)) +
    depth2 * sin(TWO_PI * (rate2 * seconds + phase2)) -
    fall * ((seconds * FPS) / plan.frames);
  const hertz = speaker.pitch * exp(melody * (1 - 0.5 * share) + kind.pitch * show + swing + 0.008 * jitter);
  const loud = speaker.gain * exp(kind.loudness * show) * syllableLevel(syllable, seconds);
  const inConsonant = syllable && seconds >= syllable.start && seconds < syllable.start + 0.045;
  const consonant = inConsonant ? syllable.consonant * speaker.gain : 0;
  return {
    pitch: hertz / SAMPLE_RATE,
    voiced: loud * (1 + share * (kind.pulse - 1)) * (consonant > 0 ? 0.4 : 1),
    breath: loud * (speaker.breath + kind.breath * show),
    consonant,
    tilt: Math.min(0.97, Math.max(0.06, speaker.tilt + kind.tilt * show)),
  };
}

/**
 * The clip's sound: 16-bit samples at 16 kHz, `plan.frames · 1280` of them.
 * @param noise 0 clean, 1 moderate (about 35 dB below resting speech), more is louder in proportion
 */
export function renderVoice(seed: number | bigint, plan: ClipPlan, rhythm: readonly Syllable[], noise: number): Int16Array {
  const drawn = drawSpeaker(seed, plan);
  const { speaker } = drawn;
  const bulk = new Noise(clipRandom(seed, plan.split, plan.index, "samples"));
  const kind = VOICE_KINDS[plan.voice] as VoiceKind;
  const out = new Int16Array(plan.frames * SAMPLES_PER_FRAME);
  const tract = new Tract();
  const sound = new Float64Array(CONTROL);
  const white = new Float64Array(CONTROL);
  let phase = 0;
  let voiced = 0;
  let breath = 0;
  let tilted = 0;
  let hiss = 0;
  let rumble = 0;
  let coloured = 0;
  let at = 0;

  for (let block = 0; block < out.length; block += CONTROL) {
    const seconds = (block + CONTROL / 2) / SAMPLE_RATE;
    while (at < rhythm.length && seconds >= (rhythm[at] as Syllable).end) at++;
    const syllable = rhythm[at];
    const control = controlAt(plan, drawn, syllable, seconds, bulk.normal());

    // Formants glide towards the syllable's vowel, pulled by the kind.
    const vowel = VOWEL_FORMANTS[syllable?.vowel ?? 5] as readonly number[];
    const pull = kind.pull * Math.min(1, expressiveness(plan.audio, seconds, 0.08) * plan.intensity);
    for (let i = 0; i < 4; i++) {
      const own = (i < 3 ? (vowel[i] as number) : 3500) * speaker.formantScale;
      tract.glide(i, own + pull * ((kind.formants[i] as number) * (0.5 + 0.5 * speaker.formantScale) - own));
    }

    // Source: pulses, tilted, and breath that is stronger while the glottis is open.
    for (let n = 0; n < CONTROL; n++) {
      voiced += 0.02 * (control.voiced - voiced);
      breath += 0.02 * (control.breath - breath);
      phase += control.pitch;
      if (phase >= 1) phase -= 1;
      tilted += control.tilt * (glottalPulse(phase) - tilted);
      const noisy = bulk.normal();
      white[n] = noisy;
      sound[n] = 0.028 * voiced * tilted + 0.18 * breath * (phase < 0.58 ? 1 : 0.5) * noisy;
    }
    tract.filter(sound);

    // Consonants (high-passed noise, past the tract), the microphone's colour, the room's noise, a soft limit.
    for (let n = 0; n < CONTROL; n++) {
      const noisy = white[n] as number;
      hiss += 0.5 * (noisy - hiss);
      coloured = (sound[n] as number) + 0.017 * control.consonant * (noisy - hiss) + speaker.colour * coloured;
      const room = bulk.normal();
      rumble += 0.06 * (room - rumble);
      const sample = (1 - Math.abs(speaker.colour)) * coloured + ROOM * noise * (room + 4 * rumble);
      const limited = sample / Math.sqrt(1 + sample * sample); // √ is exact on every machine
      out[block + n] = Math.floor(limited * 32000 + 0.5);
    }
  }
  return out;
}
