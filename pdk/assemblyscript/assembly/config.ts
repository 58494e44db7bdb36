import { Kind, Value } from "./json/value";
import { Obj } from "./json/object";
import { View } from "./view";

/**
 * The settings of the flow's `with:`, or of an object in it. Each is asked for
 * by name, as what it must be; what is missing, something else, or never asked
 * for is a fault, and the plugin does not start. All faults are reported.
 */
export class Settings {
  private asked: string[] = [];
  private found: string[] = [];
  private inner: Settings[] = [];
  private strict: bool = true;

  constructor(
    private members: Obj,
    private place: string,
  ) {}

  /** The settings as they were given, in JSON. It lives as long as the plugin. */
  get text(): View {
    return View.of(this.members.at, this.members.end);
  }

  /** Takes settings that are never asked for. */
  ignoreOthers(): void {
    this.strict = false;
  }

  /** Why the configuration is not taken, each with its place; [] if it is. */
  faults(): string[] {
    let all = this.found;
    for (let i = 0; this.strict && i < this.members.length; i++) {
      const name = this.members.name(i);
      if (!this.asked.includes(name)) all.push(this.place + ': there is no setting "' + name + '"; there are ' + this.asked.join(", "));
    }
    for (let i = 0; i < this.inner.length; i++) all = all.concat(this.inner[i].faults());
    return all;
  }

  /** Says that the setting is not taken, and why. */
  refuse(name: string, why: string): void {
    this.found.push(this.place + "." + name + ": " + why);
  }

  /** The names of all settings, for objects whose names the author does not know. */
  names(): string[] {
    const all = new Array<string>(this.members.length);
    for (let i = 0; i < all.length; i++) all[i] = this.members.name(i);
    return all;
  }

  /** The setting as JSON; null if it is not given. A value lives as long as the plugin. */
  value(name: string): Value | null {
    if (!this.asked.includes(name)) this.asked.push(name);
    return this.members.get(name);
  }

  /** A string that must be given. */
  string(name: string): string {
    const v = this.required(name);
    return v != null && this.isKind(name, v, Kind.String, "a string") ? v.text() : "";
  }

  /** A string, `other` if it is not given. */
  stringOr(name: string, other: string): string {
    return this.value(name) == null ? other : this.string(name);
  }

  /** A list of strings, empty if it is not given. */
  strings(name: string): string[] {
    const all: string[] = [];
    const v = this.value(name);
    if (v == null || !this.isKind(name, v, Kind.List, "a list")) return all;
    const items = v.items();
    for (let i = 0; i < items.length; i++) {
      if (this.isKind(name + "[" + i.toString() + "]", items[i], Kind.String, "a string")) all.push(items[i].text());
    }
    return all;
  }

  /** A number that must be given. */
  number(name: string): f64 {
    const v = this.required(name);
    return v != null && this.isKind(name, v, Kind.Number, "a number") ? v.number() : NaN;
  }

  /** A number, `other` if it is not given. */
  numberOr(name: string, other: f64): f64 {
    return this.value(name) == null ? other : this.number(name);
  }

  /** An integer that must be given. */
  integer(name: string): i64 {
    const v = this.required(name);
    if (v == null) return 0;
    if (!v.isInteger) this.expected(name, v, "an integer");
    return v.integer();
  }

  /** An integer, `other` if it is not given. */
  integerOr(name: string, other: i64): i64 {
    return this.value(name) == null ? other : this.integer(name);
  }

  /** true or false, `other` if it is not given. */
  boolOr(name: string, other: bool): bool {
    const v = this.value(name);
    return v != null && this.isKind(name, v, Kind.Bool, "true or false") ? v.bool() : other;
  }

  /** The settings of an object, none if it is not given. */
  object(name: string): Settings {
    const v = this.value(name);
    let made = changetype<Obj>(memory.data(64, 16)); // an object without members
    if (v != null && this.isKind(name, v, Kind.Object, "an object")) made = v.object()!;
    const settings = new Settings(made, this.place + "." + name);
    this.inner.push(settings);
    return settings;
  }

  private required(name: string): Value | null {
    const v = this.value(name);
    if (v == null) this.found.push(this.place + ': the setting "' + name + '" is missing');
    return v;
  }

  private isKind(name: string, v: Value, kind: Kind, what: string): bool {
    if (v.kind == kind) return true;
    this.expected(name, v, what);
    return false;
  }

  private expected(name: string, v: Value, what: string): void {
    let text = v.raw.text();
    if (text.length > 40) text = text.slice(0, 40) + "...";
    this.refuse(name, text + " where " + what + " is expected");
  }
}
