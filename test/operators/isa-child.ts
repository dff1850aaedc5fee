/**
 * Started by isa-threads.test.ts with AFFUSE_CPU set and the file that holds every run's reference results
 * and bounds: checks every operator at this level and prints what it found as JSON.
 */
import { readFileSync } from "node:fs";
import { deserialize } from "node:v8";
import { addon, allRuns, checkRun, type Model } from "./suite.ts";

const models = deserialize(readFileSync(process.argv[2] as string)) as Model[];
const found: string[] = [];
const names = new Set<string>();
let runs = 0;
for (const run of allRuns()) {
  names.add(run.info.name);
  found.push(...checkRun(addon.call, run, [1, 2, 3], models[runs++]));
}
if (runs !== models.length) found.push(`${runs} runs, but the file has ${models.length}`);
process.stdout.write(JSON.stringify({ isa: addon.cpu().isa, operators: names.size, runs, found }));
