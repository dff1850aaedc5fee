// The one place that knows where the package lies. It is plain JavaScript, chosen by the "#root" import condition,
// because `import.meta` does not exist in CommonJS and `__dirname` does not exist in ES modules.
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");
export const requireFromRoot = createRequire(path.join(packageRoot, "package.json"));
