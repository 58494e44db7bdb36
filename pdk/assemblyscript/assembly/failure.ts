// The failure of the record under way. It stays: what the stage does after it
// changes nothing.

export const FAIL: u8 = 3;
export const RETRY: u8 = 2;

let pending: bool = false;
let outcome: u8 = 0;
let delay: i64 = 0;
let code: u32 = 0;
let message: string = "";

/** The record fails, unless it has already. */
export function set(failCode: u32, text: string): void {
  keep(FAIL, 0, failCode, text);
}

/** The record is tried again later, unless it has failed already. */
export function retry(millis: i64, failCode: u32, text: string): void {
  keep(RETRY, max<i64>(millis, 0), failCode, text);
}

function keep(how: u8, millis: i64, failCode: u32, text: string): void {
  if (pending) return;
  pending = true;
  outcome = how;
  delay = millis;
  code = failCode;
  message = text;
}

// @ts-ignore: decorator
@inline
export function isPending(): bool {
  return pending;
}

// @ts-ignore: decorator
@inline
export function pendingOutcome(): u8 {
  return outcome;
}

// @ts-ignore: decorator
@inline
export function pendingDelay(): i64 {
  return delay;
}

// @ts-ignore: decorator
@inline
export function pendingCode(): u32 {
  return code;
}

// @ts-ignore: decorator
@inline
export function pendingMessage(): string {
  return message;
}

export function clear(): void {
  pending = false;
  message = "";
}
