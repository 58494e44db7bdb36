package main

// What was tuned, on two cores beside the broker.
const (
	// inFlight is how many batches the output writes at a time: one for each
	// partition, since an input's partition has one under way.
	inFlight = 8
	// batchRecords bounds a batch: large enough that what a batch costs does
	// not matter, small enough that all threads have one.
	batchRecords = 512
)

// config is the stream. A record that the mapping cannot read is left out by
// the output: the engine itself would let it pass unchanged.
const config = `
input: { franz_in: {} }
pipeline:
  threads: 2
  processors:
    - mutation: |
        root = if this.status == "cancelled" || this.amount < 5 { deleted() }
        root.customer = this.customer_id
        root.customer_id = deleted()
        root.internal_note = deleted()
        root.email = this.email.slice(0, 1) + "***" + this.email.slice(this.email.index_of("@"))
        root.card = "************" + this.card.slice(-4)
output: { franz_out: {} }
logger: { level: ERROR }
metrics: { none: {} }
tracer: { none: {} }
`
