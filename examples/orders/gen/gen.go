// Package gen makes the order events of the orders example: the same events
// for the same seed on every machine. It knows what must become of each event
// from the fields it chose, not by running a stage, so that a whole pipeline
// can be judged by it.
package gen

import (
	"math/rand/v2"
	"strconv"
)

// Mark says what must become of an event.
type Mark uint8

const (
	// Emit marks an order that is passed on, changed.
	Emit Mark = iota
	// Drop marks an order that is cancelled or below 5.00.
	Drop
	// Fail marks a record that is cut off.
	Fail
)

func (m Mark) String() string {
	switch m {
	case Emit:
		return "emit"
	case Drop:
		return "drop"
	}
	return "fail"
}

// Customers is the number of distinct customers, and so of distinct keys.
const Customers = 5000

const (
	customerStride = 19   // spreads the ids over five digits
	malformedOneIn = 1000 // 0.1 % of the events are cut off
	maxCut         = 60   // within their first 60 bytes
	minCents       = 200
	maxCents       = 30199
	dropBelowCents = 500
)

// statuses are equally likely: paid 5 in ten, shipped 2, the others 1.
var statuses = [...]string{"paid", "paid", "paid", "paid", "paid", "shipped", "shipped", "pending", "refunded", "cancelled"}

// Event is one order event. Its slices belong to the caller.
type Event struct {
	Key   []byte // the customer_id
	Value []byte // one JSON object of about 300 bytes, or the first bytes of one
	Mark  Mark
}

// Generator yields events without end. It is not safe for concurrent use.
type Generator struct {
	rng *rand.Rand
	n   uint64
}

// New returns the generator of seed.
func New(seed uint64) *Generator {
	return &Generator{rng: rand.New(rand.NewPCG(seed, 0x6f7264657273))}
}

// Next returns the next event. Its order_id is its number, from o-000000, so
// that no two whole events of a generator are equal; a malformed event takes
// its number along and is not sent again whole.
func (g *Generator) Next() Event {
	n := g.n
	g.n++
	customer := g.rng.IntN(Customers)
	key := append(make([]byte, 0, 8), "c-"...)
	key = appendPadded(key, uint64(customer)*customerStride+4, 5)
	status := statuses[g.rng.IntN(len(statuses))]
	cents := minCents + g.rng.IntN(maxCents-minCents+1)

	v := make([]byte, 0, 320)
	v = append(v, `{"order_id":"o-`...)
	v = appendPadded(v, n, 6)
	v = append(v, `","customer_id":"`...)
	v = append(v, key...)
	v = append(v, `","email":"jane.doe`...)
	v = strconv.AppendInt(v, g.rng.Int64N(1000), 10)
	v = append(v, `@example.com","card":"4111000`...)
	v = appendPadded(v, g.rng.Uint64N(1_000_000_000), 9)
	v = append(v, `","status":"`...)
	v = append(v, status...)
	v = append(v, `","currency":"EUR","amount":`...)
	v = strconv.AppendInt(v, int64(cents/100), 10)
	v = append(v, '.')
	v = appendPadded(v, uint64(cents%100), 2)
	v = append(v, `,"created_at":"2024-05-01T12:34:`...)
	v = appendPadded(v, n%60, 2)
	v = append(v, `Z","internal_note":"checked by ops","items":[{"sku":"A-`...)
	v = strconv.AppendInt(v, g.rng.Int64N(1000), 10)
	v = append(v, `","qty":2,"price":19.99}],"address":{"city":"Berlin"}}`...)

	e := Event{Key: key, Value: v}
	if status == "cancelled" || cents < dropBelowCents {
		e.Mark = Drop
	}
	if g.rng.IntN(malformedOneIn) == 0 {
		e.Value = v[:1+g.rng.IntN(maxCut-1)]
		e.Mark = Fail
	}
	return e
}

// appendPadded appends n in decimal, filled up with zeros to at least width
// digits.
func appendPadded(b []byte, n uint64, width int) []byte {
	limit := uint64(1)
	for range width - 1 {
		limit *= 10
	}
	for n < limit && limit > 1 {
		b = append(b, '0')
		limit /= 10
	}
	return strconv.AppendUint(b, n, 10)
}
