/**
 * A profile in the Trace Event Format (JSON object form with complete events, ph "X"), which Perfetto
 * (ui.perfetto.dev) and speedscope read. One track per program driver with runs and, inside them,
 * operators; one per worker with tasks.
 */
import type { NativeProfile } from "../native/addon.ts";

export interface TraceEvent {
  name: string;
  cat?: string;
  /** X: a slice with a duration; M: the name or place of a track. */
  ph: "X" | "M";
  /** Microseconds. */
  ts?: number;
  dur?: number;
  pid: number;
  tid: number;
  args?: Record<string, unknown>;
}

export interface Trace {
  traceEvents: TraceEvent[];
  displayTimeUnit: "ms";
  otherData: Record<string, unknown>;
}

const PID = 1;
/** Tracks per driver: the driver itself and its workers. */
const TRACKS = 1025;
/**
 * The first track's id. Perfetto takes a thread 0 for one without an id and shows it as the thread PID, which would be worker 0's:
 * ids start there. The thread whose id is its process's is the main one and comes first: the program.
 */
const FIRST = PID;
/** Of a nanosecond, in microseconds. */
const TENTH = 1e-4;
const OTHER: Readonly<Record<number, string>> = {
  [-1]: "run",
  [-2]: "copy in",
  [-3]: "copy out",
  [-4]: "pack weights",
};

/** @param about what was profiled, for the trace's metadata */
export function toTrace(profile: NativeProfile, about: Record<string, unknown> = {}): Trace {
  const slices: TraceEvent[] = [];
  const tracks = new Map<number, string>();
  const busyUntil: number[] = []; // per driver: runs that overlap in time ran on different ones
  const order = profile.runs.map((run) => ({ run, ...extent(run.spans) })).sort((a, b) => a.begin - b.begin);
  for (const { run, begin, end } of order) {
    let driver = busyUntil.findIndex((until) => until <= begin);
    if (driver < 0) driver = busyUntil.length;
    busyUntil[driver] = end;
    const base = FIRST + driver * TRACKS;
    tracks.set(base, driver === 0 ? "program" : `program ${driver + 1}`);
    const operators = profile.programs[run.program] ?? [];
    const nameOf = (step: number) => operators[step]?.op ?? OTHER[step] ?? `step ${step}`;
    for (let at = 0; at < run.spans.length; at += 6) {
      const [step, from, to, flops, read, written] = run.spans.subarray(at, at + 6) as unknown as number[];
      const seconds = ((to as number) - (from as number)) / 1e9;
      const args =
        (step as number) >= 0
          ? {
              instruction: step,
              shapes: operators[step as number]?.shapes,
              flops,
              bytes: (read as number) + (written as number),
              "GFLOP/s": seconds > 0 ? (flops as number) / seconds / 1e9 : 0,
              "GB/s": seconds > 0 ? ((read as number) + (written as number)) / seconds / 1e9 : 0,
            }
          : { program: run.program };
      slices.push(
        slice(nameOf(step as number), (step as number) === -1 ? "run" : "operator", base, from, to, args),
      );
    }
    for (let at = 0; at < run.tasks.length; at += 4) {
      const [step, worker, from, to] = run.tasks.subarray(at, at + 4) as unknown as number[];
      const tid = base + 1 + (worker as number);
      tracks.set(tid, `${tracks.get(base)} · worker ${worker}`);
      slices.push(slice(nameOf(step as number), "task", tid, from, to, { instruction: step }));
    }
  }
  slices.sort(
    (a, b) => a.tid - b.tid || (a.ts as number) - (b.ts as number) || (b.dur as number) - (a.dur as number),
  );
  const names: TraceEvent[] = [
    { name: "process_name", ph: "M", pid: PID, tid: FIRST, args: { name: "affuse" } },
  ];
  // Perfetto shows a process's labels, and no otherData.
  if (typeof about.subject === "string")
    names.push({ name: "process_labels", ph: "M", pid: PID, tid: FIRST, args: { labels: about.subject } });
  for (const [tid, name] of [...tracks].sort((a, b) => a[0] - b[0])) {
    names.push({ name: "thread_name", ph: "M", pid: PID, tid, args: { name } });
    names.push({ name: "thread_sort_index", ph: "M", pid: PID, tid, args: { sort_index: tid } });
  }
  return { traceEvents: [...names, ...slices], displayTimeUnit: "ms", otherData: about };
}

/** Events of a piece of the file: the whole may be longer than a string can be. */
const PIECE = 10_000;

/** The trace as JSON, in pieces that follow each other in a file. */
export function traceFile({ traceEvents, ...rest }: Trace): Uint8Array[] {
  // Perfetto refuses DEL in a string (the subject names the source), and JSON.stringify leaves it as it is.
  const text = (value: unknown) => JSON.stringify(value).replaceAll("\u007f", "\\u007f");
  const pieces = [Buffer.from('{"traceEvents":[')];
  for (let at = 0; at < traceEvents.length; at += PIECE) {
    const events = text(traceEvents.slice(at, at + PIECE)).slice(1, -1);
    pieces.push(Buffer.from(at === 0 ? events : `,${events}`));
  }
  pieces.push(Buffer.from(`],${text(rest).slice(1)}`));
  return pieces;
}

function slice(
  name: string,
  cat: string,
  tid: number,
  from: number | undefined,
  to: number | undefined,
  args: Record<string, unknown>,
): TraceEvent {
  const begin = from ?? 0;
  const end = to ?? 0;
  const ts = microseconds(begin);
  const dur = microseconds(end) - ts;
  // A run ends with its last operator. However a reader adds and rounds, the operator must not end later: it would be dropped.
  return { name, cat, ph: "X", ts, dur: cat === "run" ? dur + TENTH : dur, pid: PID, tid, args };
}

/**
 * From whole nanoseconds. Some readers add microseconds, others keep nanoseconds and round `value * 1000` or, as versions of
 * Perfetto do, cut it: a value that would be cut to one less is taken a bit higher.
 */
function microseconds(nanoseconds: number): number {
  const value = nanoseconds / 1e3;
  return value * 1e3 < nanoseconds ? value * (1 + Number.EPSILON) : value;
}

function extent(spans: Float64Array): { begin: number; end: number } {
  let begin = Number.POSITIVE_INFINITY;
  let end = 0;
  for (let at = 0; at < spans.length; at += 6) {
    begin = Math.min(begin, spans[at + 1] as number);
    end = Math.max(end, spans[at + 2] as number);
  }
  return { begin, end };
}
