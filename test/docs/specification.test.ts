/** Every section of the specification that the repository quotes is there, and so is every operator and file that it names. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { operators } from "../../lib/kernels/index.ts";

const page = readFileSync(path.join(packageRoot, "docs", "specification.md"), "utf8");
const headings = new Set(
  [...page.matchAll(/^#{2,3} (\d(?:\.\d)?)\.? /gm)].map(([, number]) => number as string),
);

const FOLDERS = ["kernels", "native", "lib", "bench", "docs", "test", "examples"];
const TEXT = /\.(cc|cu|h|c|ts|mjs|py|md)$/;

/** Texts by path, with comments that run over several lines joined. */
function* texts(): Generator<[string, string]> {
  for (const folder of FOLDERS) {
    for (const entry of readdirSync(path.join(packageRoot, folder), { recursive: true })) {
      const file = path.join(folder, String(entry));
      // This file quotes sections that are not there.
      if (!TEXT.test(file) || file.endsWith("specification.test.ts")) continue;
      yield [
        file,
        readFileSync(path.join(packageRoot, file), "utf8").replace(/\n[ \t]*(?:\*|\/\/|#)?[ \t]*/g, " "),
      ];
    }
  }
}

/** Numbers of "spec 1.6, 2.2", "spec section 3", "(section 4)" of the specification, "the specification's (2.1, 1.2)". */
function quoted(text: string): string[] {
  const list = String.raw`((?:\d(?:\.\d)?)(?:(?:, | and )\d(?:\.\d)?)*)(?![\d.]*\d)`;
  const quote = new RegExp(String.raw`\bspec(?:ification)?(?:'s)?,? \(?(?:sections? )?${list}`, "gi");
  return [...text.matchAll(quote)].flatMap(([, numbers]) => (numbers as string).split(/, | and /));
}

test("quotations are found in every form that is used", () => {
  for (const [text, expected] of [
    ["maps (spec 1.6, 2.2).", ["1.6", "2.2"]],
    ["sum (modality weighting, spec 2.1)", ["2.1"]],
    ["of P1 (spec 2.1, structure `weighted`)", ["2.1"]],
    ["masks made from it (spec section 0).", ["0"]],
    ["the specification (section 4) and", ["4"]],
    ["the specification's (2.1, 1.2, 1.4, 1.5).", ["2.1", "1.2", "1.4", "1.5"]],
    ["the specification's section 3, with", ["3"]],
    ["const spec = 16; program.spec().values", []],
  ] as [string, string[]][])
    assert.equal(quoted(text), expected, text);
});

test("every section that is quoted has a heading", () => {
  const found = new Map<string, string[]>();
  for (const [file, text] of texts())
    for (const number of quoted(text)) found.set(number, [...(found.get(number) ?? []), file]);
  const dangling = [...found].filter(([number]) => !headings.has(number));
  assert.equal(dangling, [], `no such section in docs/specification.md`);
  const total = [...found.values()].reduce((sum, files) => sum + files.length, 0);
  assert.ok(total > 80, `${total} quotations`);
});

test("the typed operators' numbers are sections", () => {
  const text = readFileSync(path.join(packageRoot, "lib", "kernels", "typed.ts"), "utf8");
  const numbers = [...text.matchAll(/^ ?\/?\*.*?\((\d\.\d)\)/gm)].map(([, number]) => number as string);
  assert.ok(numbers.length > 4, `${numbers.length} numbers`);
  for (const number of numbers) assert.ok(headings.has(number), number);
});

test("the files that the specification names exist", () => {
  const all = readdirSync(path.join(packageRoot, "test"), { recursive: true }).map((file) =>
    path.basename(String(file)),
  );
  const names = [...page.matchAll(/`([\w./-]+\/[\w./-]+|[\w-]+\.test\.ts)`/g)].map(
    ([, name]) => name as string,
  );
  assert.ok(names.length > 30, `${names.length} names`);
  for (const name of names)
    assert.ok(name.includes("/") ? existsSync(path.join(packageRoot, name)) : all.includes(name), name);
});

test("the specification has every operator", () => {
  const words = new Set(page.match(/\w+/g));
  for (const { name, summary } of operators()) {
    if (!name.endsWith(".backward")) assert.ok(words.has(name), name);
    for (const number of quoted(summary)) assert.ok(headings.has(number), `${name}: ${summary}`);
  }
});

test.run();
