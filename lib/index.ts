export { AffuseError, isAffuseError } from "./errors.ts";
