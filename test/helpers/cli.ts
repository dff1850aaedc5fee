/** Runs the built command line as a user would. */
import { spawn } from "node:child_process";
import path from "node:path";
import { packageRoot } from "#root";

export interface CliOptions {
  cwd?: string;
  env?: Readonly<Record<string, string | undefined>>;
  /** Milliseconds until it is killed; 120 s unless told. */
  timeout?: number;
  /** Sent to standard input. */
  input?: string | Uint8Array;
}

export interface CliResult {
  /** Exit code; 128 + 9 when it was killed. */
  code: number;
  stdout: string;
  stderr: string;
}

/** `affuse ARGS…` (bin/affuse.mjs on dist/), in a process of its own. */
export function affuse(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(packageRoot, "bin", "affuse.mjs"), ...args], {
      cwd: options.cwd ?? packageRoot,
      env: { ...process.env, NO_COLOR: "1", ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
      timeout: options.timeout ?? 120_000,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      stdout += chunk;
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk;
    });
    child.stdin.on("error", () => {}); // it may end without reading
    child.stdin.end(options.input ?? "");
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 137, stdout, stderr }));
  });
}
