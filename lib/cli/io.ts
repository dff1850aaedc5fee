/**
 * What every command shares: standard output carries results only (with `--json`, exactly one JSON document),
 * everything else goes to standard error.
 */
import { isAffuseError } from "../errors.ts";

/** Exit codes of the command line. */
export const EXIT = { ok: 0, failed: 1, usage: 2, notBuilt: 3, interrupted: 130 } as const;

/** Progress and notes for people; never part of the result. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The result for people. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** The result for machines: one JSON document. Non-finite numbers become null, as JSON has no word for them. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** One line for a person, or a JSON object, on standard error; no stack trace unless AFFUSE_DEBUG=1. Returns the exit code. */
export function reportError(error: unknown, json: boolean): number {
  const code = isAffuseError(error) ? error.code : "ERR_AFFUSE_INTERNAL";
  const message = error instanceof Error ? error.message : String(error);
  if (json) process.stderr.write(`${JSON.stringify({ error: { code, message } })}\n`);
  else process.stderr.write(`${code}: ${message}\n`);
  if (process.env.AFFUSE_DEBUG === "1" && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return code === "ERR_AFFUSE_INTERRUPTED" ? EXIT.interrupted : code === "ERR_AFFUSE_USAGE" ? EXIT.usage : EXIT.failed;
}
