/** Runs `action` while holding the lock folder; waits for a living holder and takes over from a dead one. */
export function withLock<T>(lock: string, action: () => T | Promise<T>): Promise<T>;
