/** The compiled addon: its surface and how it is found. */
export type * from "./addon.ts";
export { allocateFrames } from "./frames.ts";
export { type LoadAttempt, type LoadOutcome, loadAddon, tryLoadAddon } from "./load.ts";
