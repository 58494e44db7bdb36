import { Batch, equal, stopsWith, test } from "@millrace/pdk/assembly/testing";
import { prepare } from "../index";

test("masks, renames and removes", () => {
  const order = '{"customer_id":"c","email":"jane@example.com","card":"4111000448434750","status":"paid","amount":5,"internal_note":"x","a":[1, 2]}';
  equal(Batch.of(order).run(prepare).value(0), '{"customer":"c","email":"j***@example.com","card":"************4750","status":"paid","amount":5,"a":[1, 2]}');
});

test("drops what is cancelled or small", () => {
  assert(Batch.of('{"status":"cancelled"}').run(prepare).isDropped(0));
  assert(Batch.of('{"amount":4.99}').run(prepare).isDropped(0));
});

test("fails what is cut off, with the place", () => {
  equal(Batch.of('{"status":"paid"').run(prepare).failure(0)!.message, "cut off behind a value at byte 16");
});

stopsWith("a test that throws", "out of range", () => {
  Batch.of("{}").run(prepare).value(7);
});
