/**
 * Whether every kernel was launched, by what a library has written (AFFUSE_CUDA_LAUNCHES), for the GPU suite:
 * node launched.mjs <library> <file of launches> …. Names what was not; exit code 1 when anything was not.
 */
import { readFileSync } from "node:fs";
import { functionsOf, type Kernel, kernels, notLaunched } from "./kernels.ts";

const [library, ...files] = process.argv.slice(2);
const known = functionsOf(library as string);
const launched = files.flatMap((file) =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line): [Kernel, number] => {
      const [at, blocks] = line.split(" ") as [string, string];
      const kernel = known.get(at);
      if (!kernel) throw new Error(`expected a function of ${library} at ${at}, which is in ${file}, got none`);
      return [kernel, Number(blocks)];
    }),
);
const missing = notLaunched(launched);
console.log(`${kernels().length - missing.length} of ${kernels().length} kernels were launched on several blocks`);
for (const name of missing) console.log(`never launched: ${name}`);
process.exitCode = missing.length > 0 ? 1 : 0;
