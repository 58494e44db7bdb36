// Command order_stage_go prepares order events for others: cancelled and small
// ones are dropped, email and card are masked, the internal note goes, the
// customer is renamed, and everything else stays byte for byte.
package main

import (
	"bytes"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

const minAmount = 5

func init() {
	millrace.Stage(prepare)
	millrace.Describe(millrace.Manifest{
		Name: "order-stage", Version: "1.0.0", MemoryMB: 16,
		Samples: []millrace.Sample{
			{Key: "c-36404", Value: `{"order_id":"o-000000","customer_id":"c-36404","email":"jane.doe248@example.com","card":"4111000448434750","status":"paid","currency":"EUR","amount":125.05,"created_at":"2024-05-01T12:34:00Z","internal_note":"checked by ops","items":[{"sku":"A-345","qty":2,"price":19.99}],"address":{"city":"Berlin"}}`},
			{Key: "c-99431", Value: `{"order_id":"o-000001","customer_id":"c-99431","email":"jane.doe533@example.com","card":"4111000388082644","status":"cancelled","currency":"EUR","amount":5.57,"created_at":"2024-05-01T12:34:01Z","internal_note":"checked by ops","items":[{"sku":"A-967","qty":2,"price":19.99}],"address":{"city":"Berlin"}}`},
		},
	})
}

func main() {}

func prepare(r *millrace.Record, out *millrace.Out) error {
	to := out.Rewrite(r.Scan())
	for to.Next() {
		switch to.Name() {
		case "status":
			if to.Value().Is("cancelled") {
				return out.Drop()
			}
		case "amount":
			amount, ok := to.Value().Float()
			if !ok {
				return millrace.Fail(2, "amount is no number")
			}
			if amount < minAmount {
				return out.Drop()
			}
		case "customer_id":
			to.Rename("customer")
		case "internal_note":
			to.Remove()
		case "email":
			text := to.Value().Raw()
			at := bytes.IndexByte(text, '@')
			if at < 0 {
				at = len(text) - 1
			}
			to.Splice(min(2, len(text)), at, "***")
		case "card":
			to.Splice(1, max(1, len(to.Value().Raw())-5), "************")
		}
	}
	return to.Emit()
}
