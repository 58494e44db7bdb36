// Values as JSON.

import * as buffer from "../buffer";
import * as utf8 from "../utf8";
import { Value } from "./value";

/**
 * Appends a value's JSON text: of a string, bool, number, Array of such, Value,
 * or null. What is no finite number is null: JSON has no word for it.
 */
export function appendJson<T>(value: T): void {
  if (isBoolean<T>()) {
    buffer.text(value ? "true" : "false");
  } else if (isInteger<T>()) {
    buffer.text(value.toString());
  } else if (isFloat<T>()) {
    const text = value.toString();
    buffer.text(!isFinite(value) ? "null" : text.endsWith(".0") ? text.slice(0, -2) : text);
  } else if (isNullable<T>() && changetype<usize>(value) == 0) {
    buffer.text("null");
  } else if (isString<T>()) {
    quoted(changetype<string>(value));
  } else if (isArray<T>()) {
    appendList<NonNullable<T>>(value as NonNullable<T>);
  } else if (!isManaged<T>() && offsetof<T>() == offsetof<Value>()) {
    const v = changetype<Value>(value);
    buffer.copy(v.at, v.end);
  } else {
    ERROR("JSON is made of a string, bool, number, Array of such, or Value; of a View take its text()");
  }
}

function appendList<T>(list: T): void {
  buffer.push(0x5b);
  for (let i = 0; i < list.length; i++) {
    if (i > 0) buffer.push(0x2c);
    appendJson<valueof<T>>(list[i]);
  }
  buffer.push(0x5d);
}

/** A value's JSON text. */
export function toJson<T>(value: T): string {
  const at = buffer.length();
  appendJson<T>(value);
  const text = String.UTF8.decodeUnsafe(buffer.address(at), buffer.length() - at);
  buffer.truncate(at);
  return text;
}

/** Appends the text as a JSON string. */
// @ts-ignore: decorator
@inline
export function quoted(text: string): void {
  buffer.push(0x22);
  if (!buffer.plain(changetype<usize>(text), utf8.units(changetype<usize>(text)))) escaped(text);
  buffer.push(0x22);
}

function escaped(text: string): void {
  let kept = 0;
  for (let i = 0; i < text.length; i++) {
    const c = <u32>text.charCodeAt(i);
    if (c >= 0x20 && c != 0x22 && c != 0x5c) continue;
    buffer.text(text.substring(kept, i));
    kept = i + 1;
    buffer.push(0x5c);
    if (c == 0x0a) buffer.push(0x6e);
    else if (c == 0x0d) buffer.push(0x72);
    else if (c == 0x09) buffer.push(0x74);
    else if (c < 0x20) buffer.text("u00" + (c >> 4).toString(16) + (c & 15).toString(16));
    else buffer.push(<u8>c);
  }
  buffer.text(text.substring(kept));
}
