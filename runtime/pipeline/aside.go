package pipeline

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

const (
	// maxTelling is how many records a flow tells of at the same time.
	maxTelling = 64
	// tellLimit is how long telling may hold a record up.
	tellLimit = 10 * time.Second
)

// tell tells of a record that cannot go on, and then calls what is next, with
// what went wrong in the entry.
func (l *lane) tell(e *record.Entry, then func()) {
	f := l.flow
	if f.cfg.Tell == nil {
		then()
		return
	}
	if f.telling.Add(1) > maxTelling {
		f.telling.Add(-1)
		f.stats.Untold.Add(1)
		e.Told = "skipped: " + strconv.Itoa(maxTelling) + " others were being told of"
		then()
		return
	}
	l.mu.Lock()
	l.out++
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), tellLimit)
	var once sync.Once
	end := func(told string) {
		once.Do(func() {
			cancel()
			f.telling.Add(-1)
			if e.Told = told; told != "" {
				f.stats.Untold.Add(1)
			}
			then()
			l.mu.Lock()
			l.answered(1)
			l.mu.Unlock()
		})
	}
	context.AfterFunc(ctx, func() { end("no answer within " + tellLimit.String()) })
	shown := *e
	f.cfg.Tell(ctx, &shown, end)
}

// aside is a record for the topic of its stage's `otherwise`.
type aside struct {
	at   *StageInfo
	rec  record.Record
	slot uint64
}

// AsideHeaders are the headers by which a record that is given to another topic
// tells why it could not go on.
func AsideHeaders(e *record.Entry) []record.Header {
	var hs []record.Header
	for _, h := range [][2]string{
		{"millrace-flow", e.Flow}, {"millrace-stage", e.Stage}, {"millrace-class", e.Class.String()}, {"millrace-code", strconv.FormatUint(uint64(e.Code), 10)},
		{"millrace-message", e.Message}, {"millrace-attempts", strconv.FormatUint(uint64(e.Attempts), 10)}, {"millrace-id", e.ID()}, {"millrace-digest", e.Digest},
	} {
		if h[1] != "" {
			hs = append(hs, record.Header{Key: h[0], Value: []byte(h[1])})
		}
	}
	return hs
}

func asideRecord(rec *record.Record, e *record.Entry) record.Record {
	r := *rec
	r.To, r.Attempt = -1, 1
	r.Headers = slices.Concat(rec.Headers, AsideHeaders(e))
	return r
}

// putAside leaves a record to the goroutine that sees to a lane's topics,
// which there is as long as there is something to do: a sink may block, and
// who comes here must not.
func (l *lane) putAside(a aside) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fenced {
		return
	}
	l.out++
	l.asides = append(l.asides, a)
	if !l.asiding {
		l.asiding = true
		go l.deliverAsides()
	}
}

func (l *lane) deliverAsides() {
	ctx := l.flow.context()
	for {
		l.mu.Lock()
		as := l.asides
		l.asides = nil
		l.asiding = len(as) > 0
		l.mu.Unlock()
		if len(as) == 0 {
			return
		}
		for len(as) > 0 {
			n := 1
			for n < len(as) && as[n].at == as[0].at {
				n++
			}
			l.deliverAside(ctx, as[:n])
			as = as[n:]
		}
	}
}

// deliverAside delivers records to one topic and settles them, as often as it
// takes.
func (l *lane) deliverAside(ctx context.Context, as []aside) {
	total := len(as)
	since := l.flow.cfg.Now()
	for attempt := uint32(1); len(as) > 0; attempt++ {
		recs := make([]record.Record, len(as))
		for i := range as {
			recs[i] = as[i].rec
		}
		errs := make([]error, len(as))
		var answers sync.WaitGroup
		answers.Add(len(as))
		as[0].at.Aside.Deliver(ctx, recs, func(i int, err error) {
			errs[i] = err
			answers.Done()
		})
		answers.Wait()
		var again []aside
		wait := time.Duration(0)
		for i, err := range errs {
			e := record.AsError(err)
			switch {
			case err == nil:
				l.settleAs(as[i].slot, DroppedAside)
			case errors.Is(err, context.Canceled):
			case e.Class == record.Fenced:
				l.fence()
			case e.Class.Transient():
				d := retry.Policy{}.Decide(retry.Failure{Err: e, Attempt: attempt, Elapsed: l.flow.cfg.Now().Sub(since), Rand: l.flow.cfg.Rand()})
				wait = max(wait, d.After)
				again = append(again, as[i])
			default:
				l.halt("stage " + as[i].at.ID + ", record " + as[i].rec.ID() + ": the topic of `otherwise` does not take it: " + e.Error())
			}
		}
		if as = again; len(as) > 0 && sleep(ctx, wait) != nil {
			break
		}
	}
	l.mu.Lock()
	l.answered(total)
	l.mu.Unlock()
}
