// Package arena lets programs do the same work on the same real Kafka broker,
// in turn and in the same run, and judges what came of it: records a second,
// CPU time and memory of each one's whole process group with the broker's
// apart, and the output, record by record.
//
// It knows nothing of Millrace: a contestant is a command (package contract).
package arena
