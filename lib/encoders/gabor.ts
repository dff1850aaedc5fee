/**
 * The built-in face encoder: fixed oriented filters, written as an ONNX graph. No weight is learned.
 *
 *     x [T,1,48,48] grey 0 … 1, the face filling the frame
 *     y = (x − mean(x)) / (std(x) + 1/64)                       per frame: light and contrast drop out
 *     e_o, d_o = y ⋆ even and odd Gabor filters, orientation o = 0°, 45°, 90°, 135°, 7×7, wavelength 5 px, σ 1.7 px
 *     E_o = √(e_o² + d_o² + 1e-6)                               energy, over the middle 36×36 pixels
 *     mean of E_o in each cell of a 6×6 grid, brought to about zero mean and unit variance by constants
 *
 * Output `features` [T,144], column o·36 + row·6 + column: which edges lie where, so brows, lids and lips can be read off
 * linearly.
 */
import { cos, exp, sin } from "../data/portable.ts";
import { OnnxGraph } from "./onnx.ts";

/** Sizes that the graph, its manifest and its tests share. */
export const GABOR = {
  size: 48,
  filter: 7,
  wavelength: 5,
  sigma: 1.7,
  orientations: 4,
  /** The middle part that features are taken from. */
  middle: 36,
  grid: 6,
  /** Frames per second. */
  rate: 12.5,
  dim: 144,
} as const;

const grid = (x: number): number => Math.round(x * 32768) / 32768;

/** Even (phase 0) and odd (phase π/2) Gabor filters [2·orientations, size, size], zero mean, Σ|w| = 1; even ones first. */
export function gaborFilters(): Float64Array {
  const { filter, wavelength, sigma, orientations } = GABOR;
  const area = filter * filter;
  const filters = new Float64Array(2 * orientations * area);
  const middle = (filter - 1) / 2;
  for (let index = 0; index < 2 * orientations; index++) {
    const angle = (Math.PI * (index % orientations)) / orientations;
    const row = filters.subarray(index * area, (index + 1) * area);
    const window = new Float64Array(area);
    for (let i = 0; i < area; i++) {
      const x = (i % filter) - middle;
      const y = Math.floor(i / filter) - middle;
      window[i] = exp(-(x * x + y * y) / (2 * sigma * sigma));
      const phase = (2 * Math.PI * (x * cos(angle) + y * sin(angle))) / wavelength;
      row[i] = (window[i] as number) * (index < orientations ? cos(phase) : -sin(phase));
    }
    // Taking the mean off in proportion to the window keeps the filter's edges smooth.
    const mean = row.reduce((a, b) => a + b, 0) / window.reduce((a, b) => a + b, 0);
    row.forEach((v, i) => {
      row[i] = v - mean * (window[i] as number);
    });
    const norm = row.reduce((a, b) => a + Math.abs(b), 0);
    row.forEach((v, i) => {
      row[i] = grid(v / norm);
    });
  }
  return filters;
}

/** The ONNX bytes of the encoder: input `frames` [T,1,48,48]; output `features` [T,144]. */
export function buildGabor(): Uint8Array {
  const { size, filter, orientations, middle, grid: cells, dim } = GABOR;
  const g = new OnnxGraph("affuse-gabor-face");
  const x = g.input("frames", ["frames", 1, size, size]);
  const mean = g.node("ReduceMean", [x], { axes: [1, 2, 3], keepdims: 1 });
  const centred = g.node("Sub", [x, mean]);
  const variance = g.node("ReduceMean", [g.node("Mul", [centred, centred])], {
    axes: [1, 2, 3],
    keepdims: 1,
  });
  const deviation = g.node("Add", [g.node("Sqrt", [variance]), g.constant([1], [1 / 64])]);
  const normal = g.node("Div", [centred, deviation]);
  // The convolution is valid, so its input is the middle part plus the filters' reach.
  const margin = (size - middle - (filter - 1)) / 2;
  const part = g.node("Slice", [
    normal,
    g.integers([margin, margin]),
    g.integers([size - margin, size - margin]),
    g.integers([2, 3]),
  ]);
  const responses = g.node(
    "Conv",
    [part, g.constant([2 * orientations, 1, filter, filter], gaborFilters())],
    {
      kernel_shape: [filter, filter],
    },
  );
  const squares = g.node("Reshape", [
    g.node("Mul", [responses, responses]),
    g.integers([-1, 2, orientations, middle, middle]),
  ]);
  const sum = g.node("ReduceSum", [squares, g.integers([1])], { keepdims: 0 });
  const energy = g.node("Sqrt", [g.node("Add", [sum, g.constant([1], [1e-6])])]);
  const cell = middle / cells;
  const pooled = g.node("AveragePool", [energy], { kernel_shape: [cell, cell], strides: [cell, cell] });
  const flat = g.node("Reshape", [pooled, g.integers([-1, dim])]);
  const shifted = g.node("Sub", [flat, g.constant([1], [0.2])]);
  g.node("Mul", [shifted, g.constant([1], [8])], {}, "features");
  g.output("features", ["frames", dim]);
  return g.bytes();
}
