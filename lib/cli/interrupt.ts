import { EXIT, note } from "./io.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const; // Ctrl-C, kill, and a terminal that was closed

export interface Interruption {
  /** Aborted by the first of the signals; the second ends the process at once, with exit code 130. */
  signal: AbortSignal;
  /** Stops listening. */
  release(): void;
}

/** `doing`: what happens between the first signal and the end, for the message on standard error. */
export function interruption(doing: string): Interruption {
  const controller = new AbortController();
  const interrupt = (): void => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    note(`\nInterrupted: ${doing}. Press again to stop at once.`);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, interrupt);
  return {
    signal: controller.signal,
    release: () => {
      for (const name of SIGNALS) process.off(name, interrupt);
    },
  };
}
