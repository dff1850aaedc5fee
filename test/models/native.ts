import type { NativeAddon } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/load.ts";

/** The compiled addon. */
export function native(): NativeAddon {
  return loadAddon();
}
