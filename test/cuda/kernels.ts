/** Names of the kernels in a device library, and of all that there are (kernels/cuda_budgets.txt). */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "#root";

export interface Kernel {
  /** As in kernels/cuda_budgets.txt: room and kernel. */
  name: string;
  /** In a header with all that it is made of: the rooms that include it share one. All of nvcc's, whose files tell no room. */
  shared: boolean;
}

/** As cmake/cuda_budgets.cmake does. */
const short = (symbol: string) =>
  symbol
    .replace(/affuse::cuda::|\(anonymous namespace\)::|^void /g, "")
    .replace(/\([^()]*(\([^()]*\)[^()]*)*\)$/, "");

/** Functions of a library by their place in it (hexadecimal, as AFFUSE_CUDA_LAUNCHES has them). */
export function functionsOf(library: string): Map<string, Kernel> {
  const options = { maxBuffer: 1 << 28, encoding: "utf8" } as const;
  const table = execFileSync("readelf", ["-sW", library], options);
  const found = new Map<string, Kernel>();
  let room = "";
  for (const line of execFileSync("c++filt", { ...options, input: table }).split("\n")) {
    const [, at, type, symbol = ""] = line.match(/^\s*\d+: 0*([0-9a-f]+) +\d+ (\w+) +LOCAL +\w+ +\w+ (.*)$/) ?? [];
    if (type === "FILE") room = symbol.match(/^(?:kernels|native)_(.*)_\w+\.cu\.cc$/)?.[1] ?? "any";
    if (type === "FUNC" && at)
      found.set(at, {
        name: `${room} ${short(symbol)}`,
        shared: room === "any" || !symbol.includes("(anonymous namespace)"),
      });
  }
  return found;
}

/** One block whatever the sizes, or one for up to 256 items of a batch. */
const ONE_BLOCK = /\b(sum_finish<|sum_counts|add_tasks|task_gradients|WindowWidths)/;

/** All kernels that there are: rooms and names. */
export function kernels(): string[] {
  const budgets = readFileSync(path.join(packageRoot, "kernels/cuda_budgets.txt"), "utf8");
  const all = budgets
    .split("\n")
    .filter((line) => line.startsWith("sm_80 "))
    .map((line) => line.split(" ").slice(3).join(" "))
    .filter((name) => name !== "backend probe"); // asks a device, not the emulator
  if (all.length < 300) throw new Error(`kernels/cuda_budgets.txt names ${all.length} kernels`);
  return all;
}

/** What has not been launched on several blocks. */
export function notLaunched(launched: Iterable<[Kernel, number]>): string[] {
  const names = new Set<string>();
  for (const [{ name, shared }, blocks] of launched) {
    if (blocks < 2 && !ONE_BLOCK.test(name)) continue;
    names.add(name);
    if (shared) names.add(name.replace(/^\w+ /, "")); // the linker keeps one room's callers of it
  }
  return kernels().filter((name) => !names.has(name) && !names.has(name.replace(/^\w+ /, "")));
}
