package mapping_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newStage(t *testing.T, config []byte) (*sandbox.Stage, error) {
	t.Helper()
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close(context.Background()) })
	m, err := rt.Compile(t.Context(), read(t, "mapping.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return m.NewStage(t.Context(), sandbox.StageConfig{Flow: "default/mapping", Stage: "map", Plugin: "mapping@1.0.0", Config: config})
}

// The orders of in.ndjson become those of out.ndjson, or fail with their code.
func TestOrders(t *testing.T) {
	s, err := newStage(t, read(t, "with.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	b := &record.Batch{Partition: record.Partition{Topic: "partner-orders"}, Now: 1}
	for i, line := range bytes.Split(bytes.TrimSpace(read(t, "in.ndjson")), []byte("\n")) {
		b.Records = append(b.Records, record.Record{Value: line, Topic: "partner-orders", Offset: int64(i), Attempt: 1, To: -1})
	}
	var out record.Results
	if err := s.Process(t.Context(), b, &out); err != nil {
		t.Fatal(err)
	}
	var got []byte
	var keys []string
	for _, e := range out.Emits {
		got = append(append(got, e.Record.Value...), '\n')
		keys = append(keys, string(e.Record.Key))
	}
	if want := read(t, "out.ndjson"); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := fmt.Sprint(keys), "[B-1001 B-1002 B-1003 B-1008]"; got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	if got := fmt.Sprint(out.Drops); got != "[6]" {
		t.Errorf("drops %s, want [6]", got)
	}
	failed := map[int]uint32{}
	for _, f := range out.Failures {
		failed[int(f.In)] = f.Err.Code
	}
	if got, want := fmt.Sprint(failed), "map[3:13 4:11 5:12]"; got != want {
		t.Errorf("failures %s, want %s", got, want)
	}
}

func TestConfigIsHeldAgainstTheSchema(t *testing.T) {
	if s, err := newStage(t, []byte(`{"currency":"EUR","currencies":{"EUR":{"exponent":2,"rate":1}}}`)); err == nil {
		s.Close(context.Background())
		t.Error("a rate that is a number is taken")
	}
}
