//go:build !tinygo

package millrace

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// call runs the stage. A panic fails the record.
func call(f function, r *Record, out *Out) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Failf(1, "panic: %v%s", p, panicPlace())
		}
	}()
	return f(r, out)
}

// panicPlace is where the panic that is being recovered was raised, such as
// ` at main.go:12`.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf(" at %s:%d", filepath.Base(frame.File), frame.Line)
		}
		if !more {
			return ""
		}
	}
}
