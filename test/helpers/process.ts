/** Runs other programs in the package's folder. */
import { execFile, spawnSync } from "node:child_process";
import { packageRoot } from "#root";

export interface Outcome {
  /** Exit code; 1 when it did not start or was killed. */
  code: number;
  stdout: string;
  /** Standard output and error, and why it did not start. */
  output: string;
}

const optionsOf = (env: NodeJS.ProcessEnv) =>
  ({ cwd: packageRoot, encoding: "utf8", env: { ...process.env, ...env }, maxBuffer: 1 << 28 }) as const;

/** Waits for the program. */
export function sh(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Outcome {
  const { status, stdout, stderr, error } = spawnSync(command, args, optionsOf(env));
  return {
    code: status ?? 1,
    stdout: stdout ?? "",
    output: `${stdout ?? ""}${stderr ?? ""}${error ? error.message : ""}`,
  };
}

/** The same beside whatever else runs here. */
export function start(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(command, args, optionsOf(env), (error, stdout, stderr) => {
      const code = error ? (typeof error.code === "number" ? error.code : 1) : 0;
      const why = error && typeof error.code === "string" ? error.message : "";
      resolve({ code, stdout, output: stdout + stderr + why });
    });
  });
}
