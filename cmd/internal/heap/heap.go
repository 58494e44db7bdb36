// Package heap says when a node's garbage is collected.
//
// Go collects when the heap has doubled. A node keeps little alive while it makes
// much garbage: doubling from 40 MiB collects many times a second, doubling from
// 150 MiB takes memory that nobody has. So a small heap may grow further than
// Go lets it, and a large one less.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// room is the size in bytes up to which the heap may grow before a
	// collection.
	room = 128 << 20
	// It grows by at most that much of what lives, in percent, which bounds
	// what a sudden load takes, and by at least so much, which bounds the
	// collector's work.
	mostGrowth, leastGrowth = 200, 60
	// goDefault is Go's own.
	goDefault = 100
)

// growth is by how much the heap may grow, in percent of the live bytes in it.
func growth(live uint64) int {
	if live == 0 {
		return mostGrowth
	}
	left := max(0, room-int64(min(live, room)))
	return max(leastGrowth, min(mostGrowth, int(100*left/int64(live))))
}

// The collector is the process's, so the tuner is one, too.
var (
	mu    sync.Mutex
	users int  // who wants it tuned; guarded by mu
	armed bool // a collection calls adjust; guarded by mu
	set   int  // what the collector was told last; guarded by mu
)

// Tune adjusts the collector after each collection, until stop is called. It
// may be called several times; the last stop puts Go's default back. Where the
// environment has GOGC or GOMEMLIMIT their word holds, and Tune does nothing.
func Tune() (stop func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	mu.Lock()
	defer mu.Unlock()
	users++
	arm()
	return sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		if users--; users == 0 {
			tell(goDefault)
		}
	})
}

// cycle is garbage that the next collection finds.
type cycle struct{ _ *cycle }

// arm makes the next collection call adjust. mu is held.
func arm() {
	if armed {
		return
	}
	armed = true
	runtime.SetFinalizer(&cycle{}, func(*cycle) { adjust() })
}

// adjust is called after a collection.
func adjust() {
	mu.Lock()
	defer mu.Unlock()
	armed = false
	if users == 0 {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	tell(growth(live[0].Value.Uint64()))
	arm()
}

// tell tells the collector, unless it differs little from what it was told
// last: that stops the process for a moment. mu is held.
func tell(percent int) {
	if d := percent - set; percent == goDefault || d > 5 || d < -5 {
		debug.SetGCPercent(percent)
		set = percent
	}
}
