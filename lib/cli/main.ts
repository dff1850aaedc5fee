/** The `affuse` command: one file per subcommand beside this one, each of which registers itself on the program. */
import { readFileSync } from "node:fs";
import { packageRoot } from "#root";
import { Command, CommanderError } from "commander";
import { writeError } from "../data/files.ts";
import { EXIT, reportError } from "./io.ts";

/** Registers one subcommand on the program. */
export type Register = (program: Command) => void;

/** Subcommands in the order of `--help`. Each is loaded only to be registered; heavy modules are imported in its action. */
async function subcommands(): Promise<Register[]> {
  return [
    (await import("./demo.ts")).register,
    (await import("./synth.ts")).register,
    (await import("./extract.ts")).register,
    (await import("./train.ts")).register,
    (await import("./eval.ts")).register,
    (await import("./ensemble.ts")).register,
    (await import("./predict.ts")).register,
    (await import("./op.ts")).register,
    (await import("./bench.ts")).register,
    (await import("./profile.ts")).register,
    (await import("./doctor.ts")).register,
  ];
}

/**
 * Runs the command line and returns the exit code: 0 success, 1 a coded error, 2 wrong usage, 130 interrupted.
 * @param argv as `process.argv`
 */
export async function main(argv: string[]): Promise<number> {
  const { version } = JSON.parse(readFileSync(`${packageRoot}/package.json`, "utf8")) as { version: string };
  const program = new Command("affuse")
    .description("Audio-visual emotion recognition: native kernels, training, ensembling and prediction")
    .version(version)
    .showHelpAfterError("(see --help)")
    .exitOverride();
  const json = argv.includes("--json");
  // Whoever reads standard output may stop (`affuse … | head`): no error of ours. Either way the command goes on, for its files and
  // its exit code; Node drops what is still written.
  let lost = false;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" || lost) return;
    lost = true;
    reportError(writeError(error, "the result", "standard output"), json);
    process.exitCode ||= EXIT.failed;
  });
  process.stderr.on("error", () => {}); // closed or full: nobody is left to be told, the exit code stands
  const code = await run(program, argv, json);
  return code === EXIT.ok && lost ? EXIT.failed : code;
}

async function run(program: Command, argv: string[], json: boolean): Promise<number> {
  try {
    for (const register of await subcommands()) register(program);
    for (const command of program.commands) command.exitOverride().showHelpAfterError("(see --help)");
    await program.parseAsync(argv);
    return typeof process.exitCode === "number" ? process.exitCode : EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return reportError(error, json);
  }
}
