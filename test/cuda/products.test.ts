// Products of matrices on a device, with sizes that lead through every tile, layout and split of kernels/gemm/cuda.cu and every
// fused kernel of kernels/fbp/cuda.cu: on whole numbers all sums are exact, so that device and CPU must agree bit for bit.
import { test } from "uvu";
import { PRECISIONS } from "../../lib/graph/precision.ts";
import { agree, agreeFbp, whole } from "./agree.ts";
import { ensureDevice, ported } from "./device.ts";

ensureDevice();


// Rows, features, outputs; the emulator has two multiprocessors.
const LINEAR = [
  [256, 120, 130], // 128 x 128 in all three layouts
  [257, 121, 131], // with lines at odd addresses
  [5, 300, 256], // 16 x 128
  [3, 600, 128], // 16 x 128, K in pieces
  [3, 2100, 128], // K in pieces with bf16
  [40, 700, 60], // 64 x 64, K of the forward in pieces
  [41, 61, 701], // of dx
  [700, 60, 33], // of dW
  [40, 2101, 60], // of the forward with bf16
  [2101, 20, 12], // of dW with bf16
  [1, 1, 1],
] as const;

for (const precision of PRECISIONS)
  (ported().has("linear") ? test : test.skip)(`linear ${precision}`, () => {
    for (const [R, D, O] of LINEAR) {
      const label = `${R} x ${D} to ${O} ${precision}`;
      const [x, W, b, dy] = [whole([R, D], 4), whole([O, D], 4), whole([O], 8), whole([R, O], 4)];
      agree(label, "linear", [x, W, b], { precision, activation: "relu" }, [true, true]);
      agree(label, "linear.backward", [x, W, b, null, null, dy], { precision }, [true, true, true]);
    }
  });

// Rows of v, columns of a and v, outputs, factors, rows per group.
const FBP = [
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((k) => [130, 20, 33, 20, k, 1] as const), // fused, two tiles of rows
  [140, 9, 12, 33, 4, 2], // fused, rows of a projected once
  [40, 16, 64, 40, 5, 1], // fused, few rows; two products with bf16
  [3, 300, 310, 16, 5, 1], // two products
  [6, 7, 5, 3, 11, 2], // more factors than fused kernels have
  [140, 5, 6, 3, 2, 70], // a group in slices
] as const;

for (const precision of PRECISIONS)
  (ported().has("fbp") ? test : test.skip)(`fbp ${precision}`, () => {
    FBP.forEach(([B, m, n, o, k, rowsPerGroup], i) => {
      const rows = precision === "bf16" && B > 100 ? 2 * B : B; // up to 256 two products are quicker
      agreeFbp([rows, m, n, o, k, rowsPerGroup], precision, i % 2 ? 0.5 : 0);
    });
  });

// Items, channels, height, width; outputs, kernel height and width; stride, pad.
const CONV = [
  [[2, 20, 12, 13], [72, 2, 2], [1, 0]], // 128 x 128 in the forward and in dW, 64 x 64 in dx
  [[2, 72, 9, 16], [68, 2, 2], [1, 1]], // 128 x 128 in dx too
  [[1, 67, 13, 21], [71, 2, 1], [1, 1]], // the same at odd addresses
  [[1, 68, 26, 25], [5, 3, 2], [2, 1]], // dx of four phases
] as const;

for (const precision of PRECISIONS)
  (ported().has("conv2d") ? test : test.skip)(`conv2d ${precision}`, () => {
    CONV.forEach(([[B, C, H, W], [O, kh, kw], [stride, pad]], i) => {
      const layout = i % 2 ? "nchw" : "nhwc";
      const map = (c: number, h: number, w: number) => (layout === "nhwc" ? [B, h, w, c] : [B, c, h, w]);
      const out = (n: number, k: number) => Math.floor((n + 2 * pad - k) / stride) + 1;
      const attributes = { stride, pad, layout, precision };
      const [x, weights, b] = [whole(map(C, H, W), 4), whole([O, C, kh, kw], 4), whole([O], 8)];
      const dy = whole(map(O, out(H, kh), out(W, kw)), 4);
      const label = `${layout} [${B}, ${C}, ${H}, ${W}] to ${O} by ${kh}x${kw} stride ${stride} pad ${pad} ${precision}`;
      agree(label, "conv2d", [x, weights, b, null], attributes, [true, false]);
      agree(label, "conv2d.backward", [x, weights, b, null, null, dy], attributes, [true, true, true]);
    });
  });

test.run();
