package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func open(t *testing.T, cfg Config) *Source {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.Assign(Partition, 0)
	return s
}

// reply is what a sender gets.
type reply struct {
	status int
	header http.Header
	answer Answer
	err    refusal
}

func read(t *testing.T, w *httptest.ResponseRecorder) reply {
	t.Helper()
	out := reply{status: w.Code, header: w.Header()}
	var body any = &out.err
	if w.Code == http.StatusOK {
		body = &out.answer
	}
	dec := json.NewDecoder(w.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(body); err != nil {
		t.Errorf("HTTP %d: %v", w.Code, err)
	}
	if w.Code != http.StatusOK && (out.err.Status != w.Code || out.err.Code == "" || out.err.Detail == "" || out.err.Title == "" || w.Header().Get("Content-Type") != "application/problem+json") {
		t.Errorf("HTTP %d with an incomplete refusal %+v", w.Code, out.err)
	}
	return out
}

func post(key, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v1/ingest/default/orders", strings.NewReader(body))
	if key != "" {
		r.Header.Set(DefaultKey, key)
	}
	return r
}

// send serves a request in a goroutine of its own.
func send(t *testing.T, s *Source, r *http.Request) <-chan reply {
	c := make(chan reply, 1)
	go func() {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		c <- read(t, w)
	}()
	return c
}

// serve serves a request that is answered at once.
func serve(t *testing.T, s *Source, r *http.Request) reply {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return read(t, w)
}

// poll takes the next batch that has records.
func poll(t *testing.T, s *Source) []record.Record {
	t.Helper()
	for {
		b, err := s.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) > 0 {
			if last := b.Records[len(b.Records)-1]; b.Partition != Partition || b.Next != last.Offset+1 {
				t.Fatalf("batch of %v ends at %d behind offset %d", b.Partition, b.Next, last.Offset)
			}
			return b.Records
		}
	}
}

// waiting fails the test if there is an answer when all is still.
func waiting(t *testing.T, c <-chan reply) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-c:
		t.Fatalf("answered with %+v, want it to wait", got)
	default:
	}
}

func none(t *testing.T, s *Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for {
		b, err := s.Poll(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) > 0 {
			t.Fatalf("record %s where none was to come", b.Records[0].ID())
		}
	}
}

