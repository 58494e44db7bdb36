package twin

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkTwin is what a request costs the twin itself, and how much it
// remembers of one.
func BenchmarkTwin(b *testing.B) {
	tw := newTwin(b, `
  - match: POST /o
    idempotency: Idempotency-Key
    items: { id: value.id, key: value.shop }
    answers: [{ weight: 99 }, { weight: 1, status: 503 }]
`, Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		req := httptest.NewRequest(http.MethodPost, "/o", strings.NewReader(`{"id":`+strconv.Itoa(n)+`,"shop":"s"}`))
		req.Header.Set("Idempotency-Key", strconv.Itoa(n))
		tw.ServeHTTP(httptest.NewRecorder(), req)
		n++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(b.N), "kept-B/request")
	runtime.KeepAlive(tw)
}
