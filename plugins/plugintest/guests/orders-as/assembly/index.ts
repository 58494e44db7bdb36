// The order stage as a stage/1 plugin in AssemblyScript, without imports.

import * as frame from "./frame";
import * as rule from "./order";

export function stage_abi_1(): void {}

export function stage_alloc(size: u32): usize {
  return frame.requestOf(size);
}

export function stage_batch(request: usize, length: u32): u64 {
  if (!frame.isRequest(request)) return 0;
  let out = frame.begin(request);
  let r = frame.firstRecord(request);
  for (let n = frame.count(request); n > 0; n--) {
    const size = frame.valueLength(r);
    out = frame.room(out, frame.RECORD + rule.orderRoom(size));
    const at = out + frame.RECORD;
    switch (rule.order(at, frame.valueOf(r), size)) {
      case rule.PASS:
        out = frame.answer(out, rule.written, r, frame.EMIT, frame.SAME_KEY | frame.SAME_HEADERS | frame.SAME_TIMESTAMP, 0);
        break;
      case rule.SKIP:
        out = frame.answer(out, at, r, frame.DROP, 0, 0);
        break;
      default:
        out = frame.answer(out, rule.putFault(at), r, frame.FAIL, 0, rule.faultCode);
    }
    r = frame.nextRecord(r);
  }
  return frame.finish(out);
}
