// Package guests holds the test guests as they are built from the sources
// beside it. It is for tests: what each guest does stands in its README.
package guests

import _ "embed"

// Faulty is a stage/1 guest that breaks each rule of the ABI on demand. It
// imports stage.log and stage.count.
//
//go:embed faulty/faulty.wasm
var Faulty []byte

// WASI is a stage/1 guest that uses clocks, random, STDIN, STDOUT, STDERR,
// arguments and environment, and tries to open a file.
//
//go:embed wasi/wasi.wasm
var WASI []byte

// Conformance is the reference guest of the conformance protocol, which the
// golden vectors are about.
//
//go:embed conformance/conformance.wasm
var Conformance []byte

// Mutant is Conformance with one fault, which the configuration names.
//
//go:embed mutant/mutant.wasm
var Mutant []byte

// Sign is a `sign` plugin: HMAC-SHA256 of the body, in hex, as a header. Its
// configuration is `{"header", "key", "times", "query", "refuse"}`.
//
//go:embed sign/sign.wasm
var Sign []byte

// Check is a `validate` plugin: the member `code` of a JSON body decides. 0 is
// taken, 429 sent again, all else refused.
//
//go:embed check/check.wasm
var Check []byte
