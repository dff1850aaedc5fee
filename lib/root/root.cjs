// CommonJS twin of root.mjs.
const { createRequire } = require("node:module");
const path = require("node:path");

exports.packageRoot = path.resolve(__dirname, "..", "..");
exports.requireFromRoot = createRequire(path.join(exports.packageRoot, "package.json"));
