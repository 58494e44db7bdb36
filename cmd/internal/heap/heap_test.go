package heap

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, mostGrowth}, {4 << 20, mostGrowth}, {42 << 20, mostGrowth}, {64 << 20, 100}, {75 << 20, 70}, {90 << 20, leastGrowth}, {room, leastGrowth}, {4 << 30, leastGrowth}, {1 << 63, leastGrowth},
	} {
		if got := growth(c.live); got != c.want {
			t.Errorf("%d MiB live: got %d percent, want %d", c.live>>20, got, c.want)
		}
	}
}

func percentNow() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

// becomes collects until the collector works by a percentage.
func becomes(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); percentNow() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("the heap grows by %d percent, want %d", percentNow(), want)
		}
		runtime.GC()
	}
}

func TestTune(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	first, second := Tune(), Tune()
	becomes(t, mostGrowth)
	ballast := make([]byte, 150<<20)
	becomes(t, leastGrowth)
	runtime.KeepAlive(ballast)
	becomes(t, mostGrowth)
	first()
	first()
	becomes(t, mostGrowth) // somebody else still wants it
	second()
	becomes(t, goDefault)
	Tune()()
	becomes(t, goDefault)
}

func TestOperatorsWordHolds(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(name, "100")
		stop := Tune()
		if users != 0 {
			t.Errorf("%s is set, and the collector is tuned all the same", name)
		}
		stop()
	}
}
