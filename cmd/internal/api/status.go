package api

// Held is a flow that holds itself back and goes on by itself.
type Held struct {
	Reason string `json:"reason"`
	Since  int64  `json:"since"` // Unix ms
}

// Delivery is one of a flow's deliveries.
type Delivery struct {
	ID       string `json:"id"`
	Describe string `json:"describe"`
	// Connection is its stored name or its address, "" if there is none.
	Connection string `json:"connection,omitempty"`
	// Problem is why records do not get through it just now.
	Problem string `json:"problem,omitempty"`
}

// Rate is a limit of records a second and what is used of it.
type Rate struct {
	Allowed float64 `json:"allowed"`
	Used    float64 `json:"used"` // in the last second
}

// ConnectionUsage is what this node does with a connection of kind http just
// now, for all of its flows.
type ConnectionUsage struct {
	Name string `json:"name"` // stored name or address
	// InFlight requests are under way, Waiting ones are held back by Concurrent,
	// by the rate or by the breaker. Concurrent 0: no bound.
	InFlight   int `json:"in_flight"`
	Waiting    int `json:"waiting"`
	Concurrent int `json:"concurrent"`
	// Allowed requests a second, 0: no limit; Used in the last second.
	Allowed float64 `json:"allowed"`
	Used    float64 `json:"used"`
	Breaker Breaker `json:"breaker"`
}

// States of a Breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half-open"
)

// Breaker is what keeps requests back from a partner that is down.
type Breaker struct {
	State  string `json:"state"` // closed, open, half-open
	Since  int64  `json:"since,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Receipt says what became of every record that a flow has read since it was
// made or reset: Read + Split = Delivered + Dropped + Known + Filed + Kept +
// Flying + Unaccounted.
type Receipt struct {
	Account
	Partitions []PartitionReceipt `json:"partitions,omitempty"`
}

// PartitionReceipt is the receipt of a partition.
type PartitionReceipt struct {
	Topic     string `json:"topic"`
	Broker    string `json:"broker,omitempty"` // of a queue of RocketMQ
	Partition int32  `json:"partition"`
	Account
}

// Account counts emissions: records on their way, each that a stage made of
// another by itself.
type Account struct {
	Read      int64 `json:"read"`  // records of the source
	Split     int64 `json:"split"` // emissions beyond the first of a record
	Delivered int64 `json:"delivered"`
	// Dropped on purpose, by stage or reason ("queue": by hand, "expired":
	// retention of the queue, "oldest": the queue was full).
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// Known were not delivered again, because an entry of theirs existed when
	// they were read again.
	Known int64 `json:"known"`
	Filed int64 `json:"filed"` // lie in the failure queue
	Kept  int64 `json:"kept"`  // are kept for another attempt
	// Flying are under way.
	Flying int64 `json:"flying"`
	// Unaccounted is what is missing (below 0: too many); anything but 0 is a
	// fault of the program.
	Unaccounted int64 `json:"unaccounted"`
}

// Drops is how many were dropped in all.
func (a *Account) Drops() int64 {
	var n int64
	for _, d := range a.Dropped {
		n += d
	}
	return n
}
