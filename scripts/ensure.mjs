// Makes a checkout runnable: dependencies, the addon, the compiled TypeScript, each only if it is missing or older than its
// sources. Run before `npm run demo` and `npm test`; needs nothing but Node. Quick when there is nothing to do.
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";
import { installSources, isFresh, nativeSources, typescriptSources, withLock } from "./stamps.mjs";

const at = (...parts) => path.join(packageRoot, ...parts);

function run(title, command, args, env = {}) {
  console.error(`ensure: ${title}`);
  const started = Date.now();
  const { status, error } = spawnSync(command, args, {
    cwd: packageRoot,
    // Results of the command that follows go to standard output; building is not one.
    stdio: ["ignore", 2, 2],
    env: { ...process.env, ...env },
  });
  if (error || status !== 0) {
    console.error(`ensure: ${title} failed${error ? ` (${error.message})` : ""}. The messages above say why.`);
    process.exit(1);
  }
  console.error(`ensure: ${title}: ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

const installed = at("node_modules", ".package-lock.json"); // npm writes it last
const installedStamp = at("node_modules", ".affuse-installed");
const addon = at("build", "Release", "affuse.node");
const compiled = at("dist", "cjs", "index.cjs"); // what build-ts.mjs makes last
const compiledStamp = at("dist", "stamp");

function needs() {
  const packages = !isFresh(installed, installedStamp, installSources());
  const native = !isFresh(addon, `${addon}.stamp`, nativeSources());
  const typescript = !isFresh(compiled, compiledStamp, typescriptSources());
  return { packages, native, typescript, any: packages || native || typescript };
}

if (Number(process.versions.node.split(".")[0]) < 20) {
  console.error(`ensure: affuse needs Node >= 20, this is ${process.version}.`);
  process.exit(1);
}
if (needs().any) {
  await withLock(at(".cache", "ensure.lock"), () => {
    const wanted = needs(); // again: another process may just have done it
    if (wanted.packages) {
      const npm = process.platform === "win32" ? "npm.cmd" : "npm";
      const { hash } = installSources();
      const command = existsSync(at("package-lock.json")) ? "ci" : "install";
      run("installing dependencies", npm, [command, "--no-audit", "--no-fund"], {
        ONNXRUNTIME_NODE_INSTALL: "skip", // its CUDA libraries would be fetched from outside the registry
        AFFUSE_SKIP_INSTALL_BUILD: "1", // built below, where its messages can be seen
      });
      writeFileSync(installedStamp, hash);
    }
    if (wanted.native) {
      run("building the addon", process.execPath, [at("scripts", "build-native.mjs")]);
    }
    if (wanted.typescript) {
      const { hash } = typescriptSources();
      run("compiling TypeScript", process.execPath, [at("scripts", "build-ts.mjs")]);
      writeFileSync(compiledStamp, hash);
    }
  });
}
