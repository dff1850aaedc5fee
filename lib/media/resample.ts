/**
 * Resampling by band-limited interpolation (Smith, "Digital Audio Resampling"): a sinc with cut-off at 0.95 of the lower
 * Nyquist frequency under a Kaiser window (β = 8.6, about 85 dB of stop-band), 24 zero crossings to each side. The
 * kernel is tabulated at 1024 points per zero crossing and interpolated linearly, which errs by less than −110 dB, so
 * any pair of rates costs the same.
 */

const CROSSINGS = 24;
const STEPS = 1024;
const ROLL_OFF = 0.95;
const BETA = 8.6;

/** Modified Bessel function I0 by its series. */
function bessel(x: number): number {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

let table: Float64Array | undefined;

/** Right half of the windowed sinc. */
function kernel(): Float64Array {
  if (table) return table;
  table = new Float64Array(CROSSINGS * STEPS + 2);
  for (let i = 0; i < CROSSINGS * STEPS; i++) {
    const x = i / STEPS;
    const sinc = i === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    table[i] = (sinc * bessel(BETA * Math.sqrt(1 - (x / CROSSINGS) ** 2))) / bessel(BETA);
  }
  return table;
}

/**
 * Samples at another rate; the signal counts as silent before its beginning and after its end.
 * @param from rate of `samples` in Hz @param to wanted rate in Hz
 * @returns ⌈length · to / from⌉ samples; `samples` itself when the rates are equal
 */
export function resample(samples: Float32Array, from: number, to: number): Float32Array {
  if (from === to) return samples;
  const h = kernel();
  const cutoff = ROLL_OFF * Math.min(1, to / from); // in units of the input's Nyquist frequency
  const reach = CROSSINGS / cutoff; // input samples to each side
  const out = new Float32Array(Math.ceil((samples.length * to) / from));
  const scale = cutoff * STEPS;
  for (let n = 0; n < out.length; n++) {
    const centre = (n * from) / to;
    const first = Math.max(0, Math.ceil(centre - reach));
    const last = Math.min(samples.length - 1, Math.floor(centre + reach));
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const x = Math.abs(i - centre) * scale;
      const k = Math.trunc(x);
      const left = h[k] as number;
      sum += (samples[i] as number) * (left + (x - k) * ((h[k + 1] as number) - left));
    }
    out[n] = sum * cutoff;
  }
  return out;
}
