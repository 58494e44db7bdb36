package record

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestRewind(t *testing.T) {
	full := func() *Results {
		return &Results{Emits: []Emit{{In: 1}, {In: 2}}, Drops: []int32{3}, Failures: []Failure{{In: 4, NoReplay: "x"}}}
	}
	r := full()
	m := r.Mark()
	r.Emits = append(r.Emits, Emit{In: 5, Record: Record{Value: []byte("v")}})
	r.Drops = append(r.Drops, 6)
	r.Failures = append(r.Failures, Failure{In: 7, Replay: &Replay{}})
	r.Unit = true
	if got := r.Failed(m); len(got) != 1 || got[0].In != 7 {
		t.Errorf("got %+v, want the failure of record 7", got)
	}
	emits, failures := r.Emits, r.Failures
	r.Rewind(m)
	if !reflect.DeepEqual(r, full()) {
		t.Errorf("got %+v, want %+v", r, full())
	}
	if emits[2].Record.Value != nil || failures[1].Replay != nil {
		t.Error("what was taken back is still referred to")
	}
	r.Unit = true
	r.Reset()
	if len(r.Emits)+len(r.Drops)+len(r.Failures) != 0 || r.Unit || emits[0].In != 0 || failures[0].NoReplay != "" {
		t.Errorf("after Reset: %+v", r)
	}
}

func TestSHA256(t *testing.T) {
	s := Signature{Handle: 1, Alg: 3, MessageSHA256: SHA256{0: 0xab, 31: 1}, Refused: -2}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"handle":1,"alg":3,"message_sha256":"ab` + strings.Repeat("00", 30) + `01","refused":-2}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var got Signature
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v, want %+v", got, err, s)
	}
	for _, text := range []string{"", "ab", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("g", 64)} {
		if err := new(SHA256).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as a sum", text)
		}
	}
}
