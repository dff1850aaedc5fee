import { AffuseError } from "../errors.ts";
import type { AttributeRule, NativeAddon, OperatorInfo } from "../native/addon.ts";

/** What the graph needs to know of the native side: enough to build and differentiate, without running anything. */
export type OperatorSource = Pick<NativeAddon, "operators" | "infer">;

const tables = new WeakMap<OperatorSource, Map<string, OperatorInfo>>();

/**
 * Looks an operator up in the native registry.
 * @throws AffuseError ERR_AFFUSE_UNKNOWN_OPERATOR
 */
export function operatorInfo(source: OperatorSource, name: string): OperatorInfo {
  let table = tables.get(source);
  if (!table) {
    table = new Map(source.operators().map((info) => [info.name, info]));
    tables.set(source, table);
  }
  const info = table.get(name);
  if (info) return info;
  throw new AffuseError(
    "ERR_AFFUSE_UNKNOWN_OPERATOR",
    `expected a registered operator, got "${name}".`,
    "`affuse op --list` names all of them.",
  );
}

/** The rule of one attribute. @throws AffuseError ERR_AFFUSE_ATTRIBUTE */
export function attributeRule(info: OperatorInfo, name: string): AttributeRule {
  const rule = info.attributes.find((candidate) => candidate.name === name);
  if (rule) return rule;
  const known = info.attributes.map((candidate) => candidate.name).join(", ") || "none";
  throw new AffuseError(
    "ERR_AFFUSE_ATTRIBUTE",
    `expected an attribute of ${info.name} (${known}), got "${name}".`,
  );
}
