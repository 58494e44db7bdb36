#!/usr/bin/env node
// Runs the unit tests of a stage: compiles each assembly/__tests__/*.ts (or the
// files that are named) with asc, and runs every test() in an instance of its
// own, with a host that keeps what is logged and counted. Exit code 1 if one fails.

import { readdirSync, readFileSync, existsSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const FOLDER = "assembly/__tests__";
const ENTRY = FOLDER + "/__entry__.ts";

const options = process.argv.slice(2).filter((a) => a.startsWith("--"));
let files = process.argv.slice(2).filter((a) => !a.startsWith("--"));
if (files.length === 0 && existsSync(FOLDER)) {
  files = readdirSync(FOLDER).filter((f) => f.endsWith(".ts")).sort().map((f) => FOLDER + "/" + f);
}
if (files.length === 0) {
  console.error("there are no tests: write one in " + FOLDER + "/");
  process.exit(1);
}

// The compiler of the project, in the nearest node_modules, or of MILLRACE_ASC.
async function compiler() {
  let path = process.env.MILLRACE_ASC;
  for (let dir = resolve("."); !path; dir = dirname(dir)) {
    const near = join(dir, "node_modules", "assemblyscript", "dist", "asc.js");
    if (existsSync(near)) path = near;
    else if (dirname(dir) === dir) throw new Error("there is none in node_modules");
  }
  return import(pathToFileURL(path).href);
}

let asc;
try {
  asc = await compiler();
} catch (e) {
  console.error("there is no AssemblyScript compiler: npm install --save-dev assemblyscript@0.28.20\n" + e.message);
  process.exit(1);
}

async function compile(file) {
  const entry = `export { __tests, __name, __stops, __run } from "@millrace/pdk/assembly/testing";\nimport "@millrace/pdk";\nimport "./${relative(FOLDER, file).replace(/\.ts$/, "").replaceAll("\\", "/")}";\n`;
  const written = new Map();
  const words = [];
  const stream = { write: (s) => words.push(s) };
  const { error } = await asc.main(
    [ENTRY, "--outFile", "test.wasm", "--debug", "--runtime", "incremental", "--enable", "simd", "--exportStart", "_initialize",
      "--use", "abort=~lib/@millrace/pdk/assembly/index/abort", ...options],
    {
      stdout: stream,
      stderr: stream,
      readFile(name, base) {
        if (name === ENTRY) return entry;
        const path = resolve(base, name);
        return existsSync(path) ? readFileSync(path, "utf8") : null;
      },
      writeFile: (name, content) => written.set(name, content),
      listFiles: () => [],
    },
  );
  const said = words.map((w) => (typeof w === "string" ? w : new TextDecoder().decode(w))).join("");
  if (said !== "") console.error(said);
  if (error) throw new Error(error.message);
  return new WebAssembly.Module(written.get("test.wasm"));
}

// An instance and what it logs; its memory is read at the time of the call.
function start(module) {
  const logs = [];
  const bytes = (at, length) => new TextDecoder().decode(new Uint8Array(instance.exports.memory.buffer, at, length));
  const imports = {
    stage: {
      log: (level, at, length) => logs.push({ level: level & 255, line: bytes(at, length) }),
      count: () => {},
    },
  };
  const instance = new WebAssembly.Instance(module, imports);
  instance.exports._initialize();
  const text = (at) => bytes(at, new Uint32Array(instance.exports.memory.buffer)[(at >> 2) - 1]);
  return { exports: instance.exports, logs, text };
}

const levels = ["debug", "info", "warn", "error"];
let failed = 0;
let passed = 0;
for (const file of files) {
  let module;
  try {
    module = await compile(file);
  } catch (e) {
    console.log(`${file}: ${e.message}`);
    failed++;
    continue;
  }
  for (let i = 0, n = start(module).exports.__tests(); i < n; i++) {
    const { exports, logs, text } = start(module);
    const name = text(exports.__name(i));
    const stops = text(exports.__stops(i));
    let stopped = null;
    try {
      exports.__run(i);
    } catch (e) {
      // The last line of a throw is what abort says.
      stopped = e.message.includes("unreachable") && logs.at(-1)?.level === 3 ? logs.pop().line : e.message;
    }
    const good = stops === "" ? stopped === null : stopped !== null && stopped.includes(stops);
    console.log(`${good ? "ok  " : "FAIL"} ${name}`);
    if (good) {
      passed++;
      continue;
    }
    failed++;
    for (const l of logs) console.log(`     ${levels[l.level]}: ${l.line}`);
    console.log("     " + (stopped ?? `it returned, but should stop with "${stops}"`).replaceAll("\n", "\n     "));
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
