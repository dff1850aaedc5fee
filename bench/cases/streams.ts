/** Every other operator, forward and with its gradients: rows, maps, elementwise, losses, the optimiser. Memory bounds most. */
import type { OperatorCase, TensorSpec } from "../types.ts";
import { batch, operator, stream, weight } from "./build.ts";

const N = 1 << 22;
const flat = (more: Partial<TensorSpec> = {}) => batch([N], more);
const whole = (shape: number[], more: Partial<TensorSpec> = {}): TensorSpec => ({
  shape,
  role: "whole",
  ...more,
});
/** Parameters, their gradients, and the moments of those. */
const PARAMETERS = 1 << 21;
const OPTIMISED: OperatorCase["tensors"] = {
  p: batch([PARAMETERS]),
  g: batch([PARAMETERS]),
  m: batch([PARAMETERS], { scale: 0.1 }),
  v: batch([PARAMETERS], { positive: true, scale: 0.01 }),
};
const rows = (R: number, C: number) => batch([R, C]);
/** The map behind the FCN's first convolution, and behind its pool (spec 2.2). */
const MAP = { nchw: [8, 96, 48, 123], nhwc: [8, 48, 123, 96] };
const POOLED = [8, 96, 23, 61];

export const STREAM_CASES: OperatorCase[] = [
  // --- rows and frames
  stream(
    "layer_norm",
    { R: 6400, C: 1024 },
    { x: batch([6400, 1024]), gamma: weight([1024]), beta: weight([1024]) },
    "copy.dram",
  ),
  stream(
    "layer_norm",
    { R: 6400, C: 1024 },
    { x: batch([6400, 1024]), gamma: weight([1024]), beta: weight([1024]), dy: batch([6400, 1024]) },
    "copy.dram",
    { gradients: ["dx", "dgamma", "dbeta"] },
  ),
  stream(
    "ratio_attention",
    { B: 32, T: 200, D: 1024 },
    { x: batch([32, 200, 1024]), q: weight([1024]), beta: weight([1]) },
    "read.dram",
  ),
  stream(
    "ratio_attention",
    { B: 32, T: 200, D: 1024 },
    { x: batch([32, 200, 1024]), q: weight([1024]), beta: weight([1]), dc: batch([32, 1024]) },
    "copy.dram",
    { gradients: ["dx", "dq", "dbeta"] },
  ),
  stream("softmax", { R: 6400, C: 1000 }, { x: batch([6400, 1000]) }, "copy.dram", {
    peers: { ort: true, torch: true },
  }),
  stream("max_pool2d", { B: 8, C: 96, H: 48, W: 123, size: 3 }, { x: batch(MAP.nchw) }, "read.dram", {
    attributes: { size: 3, stride: 2 },
    peers: { ort: true, torch: true },
  }),
  ...(["nchw", "nhwc"] as const).map((layout) =>
    stream("lrn", { B: 8, C: 96, H: 48, W: 123, layout }, { x: batch(MAP[layout]) }, "copy.dram", {
      attributes: { layout },
      // As the FCN runs it: in native buffers, which have pages as large as the roof's.
      ...(layout === "nhwc" && { via: "program" }),
      peers: layout === "nchw" ? { ort: true, torch: true } : {},
      tags: ["targets"],
    }),
  ),
  stream("lrn", { B: 1, C: 96, H: 20, W: 20, layout: "nhwc" }, { x: batch([1, 20, 20, 96]) }, "read.l2", {
    attributes: { layout: "nhwc" },
    via: "program",
    residency: "cached",
    peers: {},
    note: "without memory's part",
  }),
  stream(
    "softmax_cross_entropy",
    { B: 4096, C: 6 },
    { logits: { shape: [4096, 6], role: "whole" }, labels: { shape: [4096], role: "whole", range: [0, 5] } },
    "read.dram",
    { residency: "cached" },
  ),
  // --- elementwise: through DRAM
  stream("activation", { N, kind: "gelu" }, { x: flat() }, "copy.dram", {
    attributes: { activation: "gelu" },
  }),
  stream("activation", { N, kind: "tanh" }, { x: flat() }, "copy.dram", {
    attributes: { activation: "tanh" },
    tags: ["quick"],
  }),
  stream("dropout", { N }, { x: flat() }, "copy.dram", {
    attributes: { p: 0.3, seed: 7 },
    tags: ["targets"],
    note: "PyTorch's masks are other random numbers",
  }),
  stream("add", { N }, { a: flat(), b: flat() }, "copy.dram"),
  stream("mul", { N }, { a: flat(), b: flat() }, "copy.dram"),
  // As training runs it: over one flat native buffer, in place. Its sister `adam` below is called on typed arrays.
  stream("adamw", { N: PARAMETERS }, OPTIMISED, "update.dram", {
    via: "program",
    inPlace: true,
    tags: ["targets", "quick"],
  }),
  stream("grad_norm", { N }, { g: { shape: [N], role: "whole" } }, "read.dram"),
  // --- gradients and the rest, at sizes of the models
  stream("softmax", { R: 6400, C: 1000 }, { x: rows(6400, 1000), dy: rows(6400, 1000) }, "copy.dram", {
    gradients: ["dx"],
  }),
  stream(
    "weighted_sum",
    { B: 1024, J: 4, D: 1024 },
    { x: batch([1024, 4, 1024]), w: batch([1024, 4]) },
    "read.dram",
  ),
  stream(
    "weighted_sum",
    { B: 1024, J: 4, D: 1024 },
    { x: batch([1024, 4, 1024]), w: batch([1024, 4]), dy: rows(1024, 1024) },
    "copy.dram",
    { gradients: ["dx", "dw"] },
  ),
  stream("concat", { R: 4096, C: "512+512" }, { x0: rows(4096, 512), x1: rows(4096, 512) }, "copy.dram", {
    attributes: { axis: -1 },
  }),
  stream(
    "concat",
    { R: 4096, C: "512+512" },
    { x0: rows(4096, 512), x1: rows(4096, 512), dy: rows(4096, 1024) },
    "copy.dram",
    {
      attributes: { axis: -1 },
      gradients: ["dx0", "dx1"],
      note: "PyTorch's gradients are views of dy, ours are copies",
    },
  ),
  stream("transpose", { B: 32, T: 200, D: 1024 }, { x: batch([32, 200, 1024]) }, "copy.dram"),
  stream(
    "transpose",
    { B: 32, T: 200, D: 1024 },
    { x: batch([32, 200, 1024]), dy: batch([32, 1024, 200]) },
    "copy.dram",
    { gradients: ["dx"] },
  ),
  operator(
    "conv2d",
    { B: 8, C: 96, H: 23, W: 60, O: 256, k: 5 },
    {
      x: batch([8, 96, 23, 60]),
      W: weight([256, 96, 5, 5], 0.02),
      b: weight([256], 1),
      dy: batch([8, 256, 23, 60]),
    },
    { attributes: { stride: 1, pad: 2 }, gradients: ["dx", "dW", "db"], peers: { torch: true } },
  ),
  stream(
    "max_pool2d",
    { B: 8, C: 96, H: 48, W: 123, size: 3 },
    { x: batch(MAP.nchw), dy: batch(POOLED) },
    "copy.dram",
    { attributes: { size: 3, stride: 2 }, gradients: ["dx"] },
  ),
  stream("avg_pool2d", { B: 8, C: 96, H: 48, W: 123, size: 3 }, { x: batch(MAP.nchw) }, "read.dram", {
    attributes: { size: 3, stride: 2 },
  }),
  stream(
    "avg_pool2d",
    { B: 8, C: 96, H: 48, W: 123, size: 3 },
    { x: batch(MAP.nchw), dy: batch(POOLED) },
    "copy.dram",
    { attributes: { size: 3, stride: 2 }, gradients: ["dx"] },
  ),
  ...(["nchw", "nhwc"] as const).map((layout) =>
    stream(
      "lrn",
      { B: 8, C: 96, H: 48, W: 123, layout },
      { x: batch(MAP[layout]), dy: batch(MAP[layout]) },
      "copy.dram",
      { attributes: { layout }, gradients: ["dx"], peers: { torch: layout === "nchw" } },
    ),
  ),
  stream(
    "lrn",
    { B: 8, C: 96, H: 48, W: 123, alpha: 1, layout: "nhwc" },
    { x: batch(MAP.nhwc) },
    "copy.dram",
    {
      attributes: { layout: "nhwc", alpha: 1 },
      via: "program",
      peers: {},
      note: "no sum is small beside k / alpha",
    },
  ),
  stream(
    "softmax_cross_entropy",
    { B: 4096, C: 6 },
    { logits: whole([4096, 6]), labels: whole([4096], { range: [0, 5] }), dloss: whole([1]) },
    "read.dram",
    { residency: "cached", gradients: ["dlogits"], peers: {} },
  ),
  stream(
    "masked_mse",
    { N: 1 << 20 },
    { prediction: whole([1 << 20]), target: whole([1 << 20]) },
    "read.dram",
    {
      peers: {},
    },
  ),
  stream(
    "masked_mse",
    { N: 1 << 20 },
    { prediction: whole([1 << 20]), target: whole([1 << 20]), dloss: whole([1]) },
    "read.dram",
    { gradients: ["dprediction"], peers: {} },
  ),
  ...[{}, { gradients: ["dce", "dmse", "ds_e", "ds_v"] }].map((gradients) =>
    stream(
      "uncertainty_loss",
      { losses: 2 },
      {
        ...Object.fromEntries(["ce", "mse", "s_e", "s_v"].map((name) => [name, whole([1])])),
        ...(gradients.gradients && { dloss: whole([1]) }),
      },
      "read.l1",
      { ...gradients, residency: "cached", peers: {}, note: "a handful of numbers: the time is the call's" },
    ),
  ),
  stream("activation", { N, kind: "gelu" }, { x: flat(), dy: flat() }, "copy.dram", {
    attributes: { activation: "gelu" },
    gradients: ["dx"],
  }),
  stream("prelu", { N }, { x: flat(), slope: weight([1]) }, "copy.dram"),
  stream("prelu", { N }, { x: flat(), slope: weight([1]), dy: flat() }, "copy.dram", {
    gradients: ["dx", "dslope"],
  }),
  stream("dropout", { N }, { x: flat(), dy: flat() }, "copy.dram", {
    attributes: { p: 0.3, seed: 7 },
    gradients: ["dx"],
    note: "PyTorch's masks are other random numbers, and it keeps them",
  }),
  stream("scale", { N }, { x: flat() }, "copy.dram", { attributes: { factor: 2 } }),
  ...["add", "mul"].map((op) =>
    stream(op, { N }, { a: flat(), b: flat(), dy: flat() }, "copy.dram", {
      gradients: ["da", "db"],
      ...(op === "add" && { note: "PyTorch's gradients are dy itself, ours are copies" }),
    }),
  ),
  // Fresh outputs: clipped in place again and again, gradients would end as nothing.
  stream("clip_by_norm", { N }, { g: flat(), norm: whole([1], { positive: true, scale: 9 }) }, "copy.dram", {
    attributes: { maxNorm: 0.1 },
    via: "program",
    peers: {},
  }),
  stream("adam", { N: PARAMETERS }, OPTIMISED, "update.dram"),
];
