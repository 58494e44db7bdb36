import * as answer from "./answer";
import { Answer, OUT, Out } from "./answer";
import * as arena from "./arena";
import * as buffer from "./buffer";
import { Settings } from "./config";
import { handle, log } from "./host";
import { Obj } from "./json/object";
import { BATCH, Record, enter } from "./record";
import { View } from "./view";

const REQUEST: u16 = 1;
const RESULT: u16 = 2;
const VERSION: u16 = 1;

/**
 * What stands behind the exports: a stage function, by its index, since calls
 * of it are the hot path, and how its configuration is read.
 */
export class Runner {
  /** The configuration's address; 0 if there is none. */
  config: usize = 0;

  constructor(
    readonly index: u32,
    /** Whether the plugin takes a configuration. */
    readonly configurable: bool,
  ) {}

  /** Reads the configuration, if it takes one. */
  read(settings: Settings): void {}
}

class Configured<C> extends Runner {
  private held: C | null = null; // what config is the address of

  constructor(
    index: u32,
    private reader: (settings: Settings) => C,
  ) {
    super(index, true);
  }

  read(settings: Settings): void {
    const made = this.reader(settings);
    this.held = made;
    this.config = changetype<usize>(made);
  }
}

let runner: Runner | null = null;

/** The stage that was declared; null if none was. */
export function declared(): Runner | null {
  return runner;
}

/** Declares the plugin's stage. It stands once, at the top level of the file. */
export function stage(fn: (r: Record, out: Out) => Answer): void {
  declare(new Runner(fn.index, false));
}

/**
 * Declares the plugin's stage with a configuration, which `read` makes of the
 * settings of the flow's `with:`.
 */
export function stageWith<C>(fn: (r: Record, out: Out, config: C) => Answer, read: (settings: Settings) => C): void {
  declare(new Configured<C>(fn.index, read));
}

function declare(made: Runner): void {
  if (runner != null) throw new Error("stage: a plugin has one stage, and it is declared already");
  runner = made;
}

/** The same for tests. */
export function runnerOf(fn: (r: Record, out: Out) => Answer): Runner {
  return new Runner(fn.index, false);
}

/** The same for tests, with a configuration that is made already. */
export function runnerWith<C>(fn: (r: Record, out: Out, config: C) => Answer, config: C): Runner {
  const made = new Runner(fn.index, true);
  made.config = changetype<usize>(config);
  return made;
}

/** Reads a configuration; returns why it is not taken, null if it is. */
export function configure(made: Runner, text: View): string | null {
  // What the configuration's values point to stays.
  const n = <usize>text.length;
  const kept = arena.alloc(n + 64);
  memory.copy(kept, text.at, n);
  const object = Obj.read(View.of(kept, kept + n));
  const fault = object.fault;
  if (fault != null) return "with: " + fault;
  if (!made.configurable) {
    return object.length == 0 ? null : "with: this plugin takes no configuration";
  }
  const settings = new Settings(object, "with");
  made.read(settings);
  const faults = settings.faults();
  arena.keep();
  return faults.length == 0 ? null : faults.join("\n");
}

/** Answers every record of the frame; 0 if it is none of stage/1. */
export function process(made: Runner, frame: usize, length: u32): u64 {
  if (length < <u32>BATCH || load<u16>(frame, 6) != REQUEST) {
    log.error("the batch of " + length.toString() + " bytes is no frame of stage/1");
    return 0;
  }
  enter(frame);
  handle(u32.MAX_VALUE);
  buffer.truncate(0);
  buffer.room(<usize>length + BATCH);
  buffer.skip(BATCH);
  const index = made.index;
  const config = made.config;
  const configured = made.configurable;
  let r = frame + BATCH + load<u32>(frame, 12);
  for (let n = load<u32>(frame, 8); n > 0; n--) {
    arena.reset();
    const record = changetype<Record>(r);
    handle(record.id);
    answer.begin(record);
    if (configured) call_indirect<usize>(index, record, OUT, config);
    else call_indirect<usize>(index, record, OUT);
    answer.finish();
    r += load<u32>(r);
  }
  handle(u32.MAX_VALUE);
  const out = buffer.address(0);
  const written = buffer.length();
  store<u32>(out, <u32>written);
  store<u16>(out, VERSION, 4);
  store<u16>(out, RESULT, 6);
  store<u64>(out, load<u32>(frame, 8), 8);
  store<u64>(out, load<u64>(frame, 16), 16);
  store<u64>(out, load<u64>(frame, 24), 24);
  return (<u64>out << 32) | <u64>written;
}
