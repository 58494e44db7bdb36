package api

// Offsets are how far a flow has come. Offsets of a file are bytes.
type Offsets struct {
	Flow       string            `json:"flow"` // project/name
	State      string            `json:"state"`
	Generation uint32            `json:"generation"` // rises with each reset
	Partitions []PartitionOffset `json:"partitions"`
}

// PartitionOffset is how far a partition has come; -1: unknown.
type PartitionOffset struct {
	Topic     string `json:"topic"`
	Broker    string `json:"broker,omitempty"` // of a queue of RocketMQ
	Partition int32  `json:"partition"`
	// Committed is the durable watermark, Position what is fetched next.
	Committed int64 `json:"committed"`
	Position  int64 `json:"position"`
	// Start and End are the first offset that the source still has and the one
	// after its last.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	Lag   int64 `json:"lag"`
}

// Targets of an OffsetsReset, beside -N and a time.
const (
	OffsetsEarliest = "earliest"
	OffsetsLatest   = "latest"
)

// OffsetsReset says where a flow is to go on. To and Positions exclude each
// other.
type OffsetsReset struct {
	Project string `json:"-"`
	Name    string `json:"-"`
	// To moves all partitions: "earliest", "latest", "-N" (N offsets before the
	// watermark of each), or a time in RFC 3339 (to the first record that is
	// not older).
	To string `json:"to,omitempty"`
	// Positions moves these partitions, the others stay where they are.
	Positions []OffsetTarget `json:"positions,omitempty"`
	// Hash is that of the plan that is to be carried out; required unless
	// DryRun is set.
	Hash   string `json:"hash,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// OffsetTarget is where a partition is to go on.
type OffsetTarget struct {
	// Topic may be empty where the flow reads one topic, Broker where one broker
	// alone has a queue of the number.
	Topic     string `json:"topic,omitempty"`
	Broker    string `json:"broker,omitempty"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// OffsetsPlan is what a reset changes, or has changed.
type OffsetsPlan struct {
	Flow  string `json:"flow"` // project/name
	State string `json:"state"`
	// Generation is the reset generation after it.
	Generation uint32 `json:"generation"`
	// Hash names the plan: the same target with another hash is another plan,
	// because the flow or its source have moved on.
	Hash       string        `json:"hash"`
	Partitions []OffsetsMove `json:"partitions"`
	// Repeated and Skipped are the sums over the partitions.
	Repeated int64    `json:"repeated"`
	Skipped  int64    `json:"skipped"`
	Warnings []string `json:"warnings,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

// OffsetsMove is the move of a partition.
type OffsetsMove struct {
	Topic     string `json:"topic"`
	Broker    string `json:"broker,omitempty"` // of a queue of RocketMQ
	Partition int32  `json:"partition"`
	// From is the watermark before, -1: none yet; To the one after.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Repeated and Skipped are how many offsets are read again, or never; one
	// of them is 0. -1: unknown.
	Repeated int64  `json:"repeated"`
	Skipped  int64  `json:"skipped"`
	Note     string `json:"note,omitempty"` // as that the target was beyond what the source has
}
