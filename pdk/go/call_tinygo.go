//go:build tinygo

package millrace

// call runs the stage. recover does nothing in TinyGo: a panic is a trap, and
// the host finds the record.
func call(f function, r *Record, out *Out) error { return f(r, out) }
