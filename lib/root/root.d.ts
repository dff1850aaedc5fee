/** Absolute path of the installed package (the folder that holds package.json), without a trailing separator. */
export const packageRoot: string;
/** CommonJS `require` that resolves from the package root: for native addons and optional peers. */
export const requireFromRoot: NodeJS.Require;
