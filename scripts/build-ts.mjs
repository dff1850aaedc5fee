// Builds lib/ into dist/esm (one module per file, with declarations) and dist/cjs (one bundled file for `require`,
// with declarations of its own that carry the .cts extension CommonJS users' compilers expect).
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { build } from "esbuild";
import { packageRoot, requireFromRoot } from "../lib/root/root.mjs";

const out = path.join(packageRoot, "dist.new");
rmSync(out, { recursive: true, force: true });
const tsc = path.join(path.dirname(requireFromRoot.resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", path.join(packageRoot, "tsconfig.build.json"), "--outDir", path.join(out, "esm")], {
  stdio: "inherit",
});

const { dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8"));
await build({
  entryPoints: [path.join(packageRoot, "lib/index.ts")],
  outfile: path.join(out, "cjs/index.cjs"),
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  external: [...Object.keys(dependencies), ...Object.keys(peerDependencies), "#root"],
  logLevel: "warning",
});

/** Copies the declaration tree, `x.d.ts` as `x.d.cts` with its relative imports renamed alike. */
function copyDeclarations(from, to) {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const source = path.join(from, entry.name);
    if (entry.isDirectory()) copyDeclarations(source, path.join(to, entry.name));
    else if (entry.name.endsWith(".d.ts")) {
      const text = readFileSync(source, "utf8").replace(/((?:from|import\()\s*["']\.[^"']*)\.js(["'])/g, "$1.cjs$2");
      writeFileSync(path.join(to, entry.name.replace(/\.d\.ts$/, ".d.cts")), text);
    }
  }
}
copyDeclarations(path.join(out, "esm/lib"), path.join(out, "cjs/lib"));

const dist = path.join(packageRoot, "dist");
rmSync(dist, { recursive: true, force: true });
renameSync(out, dist);
