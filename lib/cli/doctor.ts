/** `affuse doctor`: what this machine has, what works, and what to do about what does not. */
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { packageRoot, requireFromRoot } from "#root";
import { AffuseError, isAffuseError } from "../errors.ts";
import type { Backend, NativeAddon } from "../native/addon.ts";
import { type LoadAttempt, loadAddon, tryLoadAddon } from "../native/load.ts";
import { print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface OptionalPart {
  name: string;
  /** Null: not there. */
  version: string | null;
  /** What does not work without it. */
  purpose: string;
  advice: string;
}

interface Examined extends Backend {
  /** Its library was built from other sources than there are now; only a checkout can tell, of the emulator's alone. */
  outdated: boolean;
}

interface Report {
  ok: boolean;
  version: string;
  node: { version: string; napi: string | undefined; supported: boolean };
  platform: string;
  addon: { loaded: boolean; attempts: LoadAttempt[]; problem: string | null };
  cpu: ReturnType<NativeAddon["cpu"]> | null;
  operators: number;
  backends: Examined[];
  optional: OptionalPart[];
  advice: string[];
}

/** A package's version without running any of its code; null when it is not installed. */
function packageVersion(name: string): string | null {
  for (const folder of requireFromRoot.resolve.paths(name) ?? []) {
    try {
      const file = path.join(folder, name, "package.json");
      return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    } catch {
      // Not in this folder; the next one up may have it.
    }
  }
  return null;
}

function onPath(tool: string): string | null {
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
    const file = path.join(folder, tool);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Look further.
    }
  }
  return null;
}

function optionalParts(): OptionalPart[] {
  return [
    {
      name: "onnxruntime-node",
      version: packageVersion("onnxruntime-node"),
      purpose: "extract and predict: running ONNX encoders",
      advice: "npm install onnxruntime-node (offline: ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node)",
    },
    {
      name: "node-av",
      version: packageVersion("node-av"),
      purpose: "reading MP4, MKV, AVI, MP3 … and writing MP4",
      advice: "npm install node-av",
    },
    {
      name: "ffmpeg",
      version: onPath("ffmpeg"),
      purpose: "not needed; node-av decodes",
      advice: "",
    },
  ];
}

/** What to do about a device that cannot be used, by the code of its error. */
const DEVICE_ADVICE: Readonly<Record<string, string>> = {
  ERR_AFFUSE_CUDA_UNAVAILABLE:
    "build its library with node scripts/build-native.mjs -DAFFUSE_CUDA=on (needs nvcc), and unset AFFUSE_DISABLE_CUDA.",
  ERR_AFFUSE_BACKEND: "build its library again together with the addon: node scripts/build-native.mjs -DAFFUSE_CUDA=on.",
  ERR_AFFUSE_CUDA_DRIVER: "install an NVIDIA driver, or a newer one; nvidia-smi shows what is there.",
  ERR_AFFUSE_CUDA_NO_DEVICE: "see nvidia-smi and CUDA_VISIBLE_DEVICES; a container has to be given the GPU (--gpus all).",
  ERR_AFFUSE_CUDA_ARCHITECTURE: "build its library with -DAFFUSE_CUDA_ARCHITECTURES=<compute capability without its point>-real.",
  ERR_AFFUSE_DEVICE_MEMORY: "nvidia-smi shows who uses its memory; end that, or use smaller batches.",
  ERR_AFFUSE_DEVICE_LOST: "end every process that uses it and start again; the kernel's log (dmesg, Xid) has the cause.",
};

const inCheckout = existsSync(path.join(packageRoot, "scripts", "build-emulated.mjs"));

/** Whether the emulator's library is not what building it now would give. */
async function emulatorOutdated(addon: string): Promise<boolean> {
  const named = process.env.AFFUSE_EMULATED_LIBRARY;
  const file = named || path.join(path.dirname(addon), "libaffuse_emulated.so");
  const stamp = `${file}.stamp`;
  if (!inCheckout || !existsSync(named ? stamp : file)) return false; // who names one without a stamp built it elsewhere
  const { isFresh, nativeSources } = (await import(
    pathToFileURL(path.join(packageRoot, "scripts", "stamps.mjs")).href
  )) as { nativeSources(): unknown; isFresh(product: string, stamp: string, sources: unknown): boolean };
  return !isFresh(file, stamp, nativeSources());
}

/** What to do about an emulator that is not the one of these sources. */
function emulatorAdvice(): string {
  if (process.env.AFFUSE_EMULATED_LIBRARY) return "let AFFUSE_EMULATED_LIBRARY name a library of this version, or unset it.";
  return inCheckout ? "build its library again: node scripts/build-emulated.mjs." : "remove its library, which is for tests only.";
}

/** Whether an NVIDIA driver says that there is a GPU: only then a library that is not built is a lack. */
const hasGpu = () => existsSync("/dev/nvidiactl");

/**
 * The backends; a device that counts as available is tried with one operator, which is where a wrong architecture and a full
 * memory show.
 */
