// Packs what the GPU suite needs on a machine without a network: the sources, the suites as plain JavaScript, Node's headers
// and Node itself (Linux, this machine's architecture).
//
//   node scripts/bundle.mjs [--out affuse-gpu.tar.xz] [--without-node] [--quick]
//
// --quick packs faster, into a somewhat larger file.
//
// There: tar xf affuse-gpu.tar.xz && affuse-gpu/gpu-suite.sh (bench/gpu/gpu-suite.sh says what it does)
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { packageRoot } from "../lib/root/root.mjs";

const MOST = 55 * 2 ** 20;
const PARTS = [
  "CMakeLists.txt",
  "binding.gyp",
  "package.json",
  "LICENSE",
  "cmake",
  "kernels",
  "native",
  "bench",
  "scripts",
  "lib/root",
];
const SUITES = ["op-cli", "parity", "products", "program", "reach", "rows", "shapes", "tf32", "training"];
const PACKAGES = ["node-api-headers"];

function parsed() {
  try {
    const { values } = parseArgs({
      options: {
        out: { type: "string", default: "affuse-gpu.tar.xz" },
        "without-node": { type: "boolean" },
        quick: { type: "boolean" },
      },
    });
    // Before a minute is spent on packing what then has no place.
    const found = statSync(values.out || ".", { throwIfNoEntry: false });
    if (found?.isDirectory()) throw new Error(`expected --out FILE, got the folder ${path.resolve(values.out)}`);
    const parent = path.dirname(path.resolve(values.out));
    if (!statSync(parent, { throwIfNoEntry: false })?.isDirectory())
      throw new Error(`expected --out in a folder that there is, got ${values.out}`);
    return values;
  } catch (error) {
    console.error(`bundle: ${error.message}`);
    process.exit(2);
  }
}

const values = parsed();
const out = path.resolve(values.out);
const folder = mkdtempSync(path.join(tmpdir(), "affuse-bundle-"));
const root = path.join(folder, "affuse-gpu");

/** Neither what Python left there nor results of other machines. */
const wanted = (file) =>
  !file.includes("__pycache__") && path.relative(packageRoot, file) !== path.join("bench", "results");

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", 2, 2], ...options });
  if (!error && status === 0) return;
  throw new Error(`${command} ${args[0] ?? ""} failed${error ? `: ${error.message}` : ""}`);
}

try {
  mkdirSync(path.join(root, "suite"), { recursive: true });
  for (const part of PARTS)
    cpSync(path.join(packageRoot, part), path.join(root, part), { recursive: true, filter: wanted });
  for (const name of PACKAGES)
    cpSync(path.join(packageRoot, "node_modules", name), path.join(root, "node_modules", name), {
      recursive: true,
    });
  // "#root" stays: it resolves through the bundle's own package.json.
  await build({
    absWorkingDir: packageRoot,
    entryPoints: {
      ...Object.fromEntries(SUITES.map((name) => [`${name}.test`, `test/cuda/${name}.test.ts`])),
      launched: "test/cuda/launched.ts",
      steps: "bench/gpu/steps.ts",
    },
    outdir: path.join(root, "suite"),
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    external: ["#root"],
    banner: {
      js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  cpSync(path.join(packageRoot, "bench/gpu/gpu-suite.sh"), path.join(root, "gpu-suite.sh"));
  const commit = execFileSync("git", ["rev-parse", "HEAD"], { cwd: packageRoot, encoding: "utf8" }).trim();
  const changed = execFileSync("git", ["status", "--porcelain", "--untracked-files=no"], {
    cwd: packageRoot,
    encoding: "utf8",
  }).trim();
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8"));
  writeFileSync(
    path.join(root, "bundle.json"),
    `${JSON.stringify({ version, commit, changed: changed !== "", node: process.version })}\n`,
  );
  if (!values["without-node"]) {
    mkdirSync(path.join(root, "bin"));
    cpSync(process.execPath, path.join(root, "bin/node"), { dereference: true });
    spawnSync("strip", [path.join(root, "bin/node")]); // a third smaller where there is a strip
  }
  run("tar", ["-C", folder, "-cJf", `${out}.new`, "affuse-gpu"], {
    env: { ...process.env, XZ_OPT: values.quick ? "-0 -T0" : "-9 -T0" },
  });
  const { size } = statSync(`${out}.new`);
  if (size > MOST)
    throw new Error(`the bundle has ${(size / 2 ** 20).toFixed(1)} MB, more than ${MOST / 2 ** 20}`);
  renameSync(`${out}.new`, out);
  console.error(
    `bundle: ${path.relative(process.cwd(), out) || out}, ${(size / 2 ** 20).toFixed(1)} MB, commit ${commit.slice(0, 7)}${changed ? " with changes" : ""}`,
  );
} catch (error) {
  console.error(`bundle: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
  rmSync(`${out}.new`, { force: true });
}
