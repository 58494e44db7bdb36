package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// ImportFailures implements api.Backend.
func (d *Daemon) ImportFailures(ctx context.Context, project, name string, in io.Reader) (*api.ImportReport, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	entries, err := d.readEntries(f, in)
	if err != nil {
		return nil, err
	}
	out := &api.ImportReport{}
	for len(entries) > 0 {
		n, bytes := 0, 0
		for n < len(entries) && n < queuePage && (n == 0 || bytes+entries[n].Entry.Input.Size() <= importBytes) {
			bytes += entries[n].Entry.Input.Size()
			n++
		}
		res, err := d.fileEntries(ctx, f, &state.QueueImport{Flow: f.ID, Entries: entries[:n]})
		if err != nil {
			return nil, err
		}
		out.Filed += uint64(res.Done)
		out.Present += uint64(len(res.Skipped))
		entries = entries[n:]
	}
	return out, nil
}

// fileEntries files entries of an import.
func (d *Daemon) fileEntries(ctx context.Context, f *state.Flow, c *state.QueueImport) (*state.QueueOpResult, error) {
	_, doc, err := d.document(f)
	if err != nil {
		return nil, err
	}
	r := retentionOf(doc)
	if r.dropOldest {
		d.filing.Lock()
		defer d.filing.Unlock()
		if err := d.trim(ctx, f.ID, f.FullName(), r); err != nil {
			return nil, err
		}
	}
	res, err := d.queueOp(ctx, c)
	if err == nil && r.dropOldest {
		err = d.trim(ctx, f.ID, f.FullName(), r)
	}
	return res, err
}

// readEntries reads entries, one a line, and finds their partitions.
func (d *Daemon) readEntries(f *state.Flow, in io.Reader) ([]state.ImportEntry, error) {
	partitions, err := d.store.Partitions(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	numbers := map[record.Partition]uint32{}
	for _, p := range partitions {
		numbers[partitionOf(p)] = p.Part
	}
	var out []state.ImportEntry
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), importLine)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		e := &record.Entry{}
		if err := json.Unmarshal(line, e); err != nil {
			return nil, invalid("line %d: %v; nothing was filed", n, err)
		}
		if e.Stage == "" || !e.Class.Valid() {
			return nil, invalid("line %d: the entry names no stage; nothing was filed", n)
		}
		part, ok := numbers[record.Partition{Topic: e.Input.Topic, Broker: e.Input.Broker, Num: e.Input.Partition}]
		if !ok {
			return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("line %d: record %s is of a partition that flow %s does not read; nothing was filed", n, e.ID(), f.FullName()),
				Next: "import into the flow that the entries are of"}
		}
		e.Seq, e.Setting = 0, nil
		out = append(out, state.ImportEntry{Part: part, Entry: e})
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, invalid("line %d is longer than %d MiB; nothing was filed", n+1, importLine>>20)
		}
		return nil, err
	}
	return out, nil
}
