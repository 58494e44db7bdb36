import { Answer, Kind, Obj, Out, Record, Value, count, fail } from "@millrace/pdk";
import { normalized } from "./dates";
import { Decimal, convert, decimal } from "./money";
import { Currency, Mapping } from "./settings";

/** The codes of failures, for the flow's rules and whoever looks at the queue. */
export const NO_FIELD = 10;
export const BAD_AMOUNT = 11;
export const BAD_DATE = 12;
export const UNKNOWN_CURRENCY = 13;

/** Makes one of our orders of one of the partner's. */
export function map(r: Record, out: Out, config: Mapping): Answer {
  const order = r.json();
  if (order.has("storniert") && order.get("storniert")!.bool()) return out.drop();
  const number = order.get("bestellnummer");
  if (number == null || !number.isString) return missing("bestellnummer");
  const customer = objectOf(order, "kunde");
  if (customer == null) return missing("kunde");
  const date = order.get("datum");
  if (date == null) return missing("datum");
  const created = normalized(date.text(), config.offset);
  if (created == null) return fail(BAD_DATE, "datum: " + date.raw.text() + " is no date as 24.12.2026 18:05");
  const name = order.get("waehrung");
  if (name == null) return missing("waehrung");
  if (!config.currencies.has(name.text())) {
    count("unknown_currency");
    return fail(UNKNOWN_CURRENCY, "waehrung: no rate for " + name.raw.text());
  }
  const from = config.currencies.get(name.text());
  const to = config.currencies.get(config.currency);
  const total = amount(order.get("summe"), from, to);
  if (!total.ok) return badAmount("summe", order.get("summe"));

  const w = out.record().key(number.text()).write().open();
  w.add("order_id", number);
  w.add("created_at", created);
  w.open("customer").add("id", customer.get("nr")).add("name", customer.get("name"));
  const address = objectOf(customer, "anschrift");
  if (address != null) w.add("city", address.get("ort")).add("country", address.get("land"));
  w.close();
  w.add("currency", config.currency);
  w.add("total_minor", total.units);
  w.list("items");
  const list = order.get("positionen");
  if (list != null && !list.isNull) {
    if (list.kind != Kind.List) return fail(NO_FIELD, "positionen is no list");
    const items = list.items();
    for (let i = 0; i < items.length; i++) {
      const item = items[i].object();
      if (item == null) return fail(NO_FIELD, "positionen[" + i.toString() + "] is no object");
      const price = amount(item.get("preis"), from, to);
      if (!price.ok) return badAmount("positionen[" + i.toString() + "].preis", item.get("preis"));
      w.open().add("sku", item.get("artikel")).add("quantity", item.get("menge")).add("price_minor", price.units).close();
    }
  }
  return w.emit();
}

function objectOf(order: Obj, name: string): Obj | null {
  const value = order.get(name);
  return value == null ? null : value.object();
}

function missing(name: string): Answer {
  return fail(NO_FIELD, name + " is missing");
}

function badAmount(name: string, value: Value | null): Answer {
  return fail(BAD_AMOUNT, name + ": " + (value == null ? "nothing" : value.raw.text()) + " is no amount in that currency");
}

/** The amount in the flow's currency. Partners write 12.50, and some "12.50". */
function amount(value: Value | null, from: Currency, to: Currency): Decimal {
  if (value == null) return new Decimal(0, false);
  const read = decimal(value.isString ? value.text() : value.raw.text(), from.exponent);
  return read.ok ? convert(read.units, from.rate, from.exponent, to.exponent) : read;
}
