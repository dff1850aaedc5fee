// A training process to be killed: `child.ts DATA OUT`. Trains natively, tells its parent about every step.
import { parseTrainConfig } from "../../lib/train/config.ts";
import { trainRun } from "../../lib/train/run.ts";
import { classes } from "./corpus.ts";

const [data = "", out = ""] = process.argv.slice(2);
const config = parseTrainConfig({
  data,
  classes,
  structures: ["concat"],
  model: { attention: { dim: 8 }, mlp: { widths: [12, 8] }, modalityDropout: 0.2 },
  train: { epochs: 6, batchSize: 8, warmup: 2, folds: 2, seed: 11, patience: null },
  run: { checkpointSteps: 2 },
});
await trainRun(config, {
  out,
  resume: true,
  onEvent: (event) => {
    if (event.type === "step") process.send?.("step");
  },
});
process.disconnect?.();
