package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range min(len(gotLines), len(wantLines)) {
			if gotLines[i] != wantLines[i] {
				t.Fatalf("%s:%d: got %q, want %q (go test -rewrite accepts it)", path, i+1, gotLines[i], wantLines[i])
			}
		}
		t.Fatalf("%s: got %d lines, want %d (go test -rewrite accepts it)", path, len(gotLines), len(wantLines))
	}
}

func TestOpenAPIDocument(t *testing.T) {
	server := startNode(t, &fake{})
	resp, err := http.Get(server.URL + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("got %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	golden(t, "openapi.golden.json", append(body, '\n'))
}

func TestJSONOfTypes(t *testing.T) {
	var out bytes.Buffer
	for _, v := range []any{
		filled[Node](), filled[PutFlow](), filled[FlowPlan](), filled[Flow](), filled[Revision](), filled[FailurePage](),
		filled[Rollback](), filled[Offsets](), filled[OffsetsReset](), filled[OffsetsPlan](), filled[ReplayFailures](), filled[ReplayReport](),
		filled[DropFailures](), filled[DropReport](), filled[ImportReport](), filled[RetryPage](),
		filled[PutConnection](), filled[ConnectionPlan](), filled[Connection](), filled[ConnectionTest](), filled[Plugin](),
		filled[Deploy](), filled[Deployment](), filled[Error](),
		&list[*Plugin]{Items: []*Plugin{}}, &Flow{}, &Deployment{}, &FailurePage{}, &Error{},
		&Rollback{}, &Offsets{}, &OffsetsPlan{}, &ReplayFailures{}, &ReplayReport{}, &DropFailures{}, &RetryPage{}, &Retry{Record: json.RawMessage(`{}`)}, &Receipt{}, &ConnectionUsage{}, &Preflight{},
	} {
		fmt.Fprintf(&out, "%T\n", v)
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "types.golden", out.Bytes())
}

// A FailureEntry must describe what a record.Entry writes.
func TestFailureEntryDescribesEntries(t *testing.T) {
	written, err := json.Marshal(sampleEntry())
	if err != nil {
		t.Fatal(err)
	}
	var described FailureEntry
	dec := json.NewDecoder(bytes.NewReader(written))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&described); err != nil {
		t.Fatalf("%v\n%s", err, written)
	}
	again, err := json.Marshal(described)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := keys(t, again), keys(t, written); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func keys(t *testing.T, doc []byte) []string {
	t.Helper()
	var all []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				all = append(all, path+"."+k)
				walk(path+"."+k, e)
			}
		case []any:
			for _, e := range v {
				walk(path+"[]", e)
			}
		}
	}
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	walk("", v)
	slices.Sort(all)
	return all
}
