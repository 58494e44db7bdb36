package daemon

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// Whatever the partners answer and however often the node starts anew, every
// record is delivered, filed or dropped, once in the receipt, in order per key
// at the first delivery.
func TestReceiptAddsUpInTrouble(t *testing.T) {
	broker := startBroker(t)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(7, 11))
	calm := false
	trouble := func(r received) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(r.body, `"no"`) {
			return 400, ""
		}
		if calm {
			return 200, ""
		}
		switch n := rng.IntN(10); {
		case n < 3:
			return 503, ""
		case n < 4:
			return 429, ""
		}
		return 200, ""
	}
	north, south := startPartner(t, trouble), startPartner(t, trouble)
	dir := t.TempDir()
	d, stop := life(t, dir)
	connect(t, d, broker.Addr())
	doc := `flow: v1
name: push
source: kafka://main/in
order: key
stages:
  - filter: value.n % 10 != 9
  - id: where
    branch:
      - when: value.n % 2 == 0
        stages:
          - id: north
            batch: { records: 5, wait: 50ms, as: ndjson, by: key }
            push: ` + north.URL + `/n
            retry: { first: 5ms, max: 20ms, spill: 20ms }
      - else:
          - id: south
            push: ` + south.URL + `/s
            retry: { first: 5ms, max: 20ms, spill: 20ms }
`
	mustPut(t, d, &api.PutFlow{Document: doc})
	cl := kafkaClient(t, broker.Addr())
	const n = 600
	var filed, dropped int64
	for round := range 3 {
		var pairs []string
		for i := range n / 3 {
			v := round*n/3 + i
			value := fmt.Sprintf(`{"n":%d}`, v)
			switch {
			case v%10 == 9:
				dropped++
			case v%98 == 3: // odd, so that it is no part of a batch
				value = fmt.Sprintf(`{"n":%d,"no":1}`, v)
				filed++
			}
			pairs = append(pairs, fmt.Sprint("k", v%20), value)
		}
		feed(t, cl, "in", pairs...)
		poll(t, "half of it is settled", func() (bool, string) {
			a := accounted(t, d, "push")
			return a.Read >= int64(round*n/3+n/6), fmt.Sprintf("%+v", a)
		})
		stop()
		d, stop = life(t, dir)
	}
	defer func() { stop() }()
	mu.Lock()
	calm = true
	mu.Unlock()
	settled(t, d, "push", n)
	keptIs(t, d, "push", 0)
	poll(t, "the receipt", func() (bool, string) {
		a := accounted(t, d, "push")
		return a.Flying == 0 && a.Filed == filed && a.Dropped["filter1"] == dropped && a.Delivered == a.Read-filed-dropped, fmt.Sprintf("%+v, want %d filed, %d dropped", a, filed, dropped)
	})
	first := map[string][]int{} // by partner and key
	seen := map[int]bool{}
	for name, p := range map[string]*partnerServer{"n": north, "s": south} {
		for _, r := range p.got() {
			for line := range strings.Lines(r.body) {
				var v int
				if _, err := fmt.Sscanf(line, `{"n":%d`, &v); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if !seen[v] {
					at := fmt.Sprint(name, v%20)
					first[at] = append(first[at], v)
				}
				seen[v] = true
			}
		}
	}
	if int64(len(seen)) != n-filed-dropped {
		t.Errorf("%d records were delivered, want %d", len(seen), n-filed-dropped)
	}
	for at, vs := range first {
		if !slices.IsSorted(vs) {
			t.Errorf("first deliveries of %s: %v", at, vs)
		}
	}
}
