/**
 * Makes recorded calls again on the emulated device, under a sanitizer as a rule: node --import tsx test/cuda/replay.ts <calls>.
 * Prints JSON: calls whose results have other bits, and kernels with the most blocks that each ran on.
 */
import type { TypedArray } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/index.ts";
import { callsIn, launchesOf } from "./recorded.ts";

const addon = loadAddon();
const kernels = new Map<string, number>();
const wrong: string[] = [];
const bytes = (data: TypedArray) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

for (const { op, inputs, attributes, want, environment, outputs } of callsIn(process.argv[2] as string).calls) {
  process.env.AFFUSE_CUDA_UNALIGNED = environment.AFFUSE_CUDA_UNALIGNED ?? "0";
  const made = launchesOf(() => addon.call("emulated", op, inputs, attributes, want));
  for (const [at, blocks] of made.kernels) kernels.set(at, Math.max(kernels.get(at) ?? 0, blocks));
  outputs.forEach((expected, k) => {
    const got = made.value[k]?.data;
    if (expected && !(got && bytes(expected).equals(bytes(got))))
      wrong.push(`${op} of ${inputs.map((input) => input && `[${input.shape}]`).join(" ")}, output ${k}`);
  });
}
console.log(JSON.stringify({ wrong, kernels: [...kernels] }));
