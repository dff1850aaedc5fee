// Builds the CUDA kernels for the emulator (kernels/common/cuda): build/Release/libaffuse_emulated.so, where device
// "emulated" finds it, or with a sanitizer build/emulated-<sanitizer>/libaffuse_emulated.so.
//
//   node scripts/build-emulated.mjs [--sanitize address|thread] [--if-stale] [--jobs N]
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../lib/root/root.mjs";
import { isFresh, nativeSources, withLock } from "./stamps.mjs";

const { values } = parseArgs({ options: { sanitize: { type: "string" }, "if-stale": { type: "boolean" }, jobs: { type: "string" } } });
const { sanitize, jobs = String(availableParallelism()) } = values;
if (sanitize !== undefined && sanitize !== "address" && sanitize !== "thread") {
  console.error(`build-emulated: expected --sanitize address or thread, got "${sanitize}"`);
  process.exit(2);
}
const folder = path.join(packageRoot, `build-emulated${sanitize ? `-${sanitize}` : ""}`);
const out = path.join(packageRoot, sanitize ? `build/emulated-${sanitize}` : "build/Release", "libaffuse_emulated.so");

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", 2, 2] });
  if (error || status !== 0) {
    console.error(`build-emulated: ${command} ${args[0]} failed${error ? `: ${error.message}` : "; the messages above say why"}.`);
    process.exit(1);
  }
}

await withLock(`${folder}.lock`, () => {
  const sources = nativeSources();
  if (values["if-stale"] && isFresh(out, `${out}.stamp`, sources)) return;
  const { hash } = sources;
  mkdirSync(folder, { recursive: true });
  run("cmake", ["-S", packageRoot, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DAFFUSE_ADDON=OFF", "-DAFFUSE_CUDA=off",
    "-DAFFUSE_EMULATED=ON", `-DAFFUSE_SANITIZE=${sanitize ?? ""}`]);
  run("cmake", ["--build", folder, "--target", "affuse_emulated", "--parallel", jobs]);
  mkdirSync(path.dirname(out), { recursive: true });
  copyFileSync(path.join(folder, "addon/libaffuse_emulated.so"), `${out}.${process.pid}.new`);
  renameSync(`${out}.${process.pid}.new`, out);
  writeFileSync(`${out}.stamp`, hash);
  console.error(`build-emulated: ${path.relative(process.cwd(), out) || out}`);
});
