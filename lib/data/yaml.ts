/** YAML files checked by a schema; every complaint names the key and its line. */
import { isCollection, isMap, isPair, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { AffuseError } from "../errors.ts";
import { readText } from "./files.ts";

const MAX_BYTES = 1024 * 1024;
const MAX_DEPTH = 64;

/**
 * Parses YAML text (1.2 core schema; no custom tags; at most 100 alias expansions, so no "billion laughs").
 * @param name for messages
 * @throws ERR_AFFUSE_CONFIG syntax, wrong or unknown key, wrong value: each with its path and line
 */
export function parseYaml<S extends z.ZodType>(text: string, name: string, schema: S): z.output<S> {
  if (text.length > MAX_BYTES)
    throw fail(name, [`expected at most ${MAX_BYTES} characters, got ${text.length}`]);
  if (nesting(text) > MAX_DEPTH) throw fail(name, [`expected at most ${MAX_DEPTH} levels of nesting`]);
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
    customTags: [],
    merge: false,
  });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem) throw fail(name, [`line ${lines.linePos(problem.pos[0]).line}: ${problem.message}`]);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw fail(name, [(error as Error).message]);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw fail(
    name,
    parsed.error.issues.map((issue) => {
      const keys = issue.path.map(String);
      const node = [...keys.keys()]
        .reverse()
        .map((i) => document.getIn(keys.slice(0, i + 1), true))
        .find((found) => found !== undefined);
      let line = "";
      if ((isScalar(node) || isCollection(node)) && node.range)
        line = `line ${lines.linePos(node.range[0]).line}: `;
      if (issue.code === "unrecognized_keys") {
        const holder = keys.length ? document.getIn(keys, true) : document.contents;
        const pair = isMap(holder)
          ? holder.items.find((item) => isPair(item) && String(item.key) === issue.keys[0])
          : undefined;
        if (isScalar(pair?.key) && pair.key.range) line = `line ${lines.linePos(pair.key.range[0]).line}: `;
        return `${line}unknown key ${issue.keys.map((key) => [...keys, key].join(".")).join(", ")}`;
      }
      return `${line}${keys.join(".") || "(top level)"}: ${issue.message}`;
    }),
  );
}

/**
 * Depth of flow collections, counted before the parser recurses into them; brackets inside strings only
 * overcount.
 */
function nesting(text: string): number {
  let depth = 0;
  let most = 0;
  for (const char of text) {
    if (char === "[" || char === "{") most = Math.max(most, ++depth);
    else if (char === "]" || char === "}") depth--;
  }
  for (const line of text.split("\n")) {
    // Block nesting: "- - - -" and deep indentation.
    most = Math.max(most, /^[\s-]*/.exec(line)?.[0].replace(/[^-]/g, "").length ?? 0);
  }
  return most;
}

function fail(name: string, problems: string[]): AffuseError {
  return new AffuseError(
    "ERR_AFFUSE_CONFIG",
    `${name}: ${problems.slice(0, 10).join("; ")}.`,
    "Correct the file; unknown keys are refused.",
  );
}

/** Reads and checks a YAML file. Errors as parseYaml and readText. */
export function readYaml<S extends z.ZodType>(file: string, schema: S): z.output<S> {
  return parseYaml(readText(file, MAX_BYTES), file, schema);
}
