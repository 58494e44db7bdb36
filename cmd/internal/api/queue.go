package api

import (
	"encoding/json"

	"github.com/millrace-io/millrace/runtime/record"
)

// Queue is the size of a failure queue.
type Queue struct {
	Entries    uint64 `json:"entries"`
	Bytes      uint64 `json:"bytes"`
	MaxEntries uint64 `json:"max_entries"`
	MaxBytes   uint64 `json:"max_bytes"`
	// KeepMillis is how long an entry is kept; 0: until it is dropped by hand.
	KeepMillis int64 `json:"keep_ms,omitempty"`
	// WhenFull is what happens at MaxEntries or MaxBytes: pause or drop_oldest.
	WhenFull string `json:"when_full,omitempty"`
	// Oldest is when the oldest entry was filed, Unix ms; 0: there is none, or
	// it is not known.
	Oldest int64 `json:"oldest,omitempty"`
	// Warnings say what retention will take soon, a sentence each.
	Warnings []string `json:"warnings,omitempty"`
}

// FailureFilter chooses entries of a failure queue. Every field that is set
// must hold; the zero value chooses all.
type FailureFilter struct {
	Class string  `json:"class,omitempty"`
	Stage string  `json:"stage,omitempty"`
	Key   *string `json:"key,omitempty"` // nil: any
	// Since and Until bound when the record was given up, Unix ms: Since is
	// included, Until is not. 0: no bound.
	Since int64 `json:"since,omitempty"`
	Until int64 `json:"until,omitempty"`
	// Where is an expression over the record (value, key, headers, ...) and
	// failure (class, code, message, stage, plugin, attempts, time, id).
	Where string `json:"where,omitempty"`
}

// FailureQuery asks for a page of a failure queue.
type FailureQuery struct {
	Project, Name string
	After         uint64 // seq
	Limit         int    // 0: 100; at most 1000
	FailureFilter
}

// FailurePage is a page of a failure queue.
type FailurePage struct {
	Entries []*record.Entry `json:"entries"`
	Next    uint64          `json:"next,omitempty"` // After of the next page; 0: none
	Total   uint64          `json:"total"`          // of the whole queue
}

// Selection chooses the entries of a failure queue that something is done to:
// by Seqs, by Filter, or All of them. Exactly one of the three is given, else
// it is CodeInvalid.
type Selection struct {
	Seqs   []uint64       `json:"seqs,omitempty"`
	Filter *FailureFilter `json:"filter,omitempty"`
	All    bool           `json:"all,omitempty"`
	// UpTo is the highest seq concerned, so that entries filed after a question
	// was asked are not taken; 0: no bound.
	UpTo uint64 `json:"up_to,omitempty"`
	// Limit is how many at most, the oldest; 0: no bound.
	Limit int `json:"limit,omitempty"`
}

// Plugins of a ReplayFailures, beside sha256:DIGEST.
const (
	ReplayCurrent = "current"
	ReplayFailed  = "failed"
)

// ReplayFailures sends entries of a failure queue back to where they failed.
type ReplayFailures struct {
	Project string `json:"-"`
	Name    string `json:"-"`
	Selection
	// Plugin is what the failed stage runs these records with this once:
	// "current" (or ""), its present one; "failed", the one that each failed
	// in; or the digest of a stored plugin, sha256:... Records go on from there
	// as the flow is now. Entries of deliveries and built-in stages take no
	// other than the present one.
	Plugin string `json:"plugin,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// ReplayReport is what became of entries that were to be replayed.
type ReplayReport struct {
	// Replayed entries went back, or would.
	Replayed uint64 `json:"replayed"`
	// Skipped could not; Problems are the first 100 of them with the reason.
	Skipped  uint64         `json:"skipped"`
	Problems []EntryProblem `json:"problems,omitempty"`
	// Last is the highest seq of those replayed, for UpTo.
	Last   uint64 `json:"last,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// EntryProblem is why something was not done to an entry.
type EntryProblem struct {
	Seq    uint64 `json:"seq"`
	ID     string `json:"id,omitempty"`
	Detail string `json:"detail"`
}

// DropFailures removes entries of a failure queue for good.
type DropFailures struct {
	Project string `json:"-"`
	Name    string `json:"-"`
	Selection
	DryRun bool `json:"dry_run,omitempty"`
}

// DropReport is what was dropped, or would be.
type DropReport struct {
	Dropped uint64 `json:"dropped"`
	// Last is the highest seq of them, for UpTo.
	Last   uint64 `json:"last,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// ImportReport is what became of entries that were imported.
type ImportReport struct {
	Filed uint64 `json:"filed"`
	// Present were passed over: their emissions have entries already.
	Present uint64 `json:"present"`
}

// Retries is the size of what a flow keeps for another attempt.
type Retries struct {
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	// Held are those of Entries that wait behind an earlier record of their
	// key, among the first thousand of each partition.
	Held uint64 `json:"held"`
	// NextDue is when the next attempt is to be made, Unix ms; 0: none is.
	NextDue int64 `json:"next_due,omitempty"`
}

// RetryQuery asks for a page of what a flow keeps.
type RetryQuery struct {
	Project, Name string
	After         string // cursor, opaque
	Limit         int    // 0: 100; at most 1000
	Stage         string // "": any
	Key           *string
}

// RetryPage is a page of what a flow keeps.
type RetryPage struct {
	Entries []*Retry `json:"entries"`
	Next    string   `json:"next,omitempty"` // After of the next page; "": none
	Total   uint64   `json:"total"`          // of all that the flow keeps
}

// Retry is a record that is kept for another attempt.
type Retry struct {
	ID       string `json:"id"`    // of the record
	Stage    string `json:"stage"` // stage or delivery that it goes on from
	Class    string `json:"class,omitempty"`
	Code     uint32 `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
	Attempts uint32 `json:"attempts"` // made so far
	// First attempt, when it was written, and when the next attempt is to be
	// made, all Unix ms; 0: none was made, or none before what holds it back is
	// gone.
	First int64 `json:"first,omitempty"`
	At    int64 `json:"at"`
	Due   int64 `json:"due,omitempty"`
	// Held: an earlier record of its key is kept, and goes first.
	Held bool `json:"held,omitempty"`
	// Batch is the identity of the batch that it is delivered with.
	Batch    string           `json:"batch,omitempty"`
	Requeues uint32           `json:"requeues,omitempty"`
	Plugin   string           `json:"plugin,omitempty"` // digest that its stage runs this once
	History  []record.Attempt `json:"history,omitempty"`
	// Record is its envelope.
	Record json.RawMessage `json:"record"`
}

// Check says whether exactly one way of choosing is given; the error is an
// *Error with CodeInvalid.
func (s *Selection) Check() error {
	ways := 0
	for _, given := range []bool{len(s.Seqs) > 0, s.Filter != nil && *s.Filter != (FailureFilter{}), s.All} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return &Error{Code: CodeInvalid, Detail: "no entries are chosen", Next: "give seqs, or a filter, or all"}
	case ways > 1:
		return &Error{Code: CodeInvalid, Detail: "entries are chosen in more than one way", Next: "give only one of seqs, filter and all"}
	case s.Limit < 0:
		return &Error{Code: CodeInvalid, Detail: "limit is below 0"}
	}
	return nil
}
