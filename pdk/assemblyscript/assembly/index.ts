// Write Millrace stages in AssemblyScript. A plugin is a function and two lines:
//
//   import { Answer, Out, Record, fail, stage } from "@millrace/pdk";
//   export * from "@millrace/pdk/assembly/exports";
//
//   stage((r: Record, out: Out): Answer => {
//     const event = r.json();
//     if (!event.has("id")) return fail(7, "an event without id");
//     return out.pass();
//   });

import { aborted } from "./host";

export { Answer, Out, Output, fail, retryAfter } from "./answer";
export { Settings } from "./config";
export { Emit, Writer } from "./emit";
export { count, log } from "./host";
export { Names } from "./json/names";
export { Obj } from "./json/object";
export { Rewrite } from "./json/rewrite";
export { Kind, Value } from "./json/value";
export { toJson } from "./json/write";
export { Manifest, describe, output } from "./manifest";
export { Header, Record } from "./record";
export { stage, stageWith } from "./stage";
export { View } from "./view";

/**
 * What `throw` and a failed check of the language come to, in a build with
 * `--use abort=~lib/@millrace/pdk/assembly/index/abort`. The record that was
 * under way fails, with the message and its place in the source.
 */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  aborted(message, file, line, column);
}
