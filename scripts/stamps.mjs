// What is built from what: source lists, their hashes and ages, and a lock so that two builds do not meet in one folder.
// Plain Node: runs before anything is installed.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";

/** Every file under `entries` (files or folders, relative to the package), sorted. */
function list(entries) {
  const files = [];
  const visit = (relative) => {
    const stat = statSync(path.join(packageRoot, relative), { throwIfNoEntry: false });
    if (!stat) return;
    if (!stat.isDirectory()) files.push({ relative, mtime: stat.mtimeMs });
    else for (const name of readdirSync(path.join(packageRoot, relative))) visit(path.join(relative, name));
  };
  for (const entry of entries) visit(entry);
  return files.sort((a, b) => (a.relative < b.relative ? -1 : 1));
}

function describe(entries) {
  const files = list(entries);
  return {
    newest: Math.max(0, ...files.map((file) => file.mtime)),
    get hash() {
      const hash = createHash("sha256");
      for (const { relative } of files) hash.update(relative).update("\0").update(readFileSync(path.join(packageRoot, relative)));
      return hash.digest("hex");
    },
  };
}

export const nativeSources = () => describe(["CMakeLists.txt", "cmake", "kernels", "native"]);
export const typescriptSources = () => describe(["lib", "bench", "tsconfig.json", "tsconfig.build.json", "scripts/build-ts.mjs"]);
export const installSources = () => describe(["package-lock.json"]);

/**
 * True when `product` was made from these sources: it is newer than all of them, or the hash written beside it says so
 * (a fresh checkout gives old contents new dates).
 */
export function isFresh(product, stamp, sources) {
  const stat = statSync(product, { throwIfNoEntry: false });
  if (!stat) return false;
  if (stat.mtimeMs > sources.newest) return true;
  try {
    return readFileSync(stamp, "utf8") === sources.hash;
  } catch {
    return false;
  }
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Runs `action` while holding the lock folder; waits for a living holder and takes over from a dead one. */
export async function withLock(lock, action) {
  mkdirSync(path.dirname(lock), { recursive: true });
  for (let told = false; ; ) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    let holder = 0;
    try {
      holder = Number(readFileSync(path.join(lock, "pid"), "utf8"));
    } catch {
      // Made this instant, or left behind before the number was written: old enough counts as left behind.
      const stat = statSync(lock, { throwIfNoEntry: false });
      if (!stat || Date.now() - stat.mtimeMs < 5000) holder = -1;
    }
    if (holder === 0 || (holder > 0 && !alive(holder))) {
      rmSync(lock, { recursive: true, force: true });
      continue;
    }
    if (!told) console.error(`waiting for another build (${path.basename(lock)}${holder > 0 ? `, process ${holder}` : ""})`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const release = () => rmSync(lock, { recursive: true, force: true });
  process.once("exit", release);
  writeFileSync(path.join(lock, "pid"), String(process.pid));
  try {
    return await action();
  } finally {
    release();
    process.removeListener("exit", release);
  }
}
