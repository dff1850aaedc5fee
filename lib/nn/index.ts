export { Builder } from "./builder.ts";
export { jointDecoding, type LossConfig, multiTaskLoss, type MultiTaskLoss } from "./heads.ts";
export {
  type Activation,
  afgGather,
  concat,
  dropout,
  fbp,
  type FbpConfig,
  type Gathered,
  type GatherInput,
  linear,
  mlp,
  ratioGather,
  scaleRows,
  stack,
  weightedSum,
} from "./layers.ts";
export { conv2d, lrn, type Maps, maxPool2d } from "./maps.ts";
