package ingest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/record"
)

// life is what a model knows of one request that a source has taken in.
type life struct {
	key, body string
	offset    int64
	settled   bool
	saved     bool
}

// world is a model of a source over several lives: what is durable survives a
// crash, all else is gone.
type world struct {
	t      *rapid.T
	now    time.Time
	s      *Source
	low    int64             // committed
	flying []*life           // in flight of this life, in order
	past   []*life           // settled in this life
	known  []Request         // committed
	sure   map[string]string // key -> body of requests whose outcome must be remembered
	top    int64             // highest offset ever seen
}

func (w *world) open() {
	s, err := New(Config{Durable: true, InFlight: 6, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	s.Remember(w.known)
	s.Above(w.low)
	s.Assign(Partition, w.low)
	w.sure = map[string]string{}
	for _, r := range w.known {
		w.sure[r.Ref] = ""
	}
}

// post is a request up to the moment at which it would wait.
func (w *world) post(key, body string) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set(DefaultKey, key)
	tk, refused := w.s.begin(key)
	i := slices.IndexFunc(w.flying, func(l *life) bool { return l.key == key })
	_, sure := w.sure[key]
	if refused != nil {
		if len(w.flying) < 6 || i >= 0 || sure {
			w.t.Fatalf("%s was turned away with %d in flight: %s", key, len(w.flying), refused.Detail)
		}
		return
	}
	defer tk.release()
	if !tk.grow(int64(len(body))) {
		w.t.Fatal("no room for bytes")
	}
	rec, _ := w.s.recordOf(r, key, []byte(body))
	f, refused := w.s.admit(tk, key, true, digest(&rec), rec)
	switch {
	case refused != nil:
		if refused.Code != CodeKeyReused || i < 0 && !sure || i >= 0 && w.flying[i].body == body {
			w.t.Fatalf("%s with %s was refused: %s", key, body, refused.Detail)
		}
	case f.request == nil || f.repeated:
		if i < 0 && !sure {
			w.t.Fatalf("%s is taken for a repetition, and is none", key)
		}
		if i >= 0 && w.flying[i].body != body {
			w.t.Fatalf("%s joins a request with another body", key)
		}
		if f.request != nil {
			w.s.leave(f.request)
		}
	default:
		if i >= 0 || sure {
			w.t.Fatalf("%s became a second record", key)
		}
		if f.request.offset <= w.top {
			w.t.Fatalf("offset %d after %d", f.request.offset, w.top)
		}
		w.top = f.request.offset
		w.flying = append(w.flying, &life{key: key, body: body, offset: f.request.offset})
		w.s.leave(f.request)
	}
}

func (w *world) settle(i int) {
	l := w.flying[i]
	w.flying = slices.Delete(w.flying, i, i+1)
	l.settled = true
	w.past = append(w.past, l)
	w.sure[l.key] = l.body
	w.s.Settled(Partition, l.offset, record.Delivered)
}

// commit moves the watermark up to the oldest request in flight.
func (w *world) commit(lost bool) {
	low := w.top + 1
	if len(w.flying) > 0 {
		low = w.flying[0].offset
	}
	lent := w.s.Settling(func(offset int64) bool { return offset < low })
	for _, r := range lent {
		i := slices.IndexFunc(w.past, func(l *life) bool { return l.key == r.Ref && l.offset == r.offset })
		if i < 0 || w.past[i].saved || r.offset >= low {
			w.t.Fatalf("%s is lent, and is not settled, saved, or above the watermark", r.Ref)
		}
	}
	for _, l := range w.past {
		if !l.saved && l.offset < low && !slices.ContainsFunc(lent, func(r Request) bool { return r.offset == l.offset }) {
			w.t.Fatalf("%s is settled and below the watermark, and is not lent", l.key)
		}
	}
	if lost {
		return
	}
	w.low = max(w.low, low)
	for _, r := range lent {
		w.known = append(w.known, Request{Ref: r.Ref, Digest: r.Digest, At: r.At})
		for _, l := range w.past {
			l.saved = l.saved || l.offset == r.offset
		}
	}
	w.s.Saved(lent)
}

func (w *world) crash() {
	w.flying, w.past = nil, nil
	_ = w.s.Close()
	// The clock may be set back, but not behind the last commit's offsets: the
	// owner's Above sees to those.
	w.top = w.low - 1
	w.open()
}

// Whatever happens, a key in flight or remembered makes no second record, a
// request that is neither does, and what is committed with a watermark is what
// was settled below it.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt, now: time.UnixMicro(1_800_000_000_000_000), sure: map[string]string{}}
		w.open()
		defer func() { _ = w.s.Close() }()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"post", "post", "post", "settle", "settle", "commit", "lost", "crash", "clock"}).Draw(rt, "step") {
			case "post":
				w.post(fmt.Sprint("key-", rapid.IntRange(0, 9).Draw(rt, "key")), rapid.SampledFrom([]string{"a", "a", "a", "b"}).Draw(rt, "body"))
			case "settle":
				if len(w.flying) > 0 {
					w.settle(rapid.IntRange(0, len(w.flying)-1).Draw(rt, "which"))
				}
			case "commit":
				w.commit(false)
			case "lost":
				w.commit(true)
			case "crash":
				w.crash()
			case "clock":
				w.now = w.now.Add(time.Duration(rapid.IntRange(-5000, 5000).Draw(rt, "ms")) * time.Millisecond)
			}
			w.s.mu.Lock()
			used, bytes := w.s.used, w.s.bytes
			w.s.mu.Unlock()
			if used != len(w.flying) || bytes != int64(len(w.flying)) {
				rt.Fatalf("%d requests with %d bytes take room, want %d of one byte", used, bytes, len(w.flying))
			}
		}
	})
}

