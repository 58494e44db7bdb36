package arena

import (
	"context"
	"time"
)

// medium is a broker that a world is on.
type medium interface {
	// addr is what contestants get as BROKERS.
	addr() string
	// pid is the broker's process.
	pid() int
	// create makes a topic and returns once it can be used.
	create(ctx context.Context, topic string, partitions int) error
	// remove gives a topic up; the broker may take its time.
	remove(ctx context.Context, topic string)
	// fill writes events until next has no more, to partitions by their key.
	fill(ctx context.Context, topic string, next func() (key, value []byte, ok bool)) error
	// ended sums up the end offsets of a topic.
	ended(ctx context.Context, topic string) (int64, error)
	// read hands the first n records of a topic to f, in the order of their
	// partitions. f must not keep the bytes.
	read(ctx context.Context, topic string, n int64, f func(partition int, key, value []byte)) error
	close()
}

// readLimit is how long a read may take.
const readLimit = 2 * time.Minute
