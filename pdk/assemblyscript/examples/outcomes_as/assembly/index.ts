// Every outcome that a stage can have: the header `do` of a record names what
// becomes of it. It is a tour of the kit, and the guest of its tests.

import { Answer, Obj, Out, Record, Settings, Value, count, describe, fail, log, output, retryAfter, stageWith, toJson } from "@millrace/pdk";

export * from "@millrace/pdk/assembly/exports";

const AUDIT = output("audit");
const LATE = output("late");

describe({
  name: "outcomes",
  version: "1.0.0",
  sample: ['{"key":"k","value":{"a":1},"headers":[{"key":"do","value":"upper"}]}', '{"key":"k","value":"plain"}'],
  config: '{"type":"object","properties":{"greeting":{"type":"string"},"copies":{"type":"integer"},"codes":{"type":"object"}}}',
  memoryMB: 8,
  fuelPerRecord: 400000,
});

class Rules {
  greeting: string;
  copies: i64;
  codes: Map<string, u32> = new Map();

  constructor(settings: Settings) {
    this.greeting = settings.stringOr("greeting", "hello");
    this.copies = settings.integerOr("copies", 2);
    const codes = settings.object("codes");
    const names = codes.names();
    for (let i = 0; i < names.length; i++) this.codes.set(names[i], <u32>codes.integer(names[i]));
  }
}

function act(r: Record, out: Out, rules: Rules): Answer {
  const header = r.header("do");
  const verb = header == null ? "pass" : header.text();
  if (verb == "pass") return out.pass();
  if (verb == "own") return own(r, out);
  if (verb == "drop") return out.drop();
  if (verb == "upper") return out.emit(r.text().toUpperCase());
  if (verb == "greet") return out.write().put(rules.greeting).push(0x20).put(r.bytes()).emit();
  if (verb == "copies") {
    for (let i: i64 = 0; i < rules.copies; i++) out.emit("copy " + i.toString());
    return out.end();
  }
  if (verb == "fail") {
    const reason = r.text();
    return fail(rules.codes.has(reason) ? rules.codes.get(reason) : 9, "refused: " + reason);
  }
  if (verb == "fail and pass") {
    out.emit("taken back");
    fail(8, "it stays");
    return out.pass();
  }
  if (verb == "amount") {
    const amount = r.json().get("amount");
    if (amount == null) return fail(21, "no amount");
    if (!amount.isNumber) return fail(22, "amount is no number");
    return out.emit((<i64>(amount.number() * 100)).toString());
  }
  if (verb == "retry") return retryAfter(5000, 30, "the rates are not there yet");
  if (verb == "throw") throw new Error("no rule for " + r.text());
  if (verb == "index") return out.emit(r.bytes()[r.bytes().length].toString());
  if (verb == "null") return out.emit(r.header("none")!);
  if (verb == "audit") {
    out.pass();
    out.to(AUDIT).key("audited").header("why", "asked").emit(r.bytes());
    return out.to(LATE).noKey().noHeaders().timestamp(r.now).partition(3).emit("late");
  }
  if (verb == "tombstone") return out.record().emitNull();
  if (verb == "unfinished") {
    out.write().put("let go");
    return out.emit("finished");
  }
  if (verb == "given up") {
    const to = out.write().put("given up");
    out.emit("another");
    return to.emit();
  }
  if (verb == "unanswered") return stale;
  if (verb == "log") {
    log.info("seen " + r.text());
    log.warn("in attempt " + r.attempt.toString());
    count("seen");
    count("bytes", r.bytes().length);
    return out.pass();
  }
  if (verb == "members") {
    const object = Obj.read(r.bytes());
    const fault = object.fault;
    return out.emit(fault == null ? object.length.toString() : fault);
  }
  if (verb == "valid") return out.emit(Value.read(r.bytes()) == null ? "no" : "yes");
  if (verb == "decoded") return decoded(r, out);
  if (verb == "rewrite") return rewrite(r, out);
  if (verb == "number") return out.emit(toJson(r.json().get("n")!.number()));
  if (verb == "garbage") {
    let text = "";
    for (let i = 0; i < 200; i++) text += "garbage";
    return out.emit(text.length.toString());
  }
  if (verb == "again") {
    const to = out.record().key("again");
    to.write().put("let go");
    return to.pass();
  }
  if (verb == "twice") {
    const to = out.write().put("once");
    to.emit();
    return to.emit();
  }
  if (verb == "large") return out.emit(new Uint8Array(1 << 20).fill(0x78));
  return fail(2, "do: " + verb + " is unknown");
}

// An answer to another record, as an author might keep one.
const stale: Answer = changetype<Answer>(<usize>1);

function own(r: Record, out: Out): Answer {
  const value = r.value();
  return value == null ? out.record().emitNull() : out.emit(value);
}

/** Names and strings of an object, decoded and written again. */
function decoded(r: Record, out: Out): Answer {
  const object = r.json();
  const w = out.write().list();
  for (let i = 0; i < object.length; i++) {
    const value = object.value(i);
    w.item(object.name(i));
    if (value.isString) w.item(value.text());
    else w.item(value);
  }
  return w.emit();
}

/** Does to each member what its name says. */
function rewrite(r: Record, out: Out): Answer {
  const to = out.rewrite(r.scan());
  while (to.next()) {
    if (to.is("remove")) to.remove();
    else if (to.is("rename")) to.rename('re"named');
    else if (to.is("set")) to.set([1, 2]);
    else if (to.is("both")) {
      to.rename("b");
      to.set<string | null>(null);
    } else if (to.is("splice")) to.splice(1, to.value.length - 1, "é");
    else if (to.is("add")) to.add("added", 0.5);
    else if (to.is("gr\u00f6\u00dfe")) to.set(true);
  }
  return to.emit();
}

stageWith<Rules>(act, (settings: Settings): Rules => new Rules(settings));
