/** Started by isa-threads.test.ts with AFFUSE_CPU set: checks every operator and prints what it found as JSON. */
import { casesOf } from "./cases.ts";
import { addon, checkRun, forwards, runsOf } from "./suite.ts";

const found: string[] = [];
const names = new Set<string>();
let runs = 0;
for (const info of forwards) {
  for (const c of casesOf(info)) {
    for (const run of runsOf(addon.call, info, c)) {
      names.add(run.info.name);
      found.push(...checkRun(addon.call, run, [1, 2, 3]));
      runs++;
    }
  }
}
process.stdout.write(JSON.stringify({ isa: addon.cpu().isa, operators: names.size, runs, found }));