// lane settles whatever it polls, until the source is closed.
func lane(s *Source, seen func(rec *record.Record)) {
	for {
		b, err := s.Poll(context.Background())
		if err != nil {
			return
		}
		for i := range b.Records {
			seen(&b.Records[i])
			s.Settled(Partition, b.Records[i].Offset, record.Delivered)
		}
	}
}

func TestOverTheNetwork(t *testing.T) {
	s := open(t, Config{InFlight: 64})
	server := httptest.NewServer(s)
	defer server.Close()
	var mu sync.Mutex
	seen := map[string]int{}
	last := int64(0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lane(s, func(rec *record.Record) {
			mu.Lock()
			defer mu.Unlock()
			seen[rec.Ref]++
			if rec.Offset <= last {
				t.Errorf("offset %d after %d", rec.Offset, last)
			}
			last = rec.Offset
		})
	}()
	const senders, each = 8, 100
	var wg sync.WaitGroup
	for sender := range senders {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprint("k-", (sender/2)*each+i) // two senders send the same
				req, _ := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(key))
				req.Header.Set(DefaultKey, key)
				resp, err := server.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 || !strings.Contains(string(body), `"id":"ingest/0/`+key+`"`) {
					t.Errorf("%s: HTTP %d %s", key, resp.StatusCode, body)
				}
			}
		})
	}
	wg.Wait()
	_ = s.Close()
	<-ended
	if len(seen) != senders/2*each {
		t.Errorf("%d records, want %d", len(seen), senders/2*each)
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s became %d records", key, n)
		}
	}
}

// A body that ends before its length makes no record, and one that is sent in
// pieces does.
func TestCutAndSlowBodies(t *testing.T) {
	s := open(t, Config{})
	server := httptest.NewServer(s)
	defer server.Close()
	got := make(chan string, 10)
	go lane(s, func(rec *record.Record) { got <- string(rec.Value) })

	dial := func() net.Conn {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	c := dial()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: cut\r\nContent-Length: 10\r\n\r\nfive!")
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	_ = c.Close()
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("a cut body is answered with %.100q", answer)
	}

	c = dial()
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: slow\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	for _, piece := range []string{"4\r\nslow\r\n", "5\r\n body\r\n", "0\r\n\r\n"} {
		_, _ = io.WriteString(c, piece)
	}
	answer, _ = io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("a slow body is answered with %.100q", answer)
	}
	if v := <-got; v != "slow body" {
		t.Errorf("the record is %q", v)
	}
	if len(got) != 0 {
		t.Errorf("a second record: %q", <-got)
	}
}
