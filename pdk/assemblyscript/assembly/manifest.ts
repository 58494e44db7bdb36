import { Output } from "./answer";
import * as buffer from "./buffer";
import { appendJson, quoted } from "./json/write";
import { declared } from "./stage";

/**
 * What the plugin says of itself. Build tools read it and put it beside the
 * code; nothing of it is needed to run.
 */
export class Manifest {
  /** [namespace/]name, in lower-case letters, digits and - _ . */
  name: string = "";
  /** A semantic version, as 1.2.0. */
  version: string = "";
  /** Records for the warm-up and for tests, each as JSON: {"key":..., "value":...}. */
  sample: string[] = [];
  /** The JSON Schema of the configuration, which nodes hold `with:` against. */
  config: string = "";
  /** The memory that it needs at most, in MiB; 0: the node's default. */
  memoryMB: i32 = 0;
  /** Its budget a record in units of fuel; 0: the node's default. */
  fuelPerRecord: i64 = 0;
  /** Whether the same input gives the same output. */
  deterministic: bool = true;
}

let manifest: Manifest = new Manifest();
const outputs: string[] = ["default"];

/** Declares the plugin's manifest. It stands once, at the top level of the file. */
export function describe(m: Manifest): void {
  manifest = m;
}

/** Declares an output beside the default one, at the top level of the file. */
export function output(name: string): Output {
  outputs.push(name);
  return changetype<Output>(<usize>(outputs.length - 1));
}

/** The name of an output. */
export function outputName(index: i32): string {
  return index < outputs.length ? outputs[index] : "?";
}

/** Writes the manifest into the result buffer. */
export function writeManifest(): void {
  const m = manifest;
  buffer.text('{"abi":1');
  if (m.name != "") member("name", m.name);
  if (m.version != "") member("version", m.version);
  buffer.text(',"mode":"call"');
  if (outputs.length > 1) member("outputs", outputs);
  if (m.sample.length > 0) buffer.text(',"sample":[' + m.sample.join(",") + "]");
  const runner = declared();
  if (m.config != "") buffer.text(',"config":' + m.config);
  else if (runner != null && !runner.configurable) buffer.text(',"config":{"type":"object","additionalProperties":false}');
  if (m.memoryMB > 0) member("memory_mb", m.memoryMB);
  if (m.fuelPerRecord > 0) member("fuel_per_record", m.fuelPerRecord);
  if (!m.deterministic) buffer.text(',"deterministic":false');
  buffer.push(0x7d);
}

function member<T>(name: string, value: T): void {
  buffer.push(0x2c);
  quoted(name);
  buffer.push(0x3a);
  appendJson<T>(value);
}
