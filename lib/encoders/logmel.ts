/**
 * The built-in audio encoder: a fixed filter bank, written as an ONNX graph. No weight is learned.
 *
 *     x [1,N] 16 kHz mono, full scale ±1
 *     X_k(f) = (2/Σw) Σ_n w_n x(n + 320 f − 160) e^{−2πikn/640}     40 ms Hamming window, hop 20 ms, k = 1 … 312 (25 Hz apart)
 *     P_k = |X_k|²
 *     mel_m   = ln(ε + Σ_k M_mk P_k)                                 32 triangular bands, 80–7600 Hz (HTK mel scale)
 *     energy  = ln(ε + Σ_k P_k)
 *     r(τ)    = Σ_k h_k |X_k| cos(2π f_k τ) / Σ_k h_k |X_k|          generalised autocorrelation over 25–2000 Hz
 *     pitch bands: the largest r(τ) within each of 16 bands of 1/τ, evenly spaced in log frequency over 75–500 Hz
 *     pitch   = Σ_τ softmax_τ(24 r(τ)) log2(1/(200 τ)),  voicing = max_τ r(τ)
 *     modulation_j = |Σ_i hann_i e^{2πi μ_j i/50} energy(f + i)|     μ = 2 … 8 Hz over 0.64 s: the rate of syllables
 *     deltas (3-point regression) of energy and pitch, signed and absolute
 *
 * Four neighbouring frames are averaged, so one row stands for 80 ms (12.5 per second, the rate of the face encoder), and
 * every column is brought to about zero mean and unit variance by constants. Output `features` [T,64], T = ⌊N/1280⌋.
 *
 * Columns: 0–31 mel, 32–47 pitch bands, 48 energy, 49 pitch (octaves above 200 Hz), 50 voicing, 51–57 modulation,
 * 58 Δenergy, 59 Δpitch, 60 |Δenergy|, 61 |Δpitch|, 62 spectral tilt (ln energy above 1 kHz minus below), 63 |Δmel|.
 */
import { cos, exp, ln, sin } from "../data/portable.ts";
import { grid, hamming, melFilters, powerSpectrum } from "./mel.ts";
import { OnnxGraph } from "./onnx.ts";

/** Sizes that the graph, its manifest and its tests share. */
export const LOGMEL = {
  sampleRate: 16000,
  window: 640,
  hop: 320,
  bins: 312,
  mels: 32,
  melLow: 80,
  melHigh: 7600,
  epsilon: 1e-6,
  lags: 64,
  pitchBands: 16,
  pitchLow: 75,
  pitchHigh: 500,
  pitchBins: 80,
  modulations: [2, 3, 4, 5, 6, 7, 8],
  modulationTaps: 32,
  /** Output frames per second and samples per output frame. */
  rate: 12.5,
  frame: 1280,
  dim: 64,
} as const;

const TAU = 2 * Math.PI;

/** Lag τ_l in seconds, falling: 1/τ is evenly spaced in log frequency over [pitchLow, pitchHigh]. */
export function pitchLag(l: number): number {
  const { lags, pitchLow, pitchHigh } = LOGMEL;
  return 1 / (pitchLow * exp((ln(pitchHigh / pitchLow) * (l + 0.5)) / lags));
}

/** Offset and scale that bring each column to about zero mean and unit variance on speech-like material. */
function standardisation(): { offset: number[]; scale: number[] } {
  const { mels, pitchBands } = LOGMEL;
  const columns: [count: number, mean: number, deviation: number][] = [
    [mels / 2, -7, 3],
    [mels / 2, -11, 2],
    [pitchBands, 0.05, 0.2],
    [1, -2.5, 2.8],
    [1, -0.3, 0.4],
    [1, 0.5, 0.2],
    [1, 1.7, 1.8],
    [1, 1.5, 1.4],
    [1, 1.2, 0.8],
    [1, 1, 0.5],
    [1, 0.8, 0.4],
    [1, 0.6, 0.3],
    [1, 0.5, 0.3],
    [1, 0, 0.5],
    [1, 0, 0.06],
    [1, 0.5, 0.4],
    [1, 0.06, 0.08],
    [1, -3.4, 2.2],
    [1, 0.5, 0.3],
  ];
  const offset = columns.flatMap(([count, mean]) => Array<number>(count).fill(-mean));
  const scale = columns.flatMap(([count, , deviation]) => Array<number>(count).fill(1 / deviation));
  return { offset, scale };
}

