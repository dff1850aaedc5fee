#!/usr/bin/env node
import { existsSync } from "node:fs";
import { packageRoot } from "../lib/root/root.mjs";

const entry = `${packageRoot}/dist/esm/lib/cli/main.js`;
if (!existsSync(entry)) {
  console.error(`ERR_AFFUSE_NOT_BUILT: ${entry} does not exist. Run: npm run ensure (in ${packageRoot})`);
  process.exit(3);
}
const { main } = await import(entry);
process.exitCode = await main(process.argv);
