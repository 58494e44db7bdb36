// Package brokers runs real brokers for tests and benchmarks: Kafka and
// RocketMQ by the scripts of examples/brokers, on free ports of the loopback
// interface, each in a folder of its own that is removed at the end, killed
// with the process that started them. It knows no client library: what is in
// a broker is asked by the client that a test wants, by Kafka's own tools or
// by kcat.
//
// It needs Linux, Java 17 and what `make brokers-fetch` downloads. Where one is
// missing a test is skipped, and fails with CI=true.
package brokers