/** The ONNX bytes of the encoder: input `waveform` [1,N], N >= 1280; output `features` [⌊N/1280⌋, 64]. */
export function buildLogMel(): Uint8Array {
  const { sampleRate, window, hop, bins, mels, lags, pitchBands, pitchBins, modulations, modulationTaps } =
    LOGMEL;
  const g = new OnnxGraph("affuse-logmel");
  const binHz = sampleRate / window;
  const x = g.input("waveform", [1, "samples"]);

  const w = hamming(window);
  const raw = powerSpectrum(g, x, { shape: w, hop, bins, size: window, pad: (window - hop) / 2 });
  const gain = 2 / w.reduce((a, b) => a + b, 0);
  const power = g.node("Mul", [raw, g.constant([1], [gain * gain])]); // [1,bins,F]

  const log = (value: string): string =>
    g.node("Log", [g.node("Add", [value, g.constant([1], [LOGMEL.epsilon])])]);
  const map = (value: string, rows: number, columns: number, weights: ArrayLike<number>): string =>
    g.node("Conv", [value, g.constant([rows, columns, 1], weights)], { kernel_shape: [1] });

  const melWeights = melFilters({ mels, low: LOGMEL.melLow, high: LOGMEL.melHigh }, bins, binHz).map(grid);
  const mel = log(map(power, mels, bins, melWeights));
  const energy = log(map(power, 1, bins, new Float64Array(bins).fill(1)));
  const above = (k: number): boolean => (k + 1) * binHz >= 1000;
  const high = log(
    map(
      power,
      1,
      bins,
      Float64Array.from({ length: bins }, (_, k) => (above(k) ? 1 : 0)),
    ),
  );
  const low = log(
    map(
      power,
      1,
      bins,
      Float64Array.from({ length: bins }, (_, k) => (above(k) ? 0 : 1)),
    ),
  );
  const tilt = g.node("Sub", [high, low]);

  // Pitch: generalised autocorrelation at logarithmically spaced lags.
  const lowPower = g.node("Slice", [power, g.integers([0]), g.integers([pitchBins]), g.integers([1])]);
  const magnitude = g.node("Sqrt", [g.node("Add", [lowPower, g.constant([1], [1e-12])])]);
  const taper = Float64Array.from(
    { length: pitchBins },
    (_, k) => 0.5 + 0.5 * cos((Math.PI * k) / pitchBins),
  );
  const cosines = new Float64Array(lags * pitchBins);
  for (let l = 0; l < lags; l++) {
    for (let k = 0; k < pitchBins; k++) {
      const turns = (k + 1) * binHz * pitchLag(l);
      cosines[l * pitchBins + k] = grid((taper[k] as number) * cos(TAU * (turns - Math.floor(turns))));
    }
  }
  const numerator = map(magnitude, lags, pitchBins, cosines);
  const denominator = map(magnitude, 1, pitchBins, taper.map(grid));
  const r = g.node("Div", [numerator, denominator]); // [1,lags,F]
  const bands = g.node("Squeeze", [
    g.node("MaxPool", [g.node("Unsqueeze", [r, g.integers([1])])], {
      kernel_shape: [lags / pitchBands, 1],
      strides: [lags / pitchBands, 1],
    }),
    g.integers([1]),
  ]);
  const voicing = g.node("ReduceMax", [r], { axes: [1], keepdims: 1 });
  const focus = g.node("Softmax", [g.node("Mul", [r, g.constant([1], [24])])], { axis: 1 });
  const octaves = Float64Array.from({ length: lags }, (_, l) => grid(ln(1 / (200 * pitchLag(l))) / ln(2)));
  const pitch = map(focus, 1, lags, octaves);

  // Everything over time repeats the first and last frame at the edges.
  const edge = (value: string, before: number, after: number): string =>
    g.node("Pad", [value, g.integers([0, 0, before, 0, 0, after])], { mode: "edge" });
  const hann = Float64Array.from(
    { length: modulationTaps },
    (_, i) => 0.5 - 0.5 * cos((TAU * (i + 0.5)) / modulationTaps),
  );
  const hannSum = hann.reduce((a, b) => a + b, 0);
  const modulation = new Float64Array(2 * modulations.length * modulationTaps);
  modulations.forEach((mu, j) => {
    for (const [part, wave_] of [cos, sin].entries()) {
      const row = Float64Array.from({ length: modulationTaps }, (_, i) => {
        const phase = (TAU * mu * (i - (modulationTaps - 1) / 2)) / (sampleRate / hop);
        return ((hann[i] as number) / hannSum) * wave_(phase);
      });
      const mean = row.reduce((a, b) => a + b, 0) / hannSum; // no response to a constant level
      row.forEach((v, i) => {
        modulation[(part * modulations.length + j) * modulationTaps + i] = grid(
          2 * (v - mean * (hann[i] as number)),
        );
      });
    }
  });
  const swing = g.node(
    "Conv",
    [
      edge(energy, modulationTaps / 2, modulationTaps / 2 - 1),
      g.constant([2 * modulations.length, 1, modulationTaps], modulation),
    ],
    { kernel_shape: [modulationTaps] },
  );
  const swingPairs = g.node("Reshape", [
    g.node("Mul", [swing, swing]),
    g.integers([1, 2, modulations.length, -1]),
  ]);
  const rates = g.node("Sqrt", [
    g.node("Add", [
      g.node("ReduceSum", [swingPairs, g.integers([1])], { keepdims: 0 }),
      g.constant([1], [1e-9]),
    ]),
  ]);
  const delta = (value: string, channels: number): string =>
    g.node(
      "Conv",
      [
        edge(value, 1, 1),
        g.constant([channels, 1, 3], Array.from({ length: channels }, () => [-0.5, 0, 0.5]).flat()),
      ],
      { kernel_shape: [3], group: channels },
    );
  const energyDelta = delta(energy, 1);
  const pitchDelta = delta(pitch, 1);
  const flux = g.node("ReduceMean", [g.node("Abs", [delta(mel, mels)])], { axes: [1], keepdims: 1 });

  const all = g.node(
    "Concat",
    [
      mel,
      bands,
      energy,
      pitch,
      voicing,
      rates,
      energyDelta,
      pitchDelta,
      g.node("Abs", [energyDelta]),
      g.node("Abs", [pitchDelta]),
      tilt,
      flux,
    ],
    { axis: 1 },
  );
  const perFrame = LOGMEL.frame / hop;
  const pooled = g.node("AveragePool", [all], { kernel_shape: [perFrame], strides: [perFrame] });
  const { offset, scale } = standardisation();
  const centred = g.node("Add", [pooled, g.constant([1, LOGMEL.dim, 1], offset)]);
  const scaled = g.node("Mul", [centred, g.constant([1, LOGMEL.dim, 1], scale)]);
  const rows = g.node("Transpose", [scaled], { perm: [0, 2, 1] });
  g.node("Squeeze", [rows, g.integers([0])], {}, "features");
  g.output("features", ["frames", LOGMEL.dim]);
  return g.bytes();
}
