// What a plugin exports. The author's file passes it on with one line:
//   export * from "@millrace/pdk/assembly/exports";

import * as buffer from "./buffer";
import { log } from "./host";
import { writeManifest } from "./manifest";
import { configure, declared, process } from "./stage";
import { View } from "./view";

const SLACK: u32 = 64; // the scanner reads blocks of 64 bytes

const NO_STAGE: string = "the plugin has no stage: call stage(f) at the top level of its file";

let request: usize = 0;
let size: u32 = 0;

/** The major version of the ABI; never called. */
export function stage_abi_1(): void {}

/** A buffer of that many bytes, until the next call of it. */
export function stage_alloc(n: u32): usize {
  if (n > 0xffffff00) return 0;
  if (n + SLACK > size) {
    if (request) heap.free(request);
    request = 0;
    size = 0;
    request = heap.alloc(n + SLACK);
    size = n + SLACK;
  }
  return request;
}

/** Takes the configuration; 0 if it is taken. */
export function stage_init(at: usize, length: u32): i32 {
  const runner = declared();
  const why = runner == null ? NO_STAGE : configure(runner, View.of(at, at + length));
  if (why == null) return 0;
  log.error(why);
  return 1;
}

/** Answers a batch: the result's address << 32 | its length; 0 if it is given up. */
export function stage_batch(at: usize, length: u32): u64 {
  const runner = declared();
  if (runner == null) {
    log.error(NO_STAGE);
    return 0;
  }
  return process(runner, at, length);
}

/** The manifest's address << 32 | its length; for build tools. */
export function stage_manifest(): u64 {
  if (declared() == null) throw new Error(NO_STAGE);
  buffer.truncate(0);
  writeManifest();
  return (<u64>buffer.address(0) << 32) | <u64>buffer.length();
}
