package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestPassword(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"int"`)
	f.add(2, typeAvro, `"int"`)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == "alice" && p == "new" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	var password atomic.Value
	password.Store("old")
	var broken atomic.Bool
	c := serve(t, f, func(c *Config) {
		c.User = "alice"
		c.Password = func() (string, error) {
			if broken.Load() {
				return "", errors.New("secret registry: no such file")
			}
			return password.Load().(string), nil
		}
	})
	d := decoder(t, c, Avro)
	fails(t, d, framed(1, 3), record.Config, "401", "correct user and password")
	password.Store("new")
	emits(t, d, framed(2, 3), "3") // asked anew
	if err := Check(context.Background(), c.cfg); err != nil {
		t.Errorf("check: %v", err)
	}
	broken.Store(true)
	fails(t, d, framed(3, 3), record.Config, "secret registry: no such file")
}

func TestTLS(t *testing.T) {
	f := newFake()
	f.add(1, typeAvro, `"int"`)
	f.add(2, typeAvro, `"int"`)
	s := httptest.NewUnstartedServer(f)
	s.EnableHTTP2 = false
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
	s.Config.SetKeepAlivesEnabled(false)
	s.StartTLS()
	defer s.Close()
	good := s.Client().Transport.(*http.Transport).TLSClientConfig
	var now atomic.Pointer[tls.Config]
	now.Store(&tls.Config{MinVersion: tls.VersionTLS12})
	var asked atomic.Int32
	cfg := Config{URL: s.URL, TLS: func() (*tls.Config, error) {
		asked.Add(1)
		if c := now.Load(); c != nil {
			return c, nil
		}
		return nil, errors.New("tls: `ca` cannot be read")
	}}
	d := decoder(t, client(t, cfg), Avro)
	fails(t, d, framed(1, 3), record.Config, "certificate signed by unknown authority", "`tls` settings")
	if err := Check(context.Background(), Config{URL: s.URL}); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("check: got %v", err)
	}
	wrong := good.Clone()
	wrong.ServerName = "elsewhere.test"
	now.Store(wrong)
	fails(t, d, framed(3, 3), record.Config, "elsewhere.test")
	now.Store(good)
	before := asked.Load()
	emits(t, d, framed(2, 3), "3")
	if asked.Load() == before {
		t.Error("the settings were not asked for anew")
	}
	if err := Check(context.Background(), cfg); err != nil {
		t.Errorf("check: %v", err)
	}
	now.Store(nil)
	fails(t, d, framed(4, 3), record.Config, "`ca` cannot be read")

	plain := httptest.NewServer(f)
	defer plain.Close()
	err := Check(context.Background(), Config{URL: strings.Replace(plain.URL, "http:", "https:", 1), TLS: func() (*tls.Config, error) { return good, nil }})
	if err == nil || !strings.Contains(err.Error(), "secure connection") {
		t.Errorf("https to a plain port: got %v", err)
	}
}

func TestAvroReferences(t *testing.T) {
	f := newFake()
	money := `{"type":"record","name":"com.Money","fields":[{"name":"n","type":"long"}]}`
	f.addVersion("money", 3, typeAvro, money)
	f.addVersion("item", 1, typeAvro, `{"type":"record","name":"com.Item","fields":[{"name":"price","type":"com.Money"},{"name":"more","type":["null","Item"]}]}`, ref("com.Money", "money", 3))
	f.add(1, typeAvro, `{"type":"record","name":"com.Order","fields":[{"name":"sum","type":"Money"},{"name":"item","type":"Item"}]}`,
		ref("com.Item", "item", 1), ref("com.Money", "money", 3))
	f.addVersion("a", 1, typeAvro, `{"type":"record","name":"A","fields":[{"name":"b","type":"B"}]}`, ref("B", "b", 1))
	f.addVersion("b", 1, typeAvro, `{"type":"record","name":"B","fields":[{"name":"a","type":"A"}]}`, ref("A", "a", 1))
	f.add(2, typeAvro, `{"type":"array","items":"A"}`, ref("A", "a", 1))
	f.add(3, typeAvro, `"int"`, ref("X", "nowhere", 1))
	f.addVersion("json", 1, typeJSON, `{}`)
	f.add(4, typeAvro, `"int"`, ref("X", "json", 1))
	for i := range 200 {
		f.addVersion("chain", i, typeAvro, `"int"`, ref("c", "chain", i+1))
	}
	f.add(5, typeAvro, `"int"`, ref("c", "chain", 0))
	d := decoder(t, serve(t, f, nil), Avro)
	emits(t, d, framed(1, 7, 8, 1, 9, 0), `{"sum":{"n":7},"item":{"price":{"n":8},"more":{"price":{"n":9},"more":null}}}`)
	if n := f.count("/subjects/money/versions/3"); n != 1 {
		t.Errorf("a reference was fetched %d times, want once", n)
	}
	fails(t, d, framed(2, 0), record.Schema, "schema 2 (subject-2) cannot be used")
	fails(t, d, framed(3, 0), record.Schema, `schema 3 refers to "X"`, "does not exist")
	fails(t, d, framed(4, 0), record.Schema, "of type JSON")
	fails(t, d, framed(5, 0), record.Schema, "more than 100 others")
}

// franz-go's own registry answers as this client expects it.
func TestAgainstSrfake(t *testing.T) {
	r := srfake.New()
	defer r.Close()
	cl, err := sr.NewClient(sr.URLs(r.URL()))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	create := func(subject, text string, refs ...sr.SchemaReference) int {
		s, err := cl.CreateSchema(ctx, subject, sr.Schema{Schema: text, References: refs})
		if err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	create("money", `{"type":"record","name":"Money","fields":[{"name":"n","type":"long"}]}`)
	id := create("orders-value", `{"type":"record","name":"Order","fields":[{"name":"m","type":"Money"}]}`, sr.SchemaReference{Name: "Money", Subject: "money", Version: 1})
	d := decoder(t, client(t, Config{URL: r.URL()}), Avro)
	emits(t, d, framed(uint32(id), 5), `{"m":{"n":5}}`)
	fails(t, d, framed(uint32(id)), record.Schema, "(orders-value)")
	fails(t, d, framed(777), record.Schema, "schema 777 does not exist")
	if err := Check(ctx, Config{URL: r.URL()}); err != nil {
		t.Errorf("check: %v", err)
	}
}