function triedBackends(addon: NativeAddon): Backend[] {
  return addon.backends().map((backend) => {
    if (!backend.available || backend.name !== "cuda" || !backend.operators.includes("scale")) return backend;
    try {
      const x = Float32Array.of(1, -2, 3);
      const y = addon.call("cuda", "scale", [{ dtype: "f32", shape: [3], data: x }], { factor: 2 }, [true])[0]?.data;
      if (y && x.every((value, i) => y[i] === 2 * value)) return backend;
      const reason = `expected twice [${x}], got [${y}]`;
      return { ...backend, available: false, code: "ERR_AFFUSE_DEVICE_RESULT", reason, operators: [] };
    } catch (error) {
      if (!isAffuseError(error)) throw error;
      const [reason = ""] = error.message.split("\n");
      return { ...backend, available: false, code: error.code, reason, operators: [] };
    }
  });
}

async function examine(version: string): Promise<Report> {
  const advice: string[] = [];
  const supported = Number(process.versions.node.split(".")[0]) >= 20;
  if (!supported) advice.push(`Node ${process.version} is too old: install Node 20 or newer.`);
  let problem: string | null = null;
  let addon: NativeAddon | null = null;
  try {
    addon = loadAddon();
    // AFFUSE_CPU and AFFUSE_THREADS are obeyed, or refused, by the first operator call.
    const cpu = addon.backends().find((backend) => backend.name === "cpu");
    if (cpu && !cpu.available) throw new AffuseError(cpu.code ?? "ERR_AFFUSE_CPU", cpu.reason ?? "");
  } catch (error) {
    if (!isAffuseError(error)) throw error;
    problem = `${error.code}: ${error.message.split("\n")[0]}`;
    advice.push(error.hint || error.message);
  }
  const { attempts } = tryLoadAddon();
  const tried = addon && problem === null ? triedBackends(addon) : (addon?.backends() ?? []);
  const loaded = attempts.find(({ outcome }) => outcome === "loaded");
  const outdated = loaded !== undefined && (await emulatorOutdated(loaded.file));
  const backends = tried.map((backend) => ({ ...backend, outdated: outdated && backend.name === "emulated" }));
  for (const { name, available, code, outdated } of backends) {
    const what = available || name !== "cuda" ? undefined : DEVICE_ADVICE[code ?? ""];
    if (what && (code !== "ERR_AFFUSE_CUDA_UNAVAILABLE" || hasGpu())) advice.push(`For device cuda: ${what}`);
    if (name === "emulated" && (!available || outdated)) advice.push(`For device emulated: ${emulatorAdvice()}`);
  }
  const optional = optionalParts();
  for (const part of optional) {
    if (part.version === null && part.advice) advice.push(`For ${part.purpose}: ${part.advice}`);
  }
  return {
    ok: supported && problem === null,
    version,
    node: { version: process.version, napi: process.versions.napi, supported },
    platform: `${process.platform}-${process.arch}`,
    addon: { loaded: addon !== null, attempts, problem },
    cpu: addon?.cpu() ?? null,
    operators: addon?.operators().length ?? 0,
    backends,
    optional,
    advice,
  };
}

function printReport(report: Report): void {
  const mark = (good: boolean) => (good ? "ok " : "-- ");
  print(`affuse ${report.version} on ${report.platform}`);
  print(`${mark(report.node.supported)} node ${report.node.version} (Node-API ${report.node.napi})`);
  print(`${mark(report.addon.problem === null)} addon${report.addon.problem ? `: ${report.addon.problem}` : ""}`);
  for (const { origin, file, reason } of report.addon.attempts) print(`     ${origin}: ${file}: ${reason ?? "loaded"}`);
  if (report.cpu) {
    const { isa, levels, threads, caches } = report.cpu;
    const size = (bytes: number) => (bytes > 0 ? `${Math.round(bytes / 1024)} KiB` : "unknown");
    print(`ok  ${report.operators} operators on ${isa} (possible: ${levels.join(", ")}), ${threads} threads`);
    print(`     caches: L1 ${size(caches.l1)}, L2 ${size(caches.l2)}, L3 ${size(caches.l3)}`);
  }
  for (const { name, available, code, reason, outdated } of report.backends) {
    const why = available ? (outdated ? ": its library is older than its sources" : "") : `: ${reason} (${code})`;
    print(`${mark(available && !outdated)} backend ${name}${why}`);
  }
  for (const { name, version, purpose } of report.optional) {
    print(`${mark(version !== null)} ${name} ${version ?? "is not there"} (${purpose})`);
  }
  if (report.advice.length > 0) print("\nWhat to do:");
  for (const line of report.advice) print(`  ${line}`);
}

export const register: Register = (program) => {
  program
    .command("doctor")
    .summary("say what works on this machine and what to do about the rest")
    .description("Examines Node, the compiled addon, the CPU, the backends and the optional packages. Exit code 1 when nothing can run.")
    .option("--json", "print one JSON document")
    .addHelpText("after", "\nExamples:\n  affuse doctor\n  affuse doctor --json\n  AFFUSE_CPU=avx2 affuse doctor")
    .action(async (flags: { json?: boolean }) => {
      const report = await examine(program.version() ?? "");
      if (flags.json) printJson(report);
      else printReport(report);
      if (!report.ok) process.exitCode = 1;
    });
};
