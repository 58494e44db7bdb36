package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestValidate(t *testing.T) {
	password := func() (string, error) { return "", nil }
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "no URL"},
		{Config{URL: "localhost:8081"}, "not like"},
		{Config{URL: "ftp://x"}, "not like"},
		{Config{URL: "http://u:secret@x:8081"}, "holds a user"},
		{Config{URL: "http://x?a=b"}, "a query"},
		{Config{URL: "http://x", Password: password}, "without a user"},
	} {
		_, err := New(c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v, want %q", c.cfg, err, c.want)
		}
	}
	if _, err := client(t, Config{URL: "http://x"}).Decoder("protobuf"); err == nil {
		t.Error("there is a decoder of protobuf")
	}
}

func TestRecordsKeepWhatTheyCameWith(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"string"`)
	f.add(2, typeAvro, `"int"`)
	d := decoder(t, serve(t, f, nil), Avro)
	b := &record.Batch{Records: []record.Record{
		{Key: []byte("a"), Value: framed(1, "x"), Headers: []record.Header{{Key: "h", Value: []byte("v")}}, Topic: "t", Partition: 3, Offset: 7, Timestamp: 99},
		{Key: []byte("b")},
		{Value: framed(2, []byte{255})},
		{Value: []byte{}},
		{Value: framed(2, 5), Offset: 11},
	}}
	out := &record.Results{}
	if err := d.Process(context.Background(), b, out); err != nil {
		t.Fatal(err)
	}
	if len(out.Emits) != 3 || len(out.Failures) != 2 {
		t.Fatalf("got %d emits and %d failures, want 3 and 2", len(out.Emits), len(out.Failures))
	}
	want := b.Records[0]
	want.Value = []byte(`"x"`)
	if got := fmt.Sprintf("%+v", out.Emits[0]); got != fmt.Sprintf("%+v", record.Emit{Record: want}) {
		t.Errorf("got %s", got)
	}
	if r := out.Emits[1].Record; out.Emits[1].In != 1 || r.Value != nil || string(r.Key) != "b" {
		t.Errorf("the null value: got %+v", out.Emits[1])
	}
	if r := out.Emits[2].Record; out.Emits[2].In != 4 || string(r.Value) != "5" || r.Offset != 11 {
		t.Errorf("the last: got %+v", out.Emits[2])
	}
	if out.Failures[0].In != 2 || out.Failures[1].In != 3 {
		t.Errorf("got failures of %d and %d, want 2 and 3", out.Failures[0].In, out.Failures[1].In)
	}
	if string(b.Records[0].Value) != string(framed(1, "x")) {
		t.Error("the batch was changed")
	}
}

func TestForeignValues(t *testing.T) {
	f := newFake()
	f.add(2, typeJSON, `{}`)
	f.add(3, "PROTOBUF", `syntax = "proto3";`)
	f.add(4, typeAvro, `{"type":"record"`)
	f.add(5, typeAvro, `{"type":"record","name":"R","fields":[{"name":"a","type":"Nowhere"}]}`)
	f.add(6, typeAvro, strings.Repeat(" ", MaxSchemaBytes)+`"int"`)
	f.add(7, typeAvro, strings.Repeat(" ", maxAnswer)+`"int"`)
	c := serve(t, f, nil)
	d := decoder(t, c, Avro)
	fails(t, d, []byte(`{"id":1}`), record.Schema, `7b 22 69 64 22 ("{\"id\"")`, "is this topic written with a registry?")
	fails(t, d, []byte{0, 1}, record.Schema, "has 2 bytes")
	fails(t, d, framed(2), record.Schema, "schema 2 (subject-2) is of type JSON, and the flow decodes avro")
	fails(t, d, framed(3), record.Schema, "schema 3 (subject-3) is of type PROTOBUF")
	fails(t, d, framed(4), record.Schema, "schema 4 (subject-4) cannot be used: its text is no Avro schema")
	fails(t, d, framed(5), record.Schema, "schema 5 (subject-5) cannot be used", "Nowhere")
	fails(t, d, framed(6), record.Schema, "schema 6 is too large: it has more than 1048576 bytes")
	fails(t, d, framed(7), record.Schema, "schema 7 is too large: the answer of the registry")
	fails(t, d, framed(8), record.Schema, "schema 8 does not exist", "404 (40403: Schema not found)", "written with?")
	fails(t, decoder(t, c, JSONSchema), framed(4), record.Schema, "is of type AVRO, and the flow decodes json_schema")
}

func TestSchemasAreLookedUpOnce(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"int"`)
	block := make(chan struct{})
	f.before = func(http.ResponseWriter, *http.Request) bool { <-block; return false }
	d := decoder(t, serve(t, f, nil), Avro)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { emits(t, d, framed(1, 4), "4") })
	}
	close(block)
	wg.Wait()
	for range 50 {
		emits(t, d, framed(1, 4), "4")
	}
	if n := f.count("/schemas/ids/1"); n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
}

