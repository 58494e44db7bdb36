package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// pausedNote is why a partition is not fetched from. With nothing in flight it
// waits for memory that other partitions hold.
func pausedNote(inFlight int) string {
	switch inFlight {
	case 0:
		return "fetching paused: records of other partitions wait for their delivery"
	case 1:
		return "fetching paused: 1 record waits for the delivery"
	}
	return fmt.Sprintf("fetching paused: %d records wait for the delivery", inFlight)
}

// partitionName is topic/partition, of RocketMQ topic/broker/queue.
func partitionName(topic, broker string, partition int32) string {
	if broker != "" {
		return fmt.Sprintf("%s/%s/%d", topic, broker, partition)
	}
	return fmt.Sprintf("%s/%d", topic, partition)
}

// skipPairs say what a source has passed over, the latest places first.
func skipPairs(f *api.Flow, now time.Time) [][2]string {
	if f.Figures == nil || f.Figures.Skipped == 0 {
		return nil
	}
	places := slices.SortedFunc(slices.Values(f.Skips), func(a, b api.Skip) int { return cmp.Compare(b.At, a.At) })
	var texts []string
	for i, s := range places {
		if i == maxSkips {
			texts = append(texts, fmt.Sprintf("and %d more", len(places)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("%s at %d, which goes on at %d, %s ago", partitionName(s.Topic, s.Broker, s.Partition), s.From, s.To, cli.Age(now, s.At)))
	}
	return [][2]string{{"Skipped", cli.Plural(f.Figures.Skipped, "record") + " passed over: " + strings.Join(texts, "; ")}}
}

// maxSkips is how many partitions with skipped records are named.
const maxSkips = 3

func partitionGrid(w io.Writer, format cli.Format, partitions []api.Partition) error {
	if len(partitions) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, p := range partitions {
		note := p.Problem
		if note == "" && p.Paused {
			note = pausedNote(p.InFlight)
		}
		owner := p.Owner
		if format != cli.Wide {
			owner = cli.Shorten(owner, 9)
		}
		rows = append(rows, []string{partitionName(p.Topic, p.Broker, p.Partition), strconv.FormatUint(uint64(p.Slot), 10), owner,
			cli.Count(p.Committed), cli.Count(p.Position), cli.Count(p.End), cli.Count(p.Lag), strconv.Itoa(p.InFlight), note})
	}
	return cli.Grid(w, []string{"PARTITION", "SLOT", "OWNER", "COMMITTED", "POSITION", "END", "LAG", "IN FLIGHT", "NOTE"}, rows)
}
