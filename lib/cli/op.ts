/** `affuse op`: any operator on tensors in a safetensors file. The language-neutral way to every kernel. */
import { InvalidArgumentError } from "commander";
import { AffuseError } from "../errors.ts";
import type { AttributeRule, AttributeValue, HostTensor, OperatorInfo } from "../kernels/index.ts";
import { print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  in?: string;
  out?: string;
  attr?: string[];
  outputs?: string;
  device: string;
  threads?: number;
  list?: boolean;
  json?: boolean;
}

/** Where the sections are that operators' summaries name. */
const SPECIFICATION = "spec N.N: section N.N of docs/specification.md, in the package's folder";

export const register: Register = (program) => {
  program
    .command("op")
    .summary("run one operator on tensors in a file")
    .description(
      "Runs one operator. Tensors come by the operator's names from a .safetensors file (F32; I32 for lengths and labels; F64\n" +
        "on the reference device) and go to another: all outputs that are not optional, plus those named by --outputs.\n" +
        "X.backward takes X's inputs plus d<output>, and gives d<input>.",
    )
    .argument("[name]", "operator, such as fbp or afg.backward")
    .option("--in <file>", "input tensors")
    .option("--out <file>", "where the outputs go")
    .option("--attr <k=v...>", "attributes, such as k=4 normalize=l2")
    .option("--outputs <names>", "optional outputs to make as well, separated by commas")
    .option("--device <device>", "cpu, cuda, emulated (CUDA's kernels without a GPU, for tests), or reference (float64, one thread)", "cpu")
    .option("--threads <n>", "threads (default: all that this process may use)", wholeNumber)
    .option("--list", "list the operators instead")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  affuse op --list                                     operators, tensors, attributes, formulas
  affuse op --list --json
  affuse op fbp --in x.safetensors --out y.safetensors --attr k=4 normalize=power-l2
  affuse op afg --in x.safetensors --out y.safetensors --outputs k --threads 1
  affuse op fbp.backward --in x.safetensors --out g.safetensors --device reference

${SPECIFICATION}`,
    )
    .action(async (name: string | undefined, flags: Flags) => {
      const kernels = await import("../kernels/index.ts");
      if (flags.list) {
        const list = kernels.operators();
        if (flags.json) printJson(list);
        else {
          for (const info of list) print(describe(info));
          print(SPECIFICATION);
        }
        return;
      }
      if (!name) throw new AffuseError("ERR_AFFUSE_USAGE", "expected the name of an operator or --list.");
      if (!flags.in || !flags.out) throw new AffuseError("ERR_AFFUSE_USAGE", "expected --in FILE and --out FILE.");
      const info = kernels.operator(name);
      const attributes = parseAttributes(info, flags.attr ?? []);
      const { readSafetensors, writeSafetensors } = await import("../data/safetensors.ts");
      const inputs = readInputs(info, flags.in, readSafetensors(flags.in).tensors);
      const extra = (flags.outputs ?? "").split(",").filter((part) => part !== "");
      const outputs = Object.fromEntries(extra.map((output) => [output, true]));
      const started = performance.now();
      const results = kernels.op(name, inputs, attributes, { device: flags.device, threads: flags.threads, outputs });
      const seconds = (performance.now() - started) / 1000;
      const metadata = { operator: name, device: flags.device, ...stringified(attributes) };
      writeSafetensors(flags.out, Object.entries(results), metadata, "the outputs");
      if (flags.json) {
        const shapes = Object.entries(results).map(([key, { dtype, shape }]) => [key, { dtype, shape }]);
        printJson({ operator: name, device: flags.device, seconds, file: flags.out, outputs: Object.fromEntries(shapes) });
      } else {
        for (const [key, { dtype, shape }] of Object.entries(results)) print(`${key} ${dtype} [${shape.join(",")}]`);
      }
    });
};

function wholeNumber(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) < 1) throw new InvalidArgumentError("expected a whole number of at least 1.");
  return Number(text);
}

function stringified(attributes: Record<string, AttributeValue>): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [`attribute.${key}`, String(value)]));
}

/** `k=v` texts by the operator's rules. Ranges and choices are checked by the operator. */
function parseAttributes(info: OperatorInfo, texts: readonly string[]): Record<string, AttributeValue> {
  const attributes: Record<string, AttributeValue> = Object.create(null);
  for (const text of texts) {
    const at = text.indexOf("=");
    if (at <= 0) throw new AffuseError("ERR_AFFUSE_USAGE", `expected --attr NAME=VALUE, got "${text}".`);
    const name = text.slice(0, at);
    const rule = info.attributes.find((candidate) => candidate.name === name);
    if (!rule) {
      const known = info.attributes.map((candidate) => candidate.name).join(", ") || "it has none";
      throw new AffuseError("ERR_AFFUSE_ATTRIBUTE", `expected an attribute of ${info.name} (${known}), got "${name}".`);
    }
    if (name in attributes) throw new AffuseError("ERR_AFFUSE_USAGE", `attribute ${name} is given twice.`);
    attributes[name] = parseValue(info, rule, text.slice(at + 1));
  }
  return attributes;
}

function parseValue(info: OperatorInfo, rule: AttributeRule, text: string): AttributeValue {
  const refuse = (expected: string) =>
    new AffuseError("ERR_AFFUSE_ATTRIBUTE", `expected attribute ${rule.name} of ${info.name} as ${expected}, got "${text}".`);
  switch (rule.kind) {
    case "choice":
      return text;
    case "boolean":
      if (text === "true" || text === "1") return true;
      if (text === "false" || text === "0") return false;
      throw refuse("true or false");
    case "seed":
    case "integer":
      if (!/^[+-]?\d{1,20}$/.test(text)) throw refuse("an integer");
      return BigInt(text);
    default: {
      const value = text.trim() === "" ? Number.NaN : Number(text);
      if (Number.isNaN(value)) throw refuse("a number");
      return value;
    }
  }
}

type FileTensors = Awaited<ReturnType<typeof import("../data/safetensors.ts")["readSafetensors"]>>["tensors"];

const DTYPES: Readonly<Record<string, HostTensor["dtype"]>> = { F32: "f32", F64: "f64", I32: "i32" };

function readInputs(info: OperatorInfo, file: string, tensors: FileTensors): Record<string, HostTensor> {
  const inputs: Record<string, HostTensor> = Object.create(null);
  for (const [name, { dtype, shape, data }] of tensors) {
    const rule = info.inputs.find((candidate) => candidate.name === name);
    if (!rule) {
      const known = info.inputs.map((candidate) => candidate.name).join(", ");
      throw new AffuseError("ERR_AFFUSE_NAME", `${file}: expected inputs of ${info.name} (${known}), got a tensor "${name}".`);
    }
    const type = DTYPES[dtype];
    if (!type) {
      const wanted = rule.dtype === "i32" ? "I32" : "F32 (F64 on the reference device)";
      throw new AffuseError("ERR_AFFUSE_DTYPE", `${file}: expected tensor ${name} as ${wanted}, got ${dtype}.`, "Convert it first.");
    }
    inputs[name] = { dtype: type, shape, data: data as HostTensor["data"] };
  }
  return inputs;
}

function describe(info: OperatorInfo): string {
  const tensors = (rules: OperatorInfo["inputs"]) =>
    rules.map(({ name, shape, optional, dtype }) => `${name}${optional ? "?" : ""} ${shape}${dtype === "i32" ? " int32" : ""}`).join(", ");
  const lines = [
    info.name,
    `  ${info.summary}`,
    `  in     ${tensors(info.inputs)}`,
    `  out    ${tensors(info.outputs)}`,
    ...info.attributes.map((rule) => `  attr   ${rule.name}=${rule.default}  ${range(rule)}${rule.doc ? `  ${rule.doc}` : ""}`),
    `  flops  ${info.flops}`,
    `  bytes  ${info.bytes}`,
  ];
  return `${lines.join("\n")}\n`;
}

function range(rule: AttributeRule): string {
  if (rule.kind === "choice") return rule.choices.join(" | ");
  if (rule.kind === "boolean") return "true | false";
  if (rule.kind === "seed") return "64-bit unsigned integer";
  const low = rule.low > -1e299 ? String(rule.low) : "";
  const high = rule.high < 1e299 ? String(rule.high) : "";
  return `${rule.kind} ${low}..${high}`;
}
