import { Settings } from "@millrace/pdk";
import { RATE_PLACES, decimal } from "./money";

/** What is known of a currency. */
export class Currency {
  constructor(
    /** How many decimals it has. */
    readonly exponent: i32,
    /** What one is worth in the currency of the flow, in units of 10^-RATE_PLACES. */
    readonly rate: i64,
  ) {}
}

/** The flow's `with:`. */
export class Mapping {
  currency: string;
  offset: i32;
  currencies: Map<string, Currency> = new Map();

  constructor(settings: Settings) {
    this.currency = settings.string("currency");
    this.offset = <i32>settings.integerOr("utc_offset_minutes", 0);
    const table = settings.object("currencies");
    const names = table.names();
    for (let i = 0; i < names.length; i++) {
      const entry = table.object(names[i]);
      const text = entry.string("rate");
      const rate = decimal(text, RATE_PLACES);
      if (!rate.ok || rate.units <= 0) entry.refuse("rate", text + " is no rate: a positive decimal number with at most 6 decimals");
      this.currencies.set(names[i], new Currency(<i32>entry.integer("exponent"), rate.units));
    }
    if (!this.currencies.has(this.currency)) settings.refuse("currency", this.currency + " is not among the currencies");
  }

  static read(settings: Settings): Mapping {
    return new Mapping(settings);
  }
}

/** What nodes hold `with:` against. */
export const SCHEMA = `{
  "type": "object",
  "properties": {
    "currency": {"type": "string", "description": "The currency that all amounts are converted to."},
    "utc_offset_minutes": {"type": "integer", "minimum": -840, "maximum": 840, "description": "How far the partner's clock is east of UTC."},
    "currencies": {
      "type": "object",
      "additionalProperties": {
        "type": "object",
        "properties": {
          "exponent": {"type": "integer", "minimum": 0, "maximum": 4, "description": "How many decimals the currency has."},
          "rate": {"type": "string", "pattern": "^[0-9]{1,4}([.][0-9]{1,6})?$", "description": "What one of it is worth in the flow's currency."}
        },
        "required": ["exponent", "rate"],
        "additionalProperties": false
      }
    }
  },
  "required": ["currency", "currencies"],
  "additionalProperties": false
}`;
