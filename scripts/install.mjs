// npm's install script. A prebuilt platform package: nothing to do. A source checkout: build. Otherwise end quietly, so that
// `require` can say exactly what was tried and which command repairs it. Never downloads anything.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";

function prebuilt() {
  try {
    createRequire(path.join(packageRoot, "package.json")).resolve(`@affuse/${process.platform}-${process.arch}/affuse.node`);
    return true;
  } catch {
    return false;
  }
}

// The lock file is not part of the published package, so it tells a checkout from an installed copy.
const checkout = existsSync(path.join(packageRoot, "CMakeLists.txt")) && existsSync(path.join(packageRoot, "package-lock.json"));

if (process.env.AFFUSE_SKIP_INSTALL_BUILD !== "1" && checkout && !prebuilt()) {
  const { isFresh, nativeSources } = await import("./stamps.mjs");
  const addon = path.join(packageRoot, "build/Release/affuse.node");
  if (!isFresh(addon, `${addon}.stamp`, nativeSources())) {
    const { status } = spawnSync(process.execPath, [path.join(packageRoot, "scripts/build-native.mjs")], { stdio: "inherit" });
    if (status !== 0) {
      console.error("affuse: the addon could not be built; the messages above say why. Repair that, then run: npm run build:native");
      process.exit(1);
    }
  }
}
