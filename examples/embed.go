// Package examples holds the files of the examples that the command line
// carries along, so that a quickstart needs nothing but the binary. It is not
// for code: each example's programs lie in its folder.
package examples

import "embed"

// Files holds, by the paths below examples/, the plugin, the flow and the
// connection of orders and of upper, and the records of orders.
//
//go:embed orders/orders.wasm orders/flow.yaml orders/connection.yaml orders/in.ndjson orders/out.ndjson
//go:embed upper/upper.wasm upper/flow.yaml upper/flow-stream.yaml upper/connection.yaml
//go:embed lines/lines.wasm lines/flow.yaml
var Files embed.FS
