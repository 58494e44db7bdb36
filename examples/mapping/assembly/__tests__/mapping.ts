import { Answers, Batch, config, equal, stopsWith, test } from "@millrace/pdk/assembly/testing";
import { normalized } from "../dates";
import { map } from "../mapping";
import { convert, decimal } from "../money";
import { Mapping } from "../settings";

const CONFIG = '{"currency":"EUR","utc_offset_minutes":60,"currencies":{"EUR":{"exponent":2,"rate":"1"},"USD":{"exponent":2,"rate":"0.92"},"JPY":{"exponent":0,"rate":"0.0061"}}}';

function run(order: string): Answers {
  return Batch.of(order).runWith<Mapping>(config<Mapping>(CONFIG, Mapping.read), map);
}

function order(currency: string, sum: string): string {
  return '{"bestellnummer":"B-1","datum":"01.03.2024 00:30","waehrung":"' + currency + '","summe":' + sum + ',"kunde":{"nr":7,"name":"J\\u00fcrgen","anschrift":{"ort":"Bonn","land":"DE"}}}';
}

test("fields are renamed and nested", () => {
  const answers = run(order("EUR", "25.98"));
  equal(answers.value(0), '{"order_id":"B-1","created_at":"2024-02-29T23:30:00Z","customer":{"id":7,"name":"J\\u00fcrgen","city":"Bonn","country":"DE"},"currency":"EUR","total_minor":2598,"items":[]}');
  equal(answers.emitted(0)[0].key, "B-1");
});

test("amounts are exact", () => {
  equal(decimal("0.29", 2).units, 29);
  equal(decimal("-1234567890123.4", 2).units, -123456789012340);
  equal(decimal("5", 0).units, 5);
  assert(decimal("1.50", 1).ok && !decimal("1.55", 1).ok && !decimal("1.", 2).ok && !decimal("1e3", 2).ok && !decimal("", 2).ok);
  assert(!decimal("1234567890123456", 0).ok);
});

test("currencies are converted, half a unit away from zero", () => {
  equal(convert(1999, 920000, 2, 2).units, 1839);
  equal(convert(-1999, 920000, 2, 2).units, -1839);
  equal(convert(25, 500000, 2, 2).units, 13);
  equal(convert(5000, 6100, 0, 2).units, 3050);
  // 999999.999 at 9999.5, into a currency without decimals.
  equal(convert(999_999_999, 9_999_500_000, 3, 0).units, 9_999_499_990);
  equal(convert(-2_305_843_008, 4_000_000_000, 4, 0).units, -922_337_203);
  equal(convert(999_999_999_999_999, 1, 0, 2).units, 100_000_000_000);
  assert(!convert(999_999_999_999_999, 9_999_999_999, 0, 4).ok);
});

test("an unknown currency has its code", () => {
  const failure = run(order("XXX", "1")).failure(0)!;
  equal(failure.code, <u32>13);
  equal(failure.message, 'waehrung: no rate for "XXX"');
});

test("an amount with too many decimals fails", () => {
  equal(run(order("JPY", "1.5")).failure(0)!.code, <u32>11);
});

test("positions that are no list fail", () => {
  const failure = run(order("EUR", '1,"positionen":{"artikel":"A-1"}')).failure(0)!;
  equal(failure.code, <u32>10);
  equal(failure.message, "positionen is no list");
});

test("dates", () => {
  equal(normalized("24.12.2026", 0), "2026-12-24T00:00:00Z");
  equal(normalized("31.12.2026 23:30", -60), "2027-01-01T00:30:00Z");
  equal(normalized("01.01.2026 00:30", 60), "2025-12-31T23:30:00Z");
  assert(normalized("30.02.2026", 0) == null && normalized("1.2.2026", 0) == null && normalized("24.12.2026T18:05", 0) == null);
});

stopsWith("a rate that is none", "with.currencies.EUR.rate: -1 is no rate", () => {
  config<Mapping>('{"currency":"EUR","currencies":{"EUR":{"exponent":2,"rate":"-1"}}}', Mapping.read);
});
