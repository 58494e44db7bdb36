// Package contract is what a contestant of the bench is told, by environment
// variables, so that one may be a program in any language:
//
//	BROKERS      HOST:PORT, comma-separated
//	TOPIC_IN     to read from its beginning
//	TOPIC_OUT    to write to; it exists, with as many partitions
//	GROUP        a consumer group that nobody has used; it may be left unused
//	COMPRESSION  of what is written: lz4
//	N            records in TOPIC_IN
//	PARTITIONS   of both topics
//	HOME_OF_RUN  an empty folder for what it keeps
//
// A contestant runs until it is stopped by SIGTERM, which comes once TOPIC_OUT
// holds as many records as must come out.
package contract

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Home is the variable that names the folder of a run.
const Home = "HOME_OF_RUN"

// Task is what a contestant has to do.
type Task struct {
	Brokers     []string
	In, Out     string // topics
	Group       string
	Compression string // lz4, zstd, snappy, gzip, none
	N           int64  // records in In
	Partitions  int
}

// Environ is the task as environment variables, NAME=VALUE.
func (t Task) Environ() []string {
	return []string{
		"BROKERS=" + strings.Join(t.Brokers, ","), "TOPIC_IN=" + t.In, "TOPIC_OUT=" + t.Out, "GROUP=" + t.Group,
		"COMPRESSION=" + t.Compression, fmt.Sprintf("N=%d", t.N), fmt.Sprintf("PARTITIONS=%d", t.Partitions),
	}
}

// FromEnviron is the task of this process.
func FromEnviron() (Task, error) {
	t := Task{Brokers: strings.Split(os.Getenv("BROKERS"), ","), In: os.Getenv("TOPIC_IN"), Out: os.Getenv("TOPIC_OUT"),
		Group: os.Getenv("GROUP"), Compression: os.Getenv("COMPRESSION")}
	for _, name := range []string{"BROKERS", "TOPIC_IN", "TOPIC_OUT", "GROUP", "COMPRESSION"} {
		if os.Getenv(name) == "" {
			return t, fmt.Errorf("the variable %s is not set: the bench starts this program with its task in the environment", name)
		}
	}
	var err error
	if t.N, err = strconv.ParseInt(os.Getenv("N"), 10, 64); err != nil {
		return t, fmt.Errorf("the variable N: %w", err)
	}
	if t.Partitions, err = strconv.Atoi(os.Getenv("PARTITIONS")); err != nil {
		return t, fmt.Errorf("the variable PARTITIONS: %w", err)
	}
	return t, nil
}

// Codec is the task's compression for franz-go.
func (t Task) Codec() (kgo.CompressionCodec, error) {
	switch t.Compression {
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "none":
		return kgo.NoCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("the variable COMPRESSION is %q: it is one of lz4, zstd, snappy, gzip, none", t.Compression)
}
