// Amounts as integers of minor units: no rounding but where a rate asks for it.

/** What a decimal text is, times ten to the power of `places`. */
export class Decimal {
  constructor(
    readonly units: i64,
    /** Whether the text was a number that fits. */
    readonly ok: bool,
  ) {}
}

/**
 * Reads a decimal number, such as 1234.5, as units of 10^-places. More decimals
 * than places are taken only if they are zeros. At most 15 digits.
 */
export function decimal(text: string, places: i32): Decimal {
  const none = new Decimal(0, false);
  const negative = text.startsWith("-");
  let units: i64 = 0;
  let digits = 0;
  let decimals = -1; // behind the point; -1 before it
  for (let i = negative ? 1 : 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == 0x2e && decimals < 0) {
      decimals = 0;
      continue;
    }
    if (c < 0x30 || c > 0x39) return none;
    if (decimals >= 0 && ++decimals > places) {
      if (c != 0x30) return none;
      continue;
    }
    if (++digits > 15) return none;
    units = units * 10 + (c - 0x30);
  }
  if (digits == 0 || decimals == 0) return none;
  for (let i = max(decimals, 0); i < places; i++) {
    if (++digits > 15) return none;
    units *= 10;
  }
  return new Decimal(negative ? -units : units, true);
}

/** How many decimals a rate may have. */
export const RATE_PLACES = 6;

/**
 * The amount in another currency: units of 10^-from become units of 10^-to at
 * a rate of 10^-RATE_PLACES, rounded half away from zero. The factors have at
 * most 15 and 10 digits, so the product is made in parts.
 */
export function convert(units: i64, rate: i64, from: i32, to: i32): Decimal {
  const negative = units < 0;
  const size = negative ? -units : units;
  const divisor = power(RATE_PLACES + from - to);
  if (divisor == 0 || divisor > 10_000_000_000 || rate <= 0 || rate > 9_999_999_999) return new Decimal(0, false);
  const whole = size / divisor;
  const rest = size % divisor;
  if (whole > 999_999_999_999_999_999 / rate) return new Decimal(0, false);
  // rest and rate have ten digits each: the rate is taken in halves.
  const high = rest * (rate / 100_000);
  const low = (high % divisor) * 100_000 + rest * (rate % 100_000) + divisor / 2;
  const made = whole * rate + (high / divisor) * 100_000 + low / divisor;
  return new Decimal(negative ? -made : made, true);
}

function power(n: i32): i64 {
  if (n < 0 || n > 12) return 0;
  let p: i64 = 1;
  for (; n > 0; n--) p *= 10;
  return p;
}