func TestCacheForgets(t *testing.T) {
	c := newCache()
	now := time.Unix(0, 0)
	add := func(id uint32, size int) *entry {
		e := c.begin(id)
		c.complete(e, &schema{id: id, bytes: size}, nil, now)
		return e
	}
	failed := c.begin(9999)
	if c.get(9999, now) != failed {
		t.Error("a look-up that is under way is begun again")
	}
	c.complete(failed, nil, record.Errorf(record.Retryable, "down"), now)
	if c.get(9999, now.Add(failureAge-1)) != failed {
		t.Error("a failure is forgotten too soon")
	}
	if c.get(9999, now.Add(failureAge)) != nil || len(c.entries) != 0 || c.used.Len() != 0 {
		t.Error("a failure is not forgotten")
	}
	for id := range uint32(maxSchemas) {
		add(id, 1)
	}
	c.get(0, now)
	add(5000, 1)
	if len(c.entries) != maxSchemas || c.get(0, now) == nil || c.get(1, now) != nil {
		t.Errorf("%d schemas are kept, want %d without the one used longest ago", len(c.entries), maxSchemas)
	}
	add(6000, maxCachedBytes-1)
	if c.bytes > maxCachedBytes || c.get(6000, now) == nil || c.get(0, now) == nil || len(c.entries) != 2 {
		t.Errorf("%d bytes in %d schemas are kept", c.bytes, len(c.entries))
	}
	add(7000, maxCachedBytes+1)
	if len(c.entries) != 1 || c.get(7000, now) == nil {
		t.Error("a schema that is larger than the cache is not kept alone")
	}
}

// status makes f answer so as long as code is not 0.
func status(f *fake, code *atomic.Int32, body string) {
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		n := int(code.Load())
		if n == 0 {
			return false
		}
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(n)
		_, _ = fmt.Fprint(w, body)
		return true
	}
}

func TestAnswersOfTheRegistry(t *testing.T) {
	for _, c := range []struct {
		name, body string
		code       int32
		class      record.Class
		want       string
	}{
		{"down", `{"error_code":50001,"message":"Error in the backend data store"}`, 500, record.Retryable, "500 (50001: Error in the backend data store)"},
		{"down with a long story", `{"error_code":50001,"message":"a\n\u001b[31m` + strings.Repeat("é", 400) + `"}`, 500, record.Retryable, "50001: a  [31m" + strings.Repeat("é", 140)},
		{"behind a gateway", `<html>`, 502, record.Retryable, "answered 502"},
		{"busy", ``, 429, record.Retryable, "answered 429"},
		{"no user", `{"error_code":401,"message":"Unauthorized"}`, 401, record.Config, "correct user and password"},
		{"no right", `{"error_code":40301,"message":"no"}`, 403, record.Config, "the right to read schemas"},
		{"no such path", `{"error_code":404,"message":"HTTP 404 Not Found"}`, 404, record.Retryable, "is it a Schema Registry"},
		{"a web site", `<html>`, 200, record.Retryable, "is it a Schema Registry"},
		{"another JSON", `{"a":1}`, 200, record.Retryable, "with no schema in it"},
		{"another kind of JSON", `[]`, 200, record.Retryable, "with something else than a schema"},
		{"elsewhere", ``, 302, record.Retryable, "with status 302"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			var code atomic.Int32
			code.Store(c.code)
			status(f, &code, c.body)
			s := httptest.NewServer(f)
			defer s.Close()
			cfg := Config{URL: s.URL}
			fails(t, decoder(t, client(t, cfg), Avro), framed(1), c.class, "schema 1", s.URL, c.want)
			if err := Check(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), fmt.Sprint(maxID)) {
				t.Errorf("check: got %v, want %q and not the id that was asked for", err, c.want)
			}
		})
	}
}

// A web site with much to say is no registry, though no schema's text is longer.
func TestCheckOfALongAnswer(t *testing.T) {
	f := newFake()
	var code atomic.Int32
	code.Store(200)
	status(f, &code, strings.Repeat(" ", maxAnswer+1))
	s := httptest.NewServer(f)
	defer s.Close()
	if err := Check(context.Background(), Config{URL: s.URL}); err == nil || !strings.Contains(err.Error(), "is it a Schema Registry") {
		t.Errorf("got %v", err)
	}
}

