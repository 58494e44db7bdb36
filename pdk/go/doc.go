// Package millrace makes a WebAssembly plugin of a function: a stage of
// Millrace. The same source builds with TinyGo and with Go.
//
//	package main
//
//	import millrace "github.com/millrace-io/millrace/pdk/go"
//
//	func init() {
//		millrace.Stage(redact)
//		millrace.Describe(millrace.Manifest{Name: "redact", Version: "1.0.0"})
//	}
//
//	func main() {} // not run
//
//	func redact(r *millrace.Record, out *millrace.Out) error {
//		event, err := r.JSON()
//		if err != nil {
//			return err
//		}
//		if event.Get("country").Is("XX") {
//			return out.Drop()
//		}
//		to := out.Rewrite(event)
//		for to.Next() {
//			if to.Is("email") {
//				to.Remove()
//			}
//		}
//		return to.Emit()
//	}
//
// A Record is what comes in: views of the batch, nothing is copied. An Out takes
// what goes out: any number of records, to any output, or none. What is the
// input's own is not sent again, without the author's doing. An error that the
// stage returns fails the record; Fail and RetryAfter give codes. StageWith
// declares a configuration and its schema. Object, Value and Rewrite find and
// change fields of JSON without parsing the rest. Log and Count are seen by the
// operator. Package millracetest runs a stage in `go test`.
//
// In Go a panic fails its record with the panic's message. In TinyGo recover does
// nothing: a panic is a trap, and the host finds the record.
//
// A stage starts each batch from the same state: what a variable holds after one
// is gone before the next.
package millrace
