/**
 * Elementary functions built only from + − × ÷ of IEEE doubles, so that every engine on every machine returns
 * the same bits. (ECMAScript leaves the last bits of Math.log, Math.exp, Math.sin … to the engine; Math.sqrt
 * is exact everywhere.) Accuracy: relative error below 1e-15 where nothing else is said. Used wherever a
 * result must be reproducible bit for bit.
 */

const LN2_HIGH = 0.6931471803691238; // 32 significant bits, so that exponent × LN2_HIGH is exact
const LN2_LOW = 1.9082149292705877e-10;
const view = new DataView(new ArrayBuffer(8));

/** 2^n for whole n in −1074 … 1023; exact. */
export function pow2(n: number): number {
  if (n < -1022) return pow2(n + 52) * 2.220446049250313e-16;
  view.setUint32(0, (n + 1023) << 20);
  view.setUint32(4, 0);
  return view.getFloat64(0);
}

/** Natural logarithm. ln(0) = −∞, ln(x < 0) = NaN. */
export function ln(x: number): number {
  if (Number.isNaN(x) || x < 0) return Number.NaN;
  if (x === 0) return Number.NEGATIVE_INFINITY;
  if (x === Number.POSITIVE_INFINITY) return x;
  let exponent = 0;
  if (x < 2.2250738585072014e-308) {
    x *= 18014398509481984; // 2^54
    exponent = -54;
  }
  view.setFloat64(0, x);
  const high = view.getUint32(0);
  exponent += (high >>> 20) - 1023;
  view.setUint32(0, (high & 0xfffff) | 0x3ff00000);
  let m = view.getFloat64(0); // [1, 2)
  if (m > Math.SQRT2) {
    m /= 2;
    exponent++;
  }
  // ln m = 2 atanh((m−1)/(m+1)); |s| ≤ 0.1716, so s^23 is below one unit in the last place
  const s = (m - 1) / (m + 1);
  const q = s * s;
  let series = 0;
  for (let k = 21; k >= 3; k -= 2) series = (series + 1 / k) * q;
  return exponent * LN2_HIGH + (2 * s + (2 * s * series + exponent * LN2_LOW));
}

/** e^x; 0 below −745.2, +∞ above 709.8. */
export function exp(x: number): number {
  if (Number.isNaN(x)) return x;
  if (x > 709.782712893384) return Number.POSITIVE_INFINITY;
  if (x < -745.1332191019411) return 0;
  const n = Math.round(x / Math.LN2);
  const r = x - n * LN2_HIGH - n * LN2_LOW; // |r| ≤ 0.347
  let series = 1;
  for (let k = 14; k >= 1; k--) series = 1 + (series * r) / k;
  const half = Math.trunc(n / 2);
  return series * pow2(half) * pow2(n - half);
}

const PIO2 = [1.5707963267341256, 6.077100506506192e-11] as const; // π/2 in 33-bit pieces

function sinSeries(r: number): number {
  const q = r * r;
  let series = 1;
  for (let k = 17; k >= 3; k -= 2) series = 1 - (series * q) / (k * (k - 1));
  return r * series;
}

function cosSeries(r: number): number {
  const q = r * r;
  let series = 1;
  for (let k = 18; k >= 2; k -= 2) series = 1 - (series * q) / (k * (k - 1));
  return series;
}

/**
 * Absolute error below 1e-15 for |x| ≤ 1000, growing in proportion beyond (for phases: reduce them yourself).
 */
export function sin(x: number): number {
  const n = Math.round(x / (PIO2[0] + PIO2[1]));
  const r = x - n * PIO2[0] - n * PIO2[1];
  const quadrant = ((n % 4) + 4) % 4;
  if (quadrant === 0) return sinSeries(r);
  if (quadrant === 1) return cosSeries(r);
  return quadrant === 2 ? -sinSeries(r) : -cosSeries(r);
}

/** As {@link sin}. */
export function cos(x: number): number {
  const n = Math.round(x / (PIO2[0] + PIO2[1]));
  const r = x - n * PIO2[0] - n * PIO2[1];
  const quadrant = ((n % 4) + 4) % 4;
  if (quadrant === 0) return cosSeries(r);
  if (quadrant === 1) return -sinSeries(r);
  return quadrant === 2 ? -cosSeries(r) : sinSeries(r);
}

/** Hyperbolic tangent; absolute error below 1e-15. */
export function tanh(x: number): number {
  if (Math.abs(x) > 20) return Math.sign(x);
  const e = exp(2 * x);
  return (e - 1) / (e + 1);
}
