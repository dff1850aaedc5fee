/** Finds and loads the compiled addon. Nothing is loaded before the first call. */
import { existsSync } from "node:fs";
import path from "node:path";
import { packageRoot, requireFromRoot } from "#root";
import { AffuseError, isAffuseError } from "../errors.ts";
import type { NativeAddon } from "./addon.ts";

/** One place where the addon may be, and what came of trying it. */
export interface LoadAttempt {
  /** "prebuilt package", "cmake-js or npm run build", … */
  origin: string;
  /** Absolute path, or the package's name. */
  file: string;
  /** Null: this one was loaded. */
  reason: string | null;
  /** "absent" | "loaded" | "wrong-architecture" | "missing-library" | "old-libc" | "abi" | "unusable" */
  outcome: LoadOutcome;
}

export type LoadOutcome =
  | "absent"
  | "loaded"
  | "wrong-architecture"
  | "missing-library"
  | "old-libc"
  | "abi"
  | "unusable";

interface Candidate {
  origin: string;
  file: string;
}

/** Where the addon may be, in the order of preference. Whoever names one with AFFUSE_ADDON wants no other. */
function candidates(): Candidate[] {
  const named = process.env.AFFUSE_ADDON;
  if (named) return [{ origin: "AFFUSE_ADDON", file: path.resolve(named) }];
  const platform = `@affuse/${process.platform}-${process.arch}`;
  const list: Candidate[] = [];
  let prebuilt = platform;
  try {
    prebuilt = requireFromRoot.resolve(`${platform}/affuse.node`);
  } catch {
    // Not installed: reported under its name.
  }
  list.push({ origin: "prebuilt package", file: prebuilt });
  list.push({ origin: "built from source", file: path.join(packageRoot, "build", "Release", "affuse.node") });
  list.push({ origin: "CMake's own folder", file: path.join(packageRoot, "build-cmake", "addon", "affuse.node") });
  return list;
}

function classify(message: string): LoadOutcome {
  if (/wrong ELF class|invalid ELF header|incompatible architecture|not a valid Win32|Exec format/i.test(message)) {
    return "wrong-architecture";
  }
  if (/version [`'"]?(GLIBC|GLIBCXX|CXXABI)_[\d.]+.? not found/i.test(message)) return "old-libc";
  if (/cannot open shared object file|Library not loaded/i.test(message)) return "missing-library";
  if (/NODE_MODULE_VERSION|undefined symbol: napi_|Module did not self-register/i.test(message)) return "abi";
  return "unusable";
}

function attempt({ origin, file }: Candidate): { attempt: LoadAttempt; addon: NativeAddon | null } {
  const failed = (outcome: LoadOutcome, reason: string) => ({ attempt: { origin, file, reason, outcome }, addon: null });
  if (!path.isAbsolute(file)) return failed("absent", "the package is not installed");
  if (!existsSync(file)) return failed("absent", "the file does not exist");
  if (!file.endsWith(".node")) return failed("unusable", "its name does not end in .node"); // it would be run as JavaScript
  try {
    const addon = requireFromRoot(file) as NativeAddon;
    if (typeof addon.createProgram !== "function") return failed("unusable", "it is not an affuse addon");
    return { attempt: { origin, file, reason: null, outcome: "loaded" }, addon };
  } catch (error) {
    if (isAffuseError(error)) throw error; // it loads, and says itself what it cannot do
    const reason = (error as Error).message.split("\n")[0] as string;
    return failed(classify(reason), reason);
  }
}

/** True in a checkout with the sources to build from. */
function hasSources(): boolean {
  return existsSync(path.join(packageRoot, "CMakeLists.txt")) && existsSync(path.join(packageRoot, "scripts", "build-native.mjs"));
}

/** The one command that repairs what the attempts show. */
function remedy(attempts: readonly LoadAttempt[]): string {
  if (attempts[0]?.origin === "AFFUSE_ADDON") return "Let AFFUSE_ADDON name a built affuse.node, or unset it.";
  const build = hasSources() ? `Run: npm run build:native (in ${packageRoot})` : "Run: npm install --force affuse";
  const broken = attempts.find(({ outcome }) => outcome !== "absent");
  if (!broken) return `It has not been built for ${process.platform}-${process.arch}. ${build}`;
  const again = hasSources() ? `Build it on this machine: npm run build:native (in ${packageRoot})` : build;
  switch (broken.outcome) {
    case "wrong-architecture":
      return `The file is for another machine than ${process.platform}-${process.arch}. ${again}`;
    case "old-libc":
      return `The file was built for a newer system library than this machine's. ${again}`;
    case "abi":
      return `The file was built for another Node (this is ${process.version}, Node-API ${process.versions.napi}). ${again}`;
    default:
      return again;
  }
}

let loaded: NativeAddon | null = null;
let last: LoadAttempt[] = [];

/** Tries every candidate until one loads. Never throws for a missing build; `affuse doctor` prints the result. */
export function tryLoadAddon(): { addon: NativeAddon | null; attempts: LoadAttempt[] } {
  if (loaded) return { addon: loaded, attempts: last };
  const attempts: LoadAttempt[] = [];
  for (const candidate of candidates()) {
    const result = attempt(candidate);
    attempts.push(result.attempt);
    if (result.addon) {
      loaded = result.addon;
      break;
    }
  }
  last = attempts;
  return { addon: loaded, attempts };
}

/**
 * The compiled addon: the file named by AFFUSE_ADDON and no other, or the first of the prebuilt package
 * `@affuse/<platform>-<arch>`, `build/Release/affuse.node`, `build-cmake/addon/affuse.node`.
 * @throws AffuseError ERR_AFFUSE_NOT_BUILT with every attempt, its reason and the command that repairs it;
 *   ERR_AFFUSE_CPU or ERR_AFFUSE_THREADS from the first operator call when AFFUSE_CPU or AFFUSE_THREADS cannot be obeyed
 */
export function loadAddon(): NativeAddon {
  if (loaded) return loaded;
  const { addon, attempts } = tryLoadAddon();
  if (addon) return addon;
  const tried = attempts.map(({ origin, file, reason }) => `  - ${origin}: ${file}: ${reason}`).join("\n");
  throw new AffuseError("ERR_AFFUSE_NOT_BUILT", `expected the compiled part of affuse, found none. Tried:\n${tried}\n`, remedy(attempts));
}