func TestAnswerFollowsSettlement(t *testing.T) {
	for o, want := range map[record.Settlement]string{
		record.Delivered: "delivered", record.Dropped: "dropped", record.Filed: "failed", record.Kept: "waiting", record.Aside: "failed",
		record.Delivered | record.Dropped: "delivered", record.Delivered | record.Kept: "waiting", record.Delivered | record.Kept | record.Filed: "failed",
	} {
		t.Run(o.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, Config{})
				c := send(t, s, post("order-1", `{"n":1}`))
				rec := poll(t, s)[0]
				waiting(t, c)
				s.Settled(Partition, rec.Offset, o)
				if got := <-c; got.status != 200 || got.answer != (Answer{ID: "ingest/0/order-1", Outcome: want}) || got.header.Get(DefaultKey) != "order-1" {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Key: "x-request-id", Hide: []string{"x-sign"}})
		r := post("", `{"n":1}`)
		for name, v := range map[string]string{
			"X-Request-Id": "a.b:c_d-1", "Millrace-Key": "shop 7", "Content-Type": "application/json", "X-Sign": "secret", "Authorization": "Bearer secret", "Cookie": "secret",
			"X-Api-Key": "secret", "Connection": "keep-alive, x-hop", "X-Hop": "1", "Te": "trailers", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		} {
			r.Header.Set(name, v)
		}
		r.Header["X-Many"] = []string{"2", "1"}
		send(t, s, r)
		rec := poll(t, s)[0]
		want := []string{"Content-Type: application/json", "X-Many: 2", "X-Many: 1", "X-Request-Id: a.b:c_d-1", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		var got []string
		for _, h := range rec.Headers {
			got = append(got, h.Key+": "+string(h.Value))
		}
		if !slices.Equal(got, want) {
			t.Errorf("headers are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if rec.ID() != "ingest/0/a.b:c_d-1" || string(rec.Key) != "shop 7" || string(rec.Value) != `{"n":1}` || rec.Timestamp != time.Now().UnixMilli() ||
			rec.Trace.String() != "0af7651916cd43dd8448eb211c80319c" || rec.Attempt != 1 || rec.To != -1 {
			t.Errorf("got %+v", rec)
		}

		send(t, s, post("", ""))
		if rec := poll(t, s)[0]; rec.Key != nil || rec.Value == nil || len(rec.Value) != 0 || len(rec.Ref) != 36 || rec.Trace.IsZero() || len(rec.Headers) != 0 {
			t.Errorf("an empty request without a key gives %+v", rec)
		}
	})
}

func TestRefs(t *testing.T) {
	for _, c := range []struct {
		key   string
		plain bool
	}{
		{"order-1", true}, {"A.b_c:d-9", true}, {strings.Repeat("x", maxRef), true},
		{`"quoted"`, false}, {"a/b#0", false}, {"ä", false}, {strings.Repeat("x", maxRef+1), false},
	} {
		got := refFor(c.key)
		if c.plain != (got == c.key) || !c.plain && (!strings.HasPrefix(got, "sha256:") || len(got) != 71) {
			t.Errorf("%.20q: got %q", c.key, got)
		}
	}
	if refFor("a/b") == refFor("a#b") {
		t.Error("two keys with one identity")
	}
}

func TestSameKeyJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{})
		first := send(t, s, post("k", "body"))
		rec := poll(t, s)[0]
		second := send(t, s, post("k", "body"))
		waiting(t, second)
		if got := serve(t, s, post("k", "another body")); got.status != 422 || got.err.Code != CodeKeyReused {
			t.Errorf("another body while the first is in flight: %+v", got)
		}
		keyed := post("k", "body")
		keyed.Header.Set(KeyHeader, "")
		if got := serve(t, s, keyed); got.status != 422 {
			t.Errorf("another record key: %+v", got)
		}
		none(t, s)
		s.Settled(Partition, rec.Offset, record.Delivered)
		if got := <-first; got.status != 200 || got.answer.Repeated {
			t.Errorf("first: %+v", got)
		}
		if got := <-second; got.status != 200 || got.answer != (Answer{ID: "ingest/0/k", Outcome: "delivered", Repeated: true}) {
			t.Errorf("second: %+v", got)
		}
		if got := serve(t, s, post("k", "body")); got.status != 200 || got.answer != (Answer{ID: "ingest/0/k", Outcome: "delivered", Repeated: true}) || got.header.Get(DefaultKey) != "k" {
			t.Errorf("after it is settled: %+v", got)
		}
		if got := serve(t, s, post("k", "another body")); got.status != 422 {
			t.Errorf("another body after it is settled: %+v", got)
		}
		none(t, s)
	})
}

func TestWaitEndsAndTheNextRequestJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Wait: 5 * time.Second})
		began := time.Now()
		got := <-send(t, s, post("", "body"))
		if got.status != 503 || got.err.Code != CodePending || got.header.Get("Retry-After") != "1" || time.Since(began) != 5*time.Second {
			t.Fatalf("after %s: %+v", time.Since(began), got)
		}
		key := got.header.Get(DefaultKey) // was made for a sender that gave none
		rec := poll(t, s)[0]
		if key == "" || rec.Ref != key {
			t.Fatalf("key %q of record %s", key, rec.ID())
		}
		again := send(t, s, post(key, "body"))
		waiting(t, again)
		s.Settled(Partition, rec.Offset, record.Kept)
		if got := <-again; got.status != 200 || got.answer.Outcome != "waiting" || !got.answer.Repeated {
			t.Errorf("joined: %+v", got)
		}
		none(t, s)
	})
}

func TestSettledWhileNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Wait: time.Second})
		got := <-send(t, s, post("", "body"))
		rec := poll(t, s)[0]
		s.Settled(Partition, rec.Offset, record.Delivered)
		if got := serve(t, s, post(got.header.Get(DefaultKey), "body")); got.status != 200 || !got.answer.Repeated {
			t.Errorf("got %+v", got)
		}

		ctx, leave := context.WithCancel(t.Context())
		left := send(t, s, post("left", "body").WithContext(ctx))
		rec = poll(t, s)[0]
		leave()
		if got := <-left; got.status != 503 || got.err.Code != CodePending {
			t.Errorf("who closed its half of the connection reads %+v", got)
		}
		s.Settled(Partition, rec.Offset, record.Filed)
		if got := serve(t, s, post("left", "body")); got.status != 200 || got.answer.Outcome != "failed" {
			t.Errorf("after the sender left: %+v", got)
		}
	})
}

func TestMemoryHasItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Remembered: 3, Window: time.Hour})
		deliver := func(key string) {
			t.Helper()
			c := send(t, s, post(key, key))
			s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
			if got := <-c; got.status != 200 || got.answer.Repeated {
				t.Fatalf("%s: %+v", key, got)
			}
		}
		repeated := func(key string) bool {
			t.Helper()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.memory.has(key, time.Now())
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			deliver(key)
			time.Sleep(time.Minute)
		}
		if repeated("a") || !repeated("b") || !repeated("d") {
			t.Error("not the latest three are remembered")
		}
		deliver("") // a key that its sender does not know is not remembered
		if !repeated("b") {
			t.Error("a request without a key took the place of one with a key")
		}
		time.Sleep(58 * time.Minute)
		if repeated("b") || !repeated("d") {
			t.Error("not what is younger than an hour is remembered")
		}
		deliver("b")
		time.Sleep(59 * time.Minute)
		deliver("e")
		if !repeated("b") || len(s.memory.byRef) != 2 {
			t.Errorf("remembered are %v", slices.Collect(maps.Keys(s.memory.byRef)))
		}
	})
}

// A request whose key is forgotten while its body is read needs a place of its
// own after all.
func TestForgottenWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Window: time.Minute, InFlight: 1})
		c := send(t, s, post("k", "x"))
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		<-c
		known, refused := s.begin("k")
		late, _ := s.begin("k")
		if refused != nil || known.slot {
			t.Fatalf("a known key: %+v, %v", known, refused)
		}
		time.Sleep(time.Minute)
		f, refused := s.admit(known, "k", true, 1, record.Record{Ref: "k"})
		if refused != nil || f.repeated || s.used != 1 {
			t.Fatalf("admitted %+v, %v, %d in use", f, refused, s.used)
		}
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		other := send(t, s, post("other", "x"))
		waiting(t, other)
		time.Sleep(time.Minute)
		if _, refused := s.admit(late, "k", true, 1, record.Record{Ref: "k"}); refused == nil || refused.Status != 429 {
			t.Errorf("with no place left: %+v", refused)
		}
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		<-other
		empty(t, s)
	})
}

func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{InFlight: 2, Wait: time.Second})
		first, second := send(t, s, post("1", "x")), send(t, s, post("2", "x"))
		recs := poll(t, s)
		if len(recs) == 1 {
			recs = append(recs, poll(t, s)...)
		}
		got := serve(t, s, post("3", "x"))
		if got.status != 429 || got.err.Code != CodeBusy || got.header.Get("Retry-After") != "1" {
			t.Fatalf("got %+v", got)
		}
		<-first
		<-second // both have waited in vain; what they sent is still in flight
		if got := serve(t, s, post("3", "x")); got.status != 429 {
			t.Fatalf("got %+v", got)
		}
		asked := send(t, s, post("1", "x")) // needs no room
		waiting(t, asked)
		for _, rec := range recs {
			s.Settled(Partition, rec.Offset, record.Delivered)
		}
		if got := <-asked; got.status != 200 {
			t.Errorf("got %+v", got)
		}
		third := send(t, s, post("3", "x"))
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		if got := <-third; got.status != 200 {
			t.Errorf("with room again: %+v", got)
		}
		empty(t, s)
	})
}

func TestNoRoomForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Body: 8 << 10, InFlightBytes: 10 << 10})
		first := send(t, s, post("1", strings.Repeat("x", 8<<10)))
		rec := poll(t, s)[0]
		if got := serve(t, s, post("2", strings.Repeat("x", 4<<10))); got.status != 429 || got.err.Code != CodeBusy {
			t.Fatalf("got %+v", got)
		}
		s.Settled(Partition, rec.Offset, record.Delivered)
		<-first
		second := send(t, s, post("2", strings.Repeat("x", 4<<10)))
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		if got := <-second; got.status != 200 {
			t.Errorf("got %+v", got)
		}
		empty(t, s)
	})
}

// empty checks that nothing takes any room.
func empty(t *testing.T, s *Source) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != 0 || s.bytes != 0 || len(s.flight)+len(s.refs)+len(s.queue) != 0 {
		t.Errorf("%d requests with %d bytes take room, %d in flight, %d refs, %d queued", s.used, s.bytes, len(s.flight), len(s.refs), len(s.queue))
	}
}

func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := "the partner is down"
		s := open(t, Config{Held: func() string { return reason }})
		if got := serve(t, s, post("1", "x")); got.status != 429 || got.header.Get("Retry-After") != "5" || !strings.Contains(got.err.Detail, reason) {
			t.Errorf("got %+v", got)
		}
		none(t, s)
		reason = ""
		c := send(t, s, post("1", "x"))
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		if got := <-c; got.status != 200 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		statuses := map[int]int{}
		s := open(t, Config{Body: 10, Answered: func(status int) { statuses[status]++ }})
		chunked := post("1", strings.Repeat("x", 11))
		chunked.ContentLength = -1
		twice := post("1", "x")
		twice.Header[DefaultKey] = []string{"1", "2"}
		blank := post("1", "x")
		blank.Header[DefaultKey] = []string{" "}
		keys := post("1", "x")
		keys.Header[KeyHeader] = []string{"1", "2"}
		get := httptest.NewRequest(http.MethodGet, "/", nil)
		for name, c := range map[string]struct {
			r    *http.Request
			want int
			code string
		}{
			"too large":             {post("1", strings.Repeat("x", 11)), 413, CodeTooLarge},
			"too large, in chunks":  {chunked, 413, CodeTooLarge},
			"two keys":              {twice, 400, CodeUsage},
			"a blank key":           {blank, 400, CodeUsage},
			"two keys of a record":  {keys, 400, CodeUsage},
			"not POST":              {get, 405, CodeUsage},
			"a body that ends soon": {httptest.NewRequest(http.MethodPost, "/", errReader{}), 400, CodeUsage},
		} {
			if got := serve(t, s, c.r); got.status != c.want || got.err.Code != c.code {
				t.Errorf("%s: %+v, want %d", name, got, c.want)
			}
		}
		none(t, s)
		empty(t, s)
		if statuses[413] != 2 || statuses[400] != 4 || statuses[405] != 1 {
			t.Errorf("answered: %v", statuses)
		}
		full := post("1", strings.Repeat("x", 10))
		full.ContentLength = -1
		send(t, s, full)
		if got := poll(t, s)[0]; len(got.Value) != 10 {
			t.Errorf("a body of the largest size: %q", got.Value)
		}
	})
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("torn") }

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		s := open(t, Config{Check: func(r *http.Request, body []byte) error {
			if string(body) != "x" || r.Header.Get(DefaultKey) != "1" {
				t.Errorf("checked %q of %v", body, r.Header)
			}
			return err
		}})
		err = record.Errorf(record.Rejected, "not signed")
		if got := serve(t, s, post("1", "x")); got.status != 401 || got.err.Detail != "not signed" {
			t.Errorf("got %+v", got)
		}
		err = record.Errorf(record.Config, "secret sender/key: not there")
		if got := serve(t, s, post("1", "x")); got.status != 500 || strings.Contains(got.err.Detail, "sender/key") {
			t.Errorf("got %+v", got)
		}
		none(t, s)
		empty(t, s)
		err = nil
		c := send(t, s, post("1", "x"))
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		<-c
		err = record.Errorf(record.Rejected, "not signed")
		if got := serve(t, s, post("1", "x")); got.status != 401 {
			t.Errorf("who is not the sender learns of the outcome: %+v", got)
		}
	})
}