// While the registry is down it is asked at most once a second, and records
// are decoded as soon as it is back.
func TestRegistryComesBack(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"int"`)
	f.add(2, typeAvro, `"string"`)
	var code atomic.Int32
	status(f, &code, "")
	d := decoder(t, serve(t, f, nil), Avro)
	emits(t, d, framed(1, 4), "4")
	code.Store(503)
	emits(t, d, framed(1, 4), "4") // known schemas go on
	begin := time.Now()
	for range 100 {
		fails(t, d, framed(2, "x"), record.Retryable, "503")
	}
	if out := process(t, d, framed(2, "x"), framed(2, "y")); out.Failures[0].Err == out.Failures[1].Err {
		t.Error("two records share one error")
	}
	if n, most := f.count("/schemas/ids/2"), 1+int(time.Since(begin)/failureAge); n > most {
		t.Errorf("asked %d times, want %d at most", n, most)
	}
	code.Store(0)
	deadline := time.Now().Add(10 * time.Second)
	for {
		out := process(t, d, framed(2, "x"))
		if len(out.Emits) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v", out.Failures[0].Err)
		}
	}
	if n := f.count("/schemas/ids/2"); n > 12 {
		t.Errorf("asked %d times within some seconds", n)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	fails(t, decoder(t, client(t, Config{URL: s.URL}), Avro), framed(1), record.Retryable, "does not answer", "connection refused")
	if err := Check(context.Background(), Config{URL: s.URL}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("check: got %v", err)
	}
}

// A registry that hangs holds a batch up for the timeout, however many schemas
// it needs, and lets go when the flow stops.
func TestRegistryHangs(t *testing.T) {
	f := newFake()
	block := make(chan struct{})
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-block:
		case <-r.Context().Done():
		}
		return false
	}
	t.Cleanup(func() { close(block) })
	c := serve(t, f, func(c *Config) { c.Timeout = 300 * time.Millisecond })
	d := decoder(t, c, Avro)
	begin := time.Now()
	var values [][]byte
	for id := range uint32(50) {
		values = append(values, framed(id))
	}
	out := process(t, d, values...)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a batch took %v", took)
	}
	for _, fl := range out.Failures {
		if fl.Err.Class != record.Timeout {
			t.Fatalf("got %v, want class timeout", fl.Err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	slow := decoder(t, serve(t, f, func(c *Config) { c.Timeout = time.Hour }), Avro)
	err := slow.Process(ctx, &record.Batch{Records: []record.Record{{Value: framed(1)}}}, &record.Results{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
}

// A look-up that was lost does not hold its schema up for ever.
func TestLostLookUp(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"int"`)
	var asked atomic.Int32
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) == 1 {
			<-r.Context().Done()
		}
		return false
	}
	d := decoder(t, serve(t, f, func(c *Config) { c.Timeout = 100 * time.Millisecond }), Avro)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if out := process(t, d, framed(1, 3)); len(out.Emits) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the schema is never asked for again")
		}
	}
}

// Close waits for what it cannot interrupt.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := client(t, Config{URL: "http://registry.test", User: "u", Password: func() (string, error) {
			<-release
			return "", errors.New("too late")
		}})
		d := decoder(t, c, Avro)
		go func() {
			_ = d.Process(t.Context(), &record.Batch{Records: []record.Record{{Value: framed(1)}}}, &record.Results{})
		}()
		var closed atomic.Bool
		synctest.Wait()
		go func() { _ = c.Close(); closed.Store(true) }()
		synctest.Wait()
		if closed.Load() {
			t.Error("closed while a look-up is under way")
		}
		close(release)
		synctest.Wait()
		if !closed.Load() {
			t.Error("not closed")
		}
	})
}

func TestClose(t *testing.T) {
	f := newFake()
	asked := make(chan struct{}, 1)
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		<-r.Context().Done()
		return true
	}
	c := serve(t, f, func(c *Config) { c.Timeout = time.Hour })
	d := decoder(t, c, Avro)
	done := make(chan *record.Results)
	go func() {
		out := &record.Results{}
		if err := d.Process(context.Background(), &record.Batch{Records: []record.Record{{Value: framed(1)}}}, out); err != nil {
			t.Error(err)
		}
		done <- out
	}()
	<-asked
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if out := <-done; len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Retryable {
		t.Errorf("got %+v", out)
	}
	fails(t, d, framed(2), record.Retryable, "closed")
}
