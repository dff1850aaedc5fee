/**
 * The one error class of the package. Every error that a user can cause carries a stable code, says what was
 * expected, what came and what to do about it; the command line prints `message` without a stack trace.
 */
export class AffuseError extends Error {
  override readonly name = "AffuseError";
  /** Stable identifier, `ERR_AFFUSE_<WHAT>`; scripts may rely on it. */
  readonly code: string;
  /** What to do, one sentence; may be empty. */
  readonly hint: string;

  /**
   * @param code `ERR_AFFUSE_…`
   * @param message what was expected and what came, with names and figures
   * @param hint what to do about it
   */
  constructor(code: string, message: string, hint = "", options?: ErrorOptions) {
    super(hint ? `${message} ${hint}` : message, options);
    this.code = code;
    this.hint = hint;
  }
}

/** True for any error that carries one of the package's codes, whichever copy of the package threw it. */
export function isAffuseError(error: unknown): error is AffuseError {
  return (
    error instanceof Error &&
    "code" in error &&
    typeof error.code === "string" &&
    error.code.startsWith("ERR_AFFUSE_")
  );
}
