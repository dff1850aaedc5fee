/** `affuse bench`: how fast each operator and whole models are, against this machine's ceilings and against other libraries. */
import { InvalidArgumentError } from "commander";
import { AffuseError } from "../errors.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  filter?: string;
  peers?: string;
  device: string;
  threads?: number;
  python?: string;
  quick?: boolean;
  list?: boolean;
  json?: string | true;
  compare?: string;
  threshold: number;
}

export const register: Register = (program) => {
  program
    .command("bench")
    .summary("measure speed against the machine's ceilings and other libraries")
    .description(
      "Checks each case against the float64 reference, then times it, in turns with the peers: medians with p20 and p80, FLOP/s,\n" +
        "bytes/s and percent of the roof that bounds it, measured in between in the same process.",
    )
    .option("--filter <re>", "only cases whose name or tag matches (tags: quick, targets, awkward, sweep)")
    .option("--peers <names>", "compare with: ort, torch, both separated by a comma, or none", "ort,torch")
    .option("--device <device>", "cpu", "cpu")
    .option(
      "--threads <n>",
      "one thread count (default: one thread, and all that this process may use)",
      wholeNumber,
    )
    .option("--python <path>", "Python with PyTorch (default: $AFFUSE_PYTHON, python3, /usr/bin/python3)")
    .option("--quick", "a few cases and short samples: under 30 s on two cores")
    .option("--list", "list the cases and their tags instead")
    .option(
      "--json [file]",
      "write the results as JSON (Google Benchmark's shape), to standard output without a file",
    )
    .option(
      "--compare <file>",
      "compare with results stored by --json; exit code 1 when a case became slower",
    )
    .option("--threshold <pct>", "how much slower is too slow, in percent", percentage, 10)
    .addHelpText(
      "after",
      `
Examples:
  affuse bench --quick
  affuse bench --list
  affuse bench --filter '^fbp/' --threads 1 --peers none
  affuse bench --filter targets --json results.json
  affuse bench --quick --compare results.json --threshold 10`,
    )
    .action(async (flags: Flags) => {
      const bench = await import("../../bench/index.ts");
      const quick = flags.quick ?? false;
      if (flags.list) {
        const cases = bench.selectCases(flags.filter ?? "", quick);
        if (flags.json) printJson(cases.map(({ name, kind, tags }) => ({ name, kind, tags })));
        else
          for (const { name, tags } of cases) print(tags.length > 0 ? `${name}  (${tags.join(", ")})` : name);
        return;
      }
      if (flags.device !== "cpu") {
        throw new AffuseError(
          "ERR_AFFUSE_DEVICE",
          `expected --device cpu, got "${flags.device}".`,
          "There are no kernels for another device yet.",
        );
      }
      const { describeCase } = await import("../../bench/table.ts");
      const report = await bench.runBench({
        filter: flags.filter,
        peers: parsePeers(flags.peers ?? ""),
        threads: flags.threads,
        quick,
        python: flags.python,
        command: ["affuse", ...process.argv.slice(2)].join(" "),
        note,
        done: flags.json === true ? undefined : (entries) => print(describeCase(entries)),
      });
      if (flags.json === true) printJson(report);
      else if (flags.json) {
        const { writeFileAtomic } = await import("../data/files.ts");
        await writeFileAtomic(flags.json, `${JSON.stringify(report, null, 1)}\n`);
      }
      if (report.benchmarks.length === 0) process.exitCode = 1;
    });
};

function parsePeers(text: string): ("ort" | "torch")[] {
  const names = text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "" && name !== "none");
  for (const name of names) {
    if (name !== "ort" && name !== "torch") {
      throw new AffuseError(
        "ERR_AFFUSE_BENCH_PEER",
        `expected --peers out of ort, torch, or none, got "${name}".`,
      );
    }
  }
  return names as ("ort" | "torch")[];
}

function wholeNumber(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) < 1 || Number(text) > 1024) {
    throw new InvalidArgumentError("expected a whole number in 1 … 1024.");
  }
  return Number(text);
}

function percentage(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 1000)) throw new InvalidArgumentError("expected a percentage in 0 … 1000.");
  return value;
}
