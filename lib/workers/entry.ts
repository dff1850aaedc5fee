/**
 * Starting worker threads and child processes of this package, whether it runs built (dist/esm) or from its TypeScript
 * sources under tsx, as the tests do.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";
import { packageRoot, requireFromRoot } from "#root";
import { AffuseError } from "../errors.ts";

/** Absolute path of a module of lib/. @param module path under lib without extension, e.g. "encoders/worker" */
function entryPoint(module: string): { file: string; source: boolean } {
  const source = path.join(packageRoot, "lib", `${module}.ts`);
  // Run from sources, tsx is among Node's own arguments.
  if (process.execArgv.some((argument) => /\btsx\b/.test(argument)) && existsSync(source)) return { file: source, source: true };
  const built = path.join(packageRoot, "dist", "esm", "lib", `${module}.js`);
  if (!existsSync(built)) {
    throw new AffuseError("ERR_AFFUSE_NOT_BUILT", `${built} does not exist.`, `Run: npm run ensure (in ${packageRoot})`);
  }
  return { file: built, source: false };
}

/** Starts a module of lib/ as a worker thread. @throws ERR_AFFUSE_NOT_BUILT */
export function startWorker(module: string, options: WorkerOptions = {}): Worker {
  const { file, source } = entryPoint(module);
  if (!source) return new Worker(file, options);
  // Node 20 does not hand the loader that reads TypeScript on to threads, so the thread registers it first.
  const loader = pathToFileURL(requireFromRoot.resolve("tsx/esm/api").replace(/\.cjs$/, ".mjs")).href;
  const boot = `import(${JSON.stringify(loader)}).then((tsx) => {
    tsx.register();
    return import(${JSON.stringify(pathToFileURL(file).href)});
  });`;
  return new Worker(boot, { ...options, eval: true, execArgv: [] });
}

/**
 * Command line that runs a module of lib/ in a Node process of its own.
 * @param nodeArguments flags for Node, e.g. --max-old-space-size
 * @throws ERR_AFFUSE_NOT_BUILT
 */
export function nodeCommand(module: string, nodeArguments: readonly string[] = []): string[] {
  const { file, source } = entryPoint(module);
  return [process.execPath, ...nodeArguments, ...(source ? process.execArgv : []), file];
}
