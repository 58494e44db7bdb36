// Prepares order events for others: cancelled and small ones are dropped,
// email and card are masked, the internal note goes, the customer is renamed,
// and everything else stays byte for byte.

import { Answer, Names, Out, Record, describe, fail, stage } from "@millrace/pdk";

export * from "@millrace/pdk/assembly/exports";

describe({
  name: "orders",
  version: "1.0.0",
  sample: [
    '{"key":"c-36404","value":{"order_id":"o-000000","customer_id":"c-36404","email":"jane.doe248@example.com","card":"4111000448434750","status":"paid","currency":"EUR","amount":125.05,"created_at":"2024-05-01T12:34:00Z","internal_note":"checked by ops","items":[{"sku":"A-345","qty":2,"price":19.99}],"address":{"city":"Berlin"}}}',
  ],
  memoryMB: 16,
});

const MIN_AMOUNT: f64 = 5;
const AT: u8 = 0x40;

// In the order of the cases below.
const FIELDS = Names.of(["status", "amount", "customer_id", "internal_note", "email", "card"]);

stage(prepare);

export function prepare(r: Record, out: Out): Answer {
  const to = out.rewrite(r.scan());
  while (to.next()) {
    switch (to.find(FIELDS)) {
      case 0:
        if (to.value.is("cancelled")) return out.drop();
        break;
      case 1: {
        const amount = to.value.number();
        if (isNaN(amount)) return fail(2, "amount is no number");
        if (amount < MIN_AMOUNT) return out.drop();
        break;
      }
      case 2:
        to.rename("customer");
        break;
      case 3:
        to.remove();
        break;
      case 4: {
        const text = to.value;
        const at = text.indexOf(AT);
        to.splice(min(text.length, 2), at < 0 ? text.length - 1 : at, "***");
        break;
      }
      case 5:
        to.splice(1, max(1, to.value.length - 5), "************");
    }
  }
  return to.emit();
}
