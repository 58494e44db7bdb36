package registry

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a Schema Registry with the three paths that are read.
type fake struct {
	mu       sync.Mutex
	ids      map[uint32]map[string]any // guarded by mu
	versions map[string]map[string]any // guarded by mu; by "subject/version"
	asked    map[string]int            // guarded by mu; requests by path
	// before, if set, may answer a request itself.
	before func(w http.ResponseWriter, r *http.Request) (done bool)
}

func newFake() *fake {
	return &fake{ids: map[uint32]map[string]any{}, versions: map[string]map[string]any{}, asked: map[string]int{}}
}

// ref is a reference of a schema.
func ref(name, subject string, version int) map[string]any {
	return map[string]any{"name": name, "subject": subject, "version": version}
}

func (f *fake) add(id uint32, kind, text string, refs ...map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ids[id] = body(kind, text, refs)
}

func (f *fake) addVersion(subject string, version int, kind, text string, refs ...map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.versions[fmt.Sprintf("%s/%d", subject, version)] = body(kind, text, refs)
}

func body(kind, text string, refs []map[string]any) map[string]any {
	b := map[string]any{"schema": text}
	if kind != typeAvro { // registries leave it out
		b["schemaType"] = kind
	}
	if len(refs) > 0 {
		b["references"] = refs
	}
	return b
}

func (f *fake) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked[r.URL.Path]++
	before := f.before
	f.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var (
		id      uint32
		subject string
		found   map[string]any
	)
	path := strings.ReplaceAll(r.URL.Path, "/", " ")
	switch {
	case strings.HasSuffix(r.URL.Path, "/versions") && strings.HasPrefix(r.URL.Path, "/schemas/ids/"):
		_, _ = fmt.Sscanf(path, " schemas ids %d versions", &id)
		if f.ids[id] != nil {
			_ = json.NewEncoder(w).Encode([]map[string]any{{"subject": fmt.Sprintf("subject-%d", id), "version": 1}})
			return
		}
	case strings.HasPrefix(r.URL.Path, "/schemas/ids/"):
		_, _ = fmt.Sscanf(path, " schemas ids %d", &id)
		found = f.ids[id]
	case strings.HasPrefix(r.URL.Path, "/subjects/") && r.URL.Query().Get("deleted") == "true":
		var version int
		_, _ = fmt.Sscanf(path, " subjects %s versions %d", &subject, &version)
		found = f.versions[fmt.Sprintf("%s/%d", subject, version)]
	}
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	if found == nil {
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(found)
}

// serve starts f and returns a client of it.
func serve(t testing.TB, f *fake, change func(*Config)) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	cfg := Config{URL: s.URL}
	if change != nil {
		change(&cfg)
	}
	return client(t, cfg)
}

func client(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func decoder(t testing.TB, c *Client, format string) *Decoder {
	t.Helper()
	d, err := c.Decoder(format)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// process gives values to d and returns what was answered.
func process(t testing.TB, d *Decoder, values ...[]byte) *record.Results {
	t.Helper()
	b := &record.Batch{}
	for i, v := range values {
		b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: v, Offset: int64(i)})
	}
	out := &record.Results{}
	if err := d.Process(context.Background(), b, out); err != nil {
		t.Fatal(err)
	}
	if len(out.Emits)+len(out.Failures) != len(values) {
		t.Fatalf("%d emits and %d failures for %d records", len(out.Emits), len(out.Failures), len(values))
	}
	return out
}

// fails expects that a single value fails.
func fails(t testing.TB, d *Decoder, value []byte, class record.Class, parts ...string) {
	t.Helper()
	out := process(t, d, value)
	if len(out.Failures) != 1 {
		t.Fatalf("got %s, want a failure", out.Emits[0].Record.Value)
	}
	e := out.Failures[0].Err
	if e.Class != class {
		t.Errorf("got class %v (%s), want %v", e.Class, e.Message, class)
	}
	for _, p := range parts {
		if !strings.Contains(e.Message, p) {
			t.Errorf("got %q, want %q in it", e.Message, p)
		}
	}
}

// emits expects that a single value becomes want.
func emits(t testing.TB, d *Decoder, value []byte, want string) {
	t.Helper()
	out := process(t, d, value)
	if len(out.Failures) > 0 {
		t.Fatalf("got %v, want %s", out.Failures[0].Err, want)
	}
	if got := string(out.Emits[0].Record.Value); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// framed is a value in the wire format. Parts are bytes as they are: []byte,
// byte; long numbers: int; strings with their length: string.
func framed(id uint32, parts ...any) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, id)
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int:
			b = binary.AppendVarint(b, int64(p))
		case string:
			b = append(binary.AppendVarint(b, int64(len(p))), p...)
		default:
			panic(fmt.Sprintf("framed: %T", p))
		}
	}
	return b
}
