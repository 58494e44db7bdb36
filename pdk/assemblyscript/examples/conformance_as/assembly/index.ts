// The conformance protocol by the kit: each record is answered as a command
// says, so that the golden vectors of the kits can ask for anything.

import { Answer, Emit, Out, Record, Settings, View, count, describe, fail, log, output, retryAfter, stageWith } from "@millrace/pdk";

export * from "@millrace/pdk/assembly/exports";

const AUDIT = output("audit");
const grown: Uint8Array[] = [];

describe({
  name: "millrace/conformance",
  version: "1.0.0",
  sample: ['{"key":"k","value":{"a":1}}'],
  memoryMB: 64,
});

class Commands {
  text: View;
  /** The commands for records that have none. */
  commands: string;

  constructor(settings: Settings) {
    this.text = settings.text;
    this.commands = settings.stringOr("do", "");
    settings.ignoreOthers();
  }
}

stageWith<Commands>(obey, (settings: Settings): Commands => new Commands(settings));

function obey(r: Record, out: Out, config: Commands): Answer {
  const headers = r.headers();
  let commands = config.commands;
  for (let i = headers.length - 1; i >= 0; i--) {
    if (headers[i].name.is("do")) commands = headers[i].value.text();
  }
  const list = commands.split("; ");
  for (let i = 0; i < list.length; i++) one(list[i], r, out, config);
  return out.end();
}

/** What stands behind the first space. */
function behind(text: string): string {
  const at = text.indexOf(" ");
  return at < 0 ? "" : text.substring(at + 1);
}

/** What stands before it. */
function word(text: string): string {
  const at = text.indexOf(" ");
  return at < 0 ? text : text.substring(0, at);
}

function number(text: string): i64 {
  return text == "" ? 0 : I64.parseInt(text);
}

function one(command: string, r: Record, out: Out, config: Commands): void {
  const verb = word(command);
  const rest = behind(command);
  const first = word(rest);
  const more = behind(rest);
  if (verb == "copy") copy(r, out);
  else if (verb == "drop") out.drop();
  else if (verb == "retry") retryAfter(number(first), <u32>number(word(more)), behind(more));
  else if (verb == "fail") fail(<u32>number(first), more);
  else if (verb == "value") out.emit(rest);
  else if (verb == "upper") out.emit(upper(r.bytes()));
  else if (verb == "size") out.emit(new Uint8Array(<i32>number(first)).fill(0x78));
  else if (verb == "tombstone") out.record().emitNull();
  else if (verb == "key") out.record().key(rest).pass();
  else if (verb == "null-key") out.record().noKey().pass();
  else if (verb == "time") out.record().timestamp(number(first)).pass();
  else if (verb == "header") out.record().header(first, more).pass();
  else if (verb == "headers") headers(out.record().noHeaders(), <i32>number(first)).pass();
  else if (verb == "output" && number(first) == 1) out.to(AUDIT).pass();
  else if (verb == "partition") out.record().partition(<i32>number(first)).pass();
  else if (verb == "emit") for (let i: i64 = 0; i < number(first); i++) out.emit(i.toString());
  else if (verb == "facts") out.emit(facts(r));
  else if (verb == "config") out.emit(config.text);
  else if (verb == "grow") grow(<i32>number(first), out);
  else if (verb == "log") say(first, more);
  else if (verb == "count") count(first, F64.parseFloat(more == "" ? "1" : more));
  else out.pass();
}

function copy(r: Record, out: Out): void {
  let to = out.record().noHeaders().timestamp(r.timestamp);
  const headers = r.headers();
  for (let i = 0; i < headers.length; i++) to = to.header(headers[i].name, headers[i].value);
  const key = r.key();
  if (key == null) to = to.noKey();
  else to = to.key(key.bytes());
  const value = r.value();
  if (value == null) to.emitNull();
  else to.emit(value.bytes());
}

function upper(value: View): Uint8Array {
  const bytes = value.bytes();
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] >= 0x61 && bytes[i] <= 0x7a) bytes[i] -= 0x20;
  }
  return bytes;
}

function headers(to: Emit, n: i32): Emit {
  to = to.noHeaders();
  for (let i = 0; i < n; i++) to = to.header("h" + i.toString(), "v" + i.toString());
  return to;
}

function grow(mebibytes: i32, out: Out): void {
  grown.push(new Uint8Array(mebibytes << 20).fill(1));
  out.pass();
}

function say(level: string, text: string): void {
  if (level == "debug") log.debug(text);
  else if (level == "warn") log.warn(text);
  else if (level == "error") log.error(text);
  else log.info(text);
}

function length(bytes: View | null): string {
  return bytes == null ? "null" : bytes.length.toString();
}

/** What the stage sees of the record beside key, value and headers. */
function facts(r: Record): string {
  const trace = r.traceId;
  return (
    "topic=" + r.topic +
    " partition=" + r.partition.toString() +
    " offset=" + r.offset.toString() +
    " timestamp=" + r.timestamp.toString() +
    " attempt=" + r.attempt.toString() +
    " redelivered=" + r.redelivered.toString() +
    " key=" + length(r.key()) +
    " value=" + length(r.value()) +
    " headers=" + r.headers().length.toString() +
    " now=" + r.now.toString() +
    " trace=" + (trace == null ? "00000000000000000000000000000000" : trace)
  );
}
