package dev

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxLine is the longest line that is fed: what a broker takes.
const maxLine = 1 << 20

// feeder sends the lines of testdata/*.ndjson to a topic, again and again.
type feeder struct {
	dir  string // with the files
	rate float64
	sink *kafka.Sink
	// now asks for the next record at once.
	now chan struct{} // 1: asking twice is asking once
	say func(format string, args ...any)
}

func newFeeder(dir, broker, topic string, rate float64, say func(string, ...any)) (*feeder, error) {
	sink, err := kafka.NewSink(kafka.SinkConfig{Config: kafka.Config{Brokers: []string{broker}}, Topic: topic})
	if err != nil {
		return nil, err
	}
	return &feeder{dir: dir, rate: rate, sink: sink, now: make(chan struct{}, 1), say: say}, nil
}

// hurry sends the next record at once. A nil feeder sends nothing.
func (f *feeder) hurry() {
	if f == nil {
		return
	}
	select {
	case f.now <- struct{}{}:
	default:
	}
}

// files are those that are fed, sorted. What is no file, as a pipe that nobody
// writes to, is none.
func (f *feeder) files() []string {
	entries, _ := os.ReadDir(f.dir) // there need be none
	var files []string
	for _, e := range entries {
		path := filepath.Join(f.dir, e.Name())
		if info, err := os.Stat(path); filepath.Ext(path) == ".ndjson" && err == nil && info.Mode().IsRegular() {
			files = append(files, path)
		}
	}
	return files
}

// run feeds until ctx ends. The files are read anew in each round, so changes
// of them count.
func (f *feeder) run(ctx context.Context) {
	defer f.sink.Close()
	every := time.NewTicker(max(time.Duration(float64(time.Second)/f.rate), time.Microsecond))
	defer every.Stop()
	next := func() bool {
		select {
		case <-ctx.Done():
			return false
		case <-every.C:
		case <-f.now:
		}
		return true
	}
	said := ""
	for ctx.Err() == nil {
		sent := false
		for _, path := range f.files() {
			err := f.file(path, func(line []byte) bool {
				if !next() {
					return false
				}
				sent = true
				f.send(ctx, line)
				return true
			})
			if err != nil && err.Error() != said {
				said = err.Error()
				f.say("feed: %s", cli.Safe(err.Error()))
			}
		}
		if !sent && !next() {
			return
		}
	}
}

// file calls each with the lines of a file that are not empty, until it returns
// false.
func (f *feeder) file(path string, each func(line []byte) bool) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) > 0 && !each(slices.Clone(lines.Bytes())) {
			return nil
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return &os.PathError{Op: "read", Path: path, Err: errors.New("a line is longer than 1 MiB; what follows it is not fed")}
	}
	return lines.Err()
}

func (f *feeder) send(ctx context.Context, value []byte) {
	f.sink.Deliver(ctx, []record.Record{{Value: value, Timestamp: time.Now().UnixMilli(), To: -1}}, func(_ int, err error) {
		if err != nil && ctx.Err() == nil {
			f.say("feed: %s", cli.Safe(err.Error()))
		}
	})
}
