package connector

import "sync"

// KeepGood wraps read, which reads settings anew from files, for connections
// that live long: when a read fails it answers with what was read last, since a
// file that is just being replaced must not cut a working connection off. An
// error comes back only while nothing was read yet. warn is called with the
// first error after a good read; it may be nil. The result is safe for
// concurrent use; read is called by one goroutine at a time.
func KeepGood[T any](read func() (T, error), warn func(error)) func() (T, error) {
	var (
		mu     sync.Mutex
		last   T    // guarded by mu
		have   bool // guarded by mu
		warned bool // guarded by mu
	)
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		v, err := read()
		switch {
		case err == nil:
			last, have, warned = v, true, false
		case !have:
			return v, err
		case !warned:
			warned = true
			if warn != nil {
				warn(err)
			}
		}
		return last, nil
	}
}
