/** What suites compile for themselves, in a folder of their own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { sh } from "../helpers/process.ts";

/** Of this process, and gone with it. */
export const folder = mkdtempSync(path.join(tmpdir(), "affuse-compiled-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
export const at = (name: string) => path.join(folder, name);
export const cxx = process.env.CXX ?? "c++";

export function compile(command: string, ...args: string[]): void {
  const { code, output } = sh(command, args);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${output}`);
}
