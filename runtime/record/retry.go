package record

// EmissionKey names an emission within its partition.
type EmissionKey struct {
	Offset int64
	Path   Path
}

// EmissionKey is the record's name within its partition.
func (r *Record) EmissionKey() EmissionKey { return EmissionKey{r.Offset, r.Path} }

// MaxHistory is how many attempts an entry remembers: the first one and the
// latest.
const MaxHistory = 8

// Attempt is one attempt that failed.
type Attempt struct {
	// Time in Unix milliseconds at which it had failed; Millis is how long it
	// took.
	Time    int64  `json:"time"`
	Millis  int64  `json:"ms"`
	Class   Class  `json:"class"`
	Code    uint32 `json:"code,omitempty"`
	Message string `json:"message"`
}

// Remember appends an attempt to a history that keeps MaxHistory of them.
func Remember(history []Attempt, a Attempt) []Attempt {
	if len(history) < MaxHistory {
		return append(history[:len(history):len(history)], a)
	}
	kept := append([]Attempt{history[0]}, history[2:]...)
	return append(kept, a)
}

// Exchange is a request and its answer as a failure entry shows them: bounded,
// and without what opens a door.
type Exchange struct {
	Method string `json:"method"`
	// URL without the values of credentials.
	URL            string   `json:"url"`
	RequestHeaders []Header `json:"-"`
	RequestBody    []byte   `json:"-"`
	// Status is 0 when there was no answer.
	Status          int      `json:"status,omitempty"`
	ResponseHeaders []Header `json:"-"`
	ResponseBody    []byte   `json:"-"`
	// Cut says that a body is only the beginning.
	RequestCut  bool `json:"request_cut,omitempty"`
	ResponseCut bool `json:"response_cut,omitempty"`
}

// Retry is an emission that waits in the state for another attempt, with all
// that the attempt needs. There is one for each (flow, partition, offset,
// path).
type Retry struct {
	// Stage is the id of the stage or delivery that the record goes on from.
	Stage string
	// Input is the record as that stage gets it.
	Input Record
	// Generation is the flow's reset generation in which it was read.
	Generation uint32
	// Class, Code and Message of the last attempt that failed; zero while none
	// was made.
	Class   Class
	Code    uint32
	Message string
	// Attempts made so far.
	Attempts uint32
	// First is when the first attempt was made, At when this was written, Due
	// when the next attempt is to be made, all Unix milliseconds. A Due of 0
	// says: once what holds it back is gone.
	First, At, Due int64
	// Hold is a hash of the delivery and the key, if later records of that key
	// wait behind this one; 0: none do.
	Hold uint64
	// Group is the identity of the batch that the record is part of, empty if
	// it is in none: the members of a group are delivered together. GroupIndex
	// is its place in it.
	Group      string
	GroupIndex uint32
	// Via is the digest of a plugin that the stage runs this once instead of
	// its own, "" for its own.
	Via string
	// Requeues is how often it went back here from the failure queue.
	Requeues uint32
	History  []Attempt
}

// Size is about what the entry takes in a commit.
func (r *Retry) Size() int {
	n := r.Input.Size() + len(r.Message) + 128
	for i := range r.History {
		n += len(r.History[i].Message) + 24
	}
	return n
}

// Item is a record on its way into a delivery.
type Item struct {
	Record Record
	// Retry is the entry that the record comes from, nil for one that comes
	// from its source.
	Retry *Retry
}

// Outcome is what a delivery did with an item.
type Outcome struct {
	// Err is nil once the sink has taken the record; an *Error when it cannot
	// be delivered; or an error that is context.Canceled when it was abandoned.
	Err error
	// Keep, if not nil, asks that the record be kept in the state and tried
	// again later; Err is the failure, nil if no attempt was made because an
	// earlier record of its key is kept. Stage, Input and Generation need not
	// be set.
	Keep *Retry
	// Attempts made in all, and what is known about those that failed.
	Attempts uint32
	History  []Attempt
	Exchange *Exchange
}
