/**
 * `affuse bench`: how fast each operator and whole models are, against this machine's ceilings and against
 * other libraries.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { InvalidArgumentError } from "commander";
import { AffuseError } from "../errors.ts";
import { interruption } from "./interrupt.ts";
import { EXIT, note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  filter?: string;
  peers?: string;
  device: string;
  threads?: number;
  python?: string;
  quick?: boolean;
  patience: number;
  perf?: boolean;
  list?: boolean;
  json?: string | true;
  html?: string;
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
    .option("--peers <names>", "compare with: ort, torch, both separated by a comma, or none (default: both)")
    .option("--device <device>", "cpu", "cpu")
    .option(
      "--threads <n>",
      "one thread count (default: one thread, and all that this process may use)",
      wholeNumber,
    )
    .option("--python <path>", "Python with PyTorch (default: $AFFUSE_PYTHON, python3, /usr/bin/python3)")
    .option("--quick", "a few cases and short samples: under 30 s on two cores")
    .option(
      "--patience <s>",
      "seconds to wait in all for moments in which nothing else uses the cores",
      patience,
      0,
    )
    .option("--perf", "sample with Linux perf where the time of operators with one thread goes")
    .option("--list", "list the cases and their tags instead")
    .option(
      "--json [file]",
      "write the results as JSON (Google Benchmark's shape), to standard output without a file",
    )
    .option("--html <file>", "write the results as a page with plots")
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
  affuse bench --filter sweep --threads 1 --peers none --perf
  affuse bench --filter targets --json results.json --html results.html
  affuse bench --quick --compare results.json --threshold 10`,
    )
    .action(async (flags: Flags) => {
      const bench = await import("../../bench/index.ts");
      if (flags.list) {
        const cases = bench.selectCases(flags.filter ?? "", false);
        if (flags.json) printJson(cases.map(({ name, kind, tags }) => ({ name, kind, tags })));
        else
          for (const { name, tags } of cases) print(tags.length > 0 ? `${name}  (${tags.join(", ")})` : name);
        return;
      }
      if (flags.device !== "cpu") {
        throw new AffuseError(
          "ERR_AFFUSE_DEVICE",
          `expected --device cpu, got "${flags.device}".`,
          "bench/gpu/gpu-suite.sh measures CUDA devices.",
        );
      }
      const { describeCase, describeChanges, describeShared, describeTargets, printable } = await import(
        "../../bench/table.ts"
      );
      const comparison = flags.compare === undefined ? null : await import("../../bench/compare.ts");
      const stored = comparison?.readStored(flags.compare as string);
      const { requireWritable, writeFileAtomic } = await import("../data/files.ts");
      // Before minutes are spent on what could then not be kept.
      if (typeof flags.json === "string") requireWritable(flags.json, "the results");
      if (flags.html !== undefined) requireWritable(flags.html, "the page");
      if (stored) requireThreads(stored, flags);
      const text = flags.json !== true;
      const options = {
        filter: flags.filter,
        only: stored && new Set(stored.benchmarks.map((entry) => entry.case)),
        // Only our own times are compared.
        peers: stored && flags.peers === undefined ? [] : parsePeers(flags.peers ?? "ort,torch"),
        threads: flags.threads,
        quick: flags.quick ?? false,
        patience: flags.patience,
        perf: flags.perf ?? false,
        signal: interruption("finishing the running case").signal,
        python: flags.python,
        command: ["affuse", ...process.argv.slice(2)].join(" "),
        note,
      };
      const done = text
        ? (entries: Parameters<typeof describeCase>[0]) => print(describeCase(entries))
        : undefined;
      const report = await bench.runBench({ ...options, done });
      if (text && report.targets.length > 0) print(`\n${describeTargets(report.targets)}`);
      const shared = describeShared(report.benchmarks);
      if (shared) note(shared);
      const failed = report.skipped.filter(({ peer }) => peer === "affuse");
      if (report.benchmarks.length === 0 || failed.length > 0) process.exitCode = 1;
      let changes =
        comparison && stored
          ? comparison.compareRuns(stored.benchmarks, report.benchmarks, flags.threshold / 100)
          : [];
      if (comparison && stored) {
        const { cpu, level, quick } = report.context;
        const then = stored.context;
        if (then.cpu !== cpu || then.level !== level)
          note(
            `note: the stored results are from another machine or level (${printable(`${then.cpu}, ${then.level}`)})`,
          );
        if (then.quick !== quick)
          note(
            `note: the stored results are ${then.quick ? "of --quick" : "not of --quick"}: other samples, more noise`,
          );
        const missing = comparison.missing(stored, report, bench.chooser(options.filter, quick, true));
        if (missing.length > 0)
          note(
            `note: ${missing.length} of the stored timings have none now: ${printable(missing[0] as string)}${missing.length > 1 ? " …" : ""}`,
          );
        // Noise comes and goes: what looks slower is measured again before it counts.
        let patience = report.context.patience.left;
        const repeats = new Set<string>();
        for (let again = 0; again < 6 && changes.some(({ slower }) => slower); again++) {
          if (report.interrupted || options.signal.aborted) break;
          if (again > 1) await sleep(1000);
          const suspects = new Set(changes.filter(({ slower }) => slower).map((change) => change.case));
          note(`measuring ${suspects.size} suspicious case${suspects.size > 1 ? "s" : ""} again`);
          const repeat = { ...options, patience, perf: false, filter: "", only: suspects, peers: [] };
          const repeated = await bench.runBench(repeat);
          patience = repeated.context.patience.left;
          const more = comparison.compareRuns(stored.benchmarks, repeated.benchmarks, flags.threshold / 100);
          for (const { name } of more) repeats.add(name);
          changes = comparison.leastChange(changes, more);
        }
        if (report.interrupted || options.signal.aborted) {
          const unsure = changes.filter(({ name, slower }) => slower && !repeats.has(name));
          if (unsure.length > 0) note(`note: ${unsure.length} suspicious timings were not measured again`);
          for (const change of unsure) change.slower = false;
        }
        const slower = changes.filter((change) => change.slower).length;
        if (text)
          print(`\nagainst ${flags.compare}, threshold ${flags.threshold} %:\n${describeChanges(changes)}`);
        if (slower > 0) {
          note(
            `ERR_AFFUSE_BENCH_SLOWER: ${slower} of ${changes.length} timings are more than ${flags.threshold} % slower.`,
          );
          process.exitCode = 1;
        }
        if (changes.length === 0 && !report.interrupted && failed.length === 0) {
          note(
            `ERR_AFFUSE_BENCH_COMPARE: expected timings that ${flags.compare} has too, got none: ${named(report)}, there ${printable(named(stored))}.`,
          );
          process.exitCode = 1;
        }
      }
      const result = stored ? { ...report, changes } : report;
      if (flags.json === true) printJson(result);
      try {
        if (typeof flags.json === "string")
          writeFileAtomic(flags.json, `${JSON.stringify(result, null, 1)}\n`, "the results");
      } finally {
        // Minutes of measuring are kept in one of them at least.
        if (flags.html) {
          const { benchPage } = await import("../../bench/page.ts");
          writeFileAtomic(flags.html, benchPage(report), "the page");
        }
      }
      if (report.interrupted || options.signal.aborted) process.exitCode = EXIT.interrupted;
    });
};

interface Timed {
  benchmarks: readonly { name: string; peer: string; threads: number }[];
}

/** "linear/M=64/affuse/threads:1 …": the first of our timings, for messages. */
const named = ({ benchmarks }: Timed): string =>
  benchmarks.find(({ peer }) => peer === "affuse")?.name ?? "no timing";

/** With --threads that the stored results lack there would be nothing to compare. */
function requireThreads({ benchmarks }: Timed, flags: Flags): void {
  const counts = new Set(benchmarks.filter(({ peer }) => peer === "affuse").map(({ threads }) => threads));
  if (flags.threads === undefined || counts.has(flags.threads)) return;
  throw new AffuseError(
    "ERR_AFFUSE_BENCH_COMPARE",
    `expected --threads of which ${flags.compare} has timings (${[...counts].join(", ")}), got ${flags.threads}.`,
  );
}

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

function patience(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 86_400)) throw new InvalidArgumentError("expected seconds in 0 … 86400.");
  return value;
}

function percentage(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 1000)) throw new InvalidArgumentError("expected a percentage in 0 … 1000.");
  return value;
}
