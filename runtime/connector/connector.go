// Package connector holds the few types that the connectors and the lanes
// share. The connectors themselves lie in the folders below; each offers a
// source, a sink or both, and none knows the lanes that use it: the interfaces
// they satisfy belong to the pipeline.
package connector

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// ErrClosed is what a source or a sink answers with after its Close.
var ErrClosed = errors.New("connector is closed")

// ErrNoTopic is found in the error of a source whose topic is not there yet. It
// is waited for: what is written to it from its beginning is the reader's.
var ErrNoTopic = errors.New("the topic is not there yet")

// Found is a partition that a source has at the moment.
type Found struct {
	record.Partition
	// TopicID tells a topic from another one that had its name before; zero
	// where the source has no such thing.
	TopicID [16]byte
}

// Start says where a new flow begins to read. The zero value is the earliest
// record that there is.
type Start struct {
	// Latest begins after the last record there is now.
	Latest bool
	// Time, if not zero, begins at the first record that is not older.
	Time time.Time
}

// ParseStart reads a flow's `start`: "earliest", "latest" or a time in RFC
// 3339 form. The empty string is "earliest".
func ParseStart(s string) (Start, error) {
	switch s {
	case "", "earliest":
		return Start{}, nil
	case "latest":
		return Start{Latest: true}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return Start{}, fmt.Errorf("parse start %q: it is earliest, latest or a time like 2026-11-01T00:00:00Z", s)
	}
	return Start{Time: t}, nil
}

// String is what ParseStart reads.
func (s Start) String() string {
	switch {
	case s.Latest:
		return "latest"
	case !s.Time.IsZero():
		return s.Time.UTC().Format(time.RFC3339)
	}
	return "earliest"
}

// PartitionError is what ails one partition of a source. The source stops
// delivering the partition when it returns one; Assign begins anew.
type PartitionError struct {
	Partition record.Partition
	Err       *record.Error
}

func (e *PartitionError) Error() string {
	return fmt.Sprintf("%s/%d: %v", e.Partition.Topic, e.Partition.Num, e.Err)
}

// Unwrap returns the classified cause.
func (e *PartitionError) Unwrap() error { return e.Err }
