package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// Retries implements api.Backend.
func (d *Daemon) Retries(_ context.Context, q *api.RetryQuery) (*api.RetryPage, error) {
	f, err := d.findFlow(q.Project, q.Name)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(q.Limit)
	after, err := parseCursor(q.After)
	if err != nil {
		return nil, err
	}
	kept, err := d.store.Retries(f.ID, after, limit+1, func(e *record.Retry) bool {
		return (q.Stage == "" || e.Stage == q.Stage) && (q.Key == nil || e.Input.Key != nil && string(e.Input.Key) == *q.Key)
	})
	if err != nil {
		return nil, d.apiError(err)
	}
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	page := &api.RetryPage{Entries: []*api.Retry{}, Total: stats.Kept}
	if len(kept) > limit {
		kept = kept[:limit]
		last := kept[limit-1]
		page.Next = cursor(state.RetryKey{Part: last.Part, Offset: last.Entry.Input.Offset, Path: last.Entry.Input.Path})
	}
	for _, k := range kept {
		a, err := apiRetry(k.Entry)
		if err != nil {
			return nil, err
		}
		page.Entries = append(page.Entries, a)
	}
	return page, nil
}

func apiRetry(e *record.Retry) (*api.Retry, error) {
	envelope, err := record.AppendEnvelope(nil, &e.Input)
	if err != nil {
		return nil, fmt.Errorf("write record %s: %w", e.Input.ID(), err)
	}
	a := &api.Retry{
		ID: e.Input.ID(), Stage: e.Stage, Code: e.Code, Message: e.Message, Attempts: e.Attempts, First: e.First, At: e.At, Due: e.Due,
		Held: e.Hold != 0 && e.Due == 0, Batch: e.Group, Requeues: e.Requeues, Plugin: e.Via, History: e.History, Record: json.RawMessage(envelope),
	}
	if e.Attempts > 0 || e.Message != "" {
		a.Class = e.Class.String()
	}
	return a, nil
}

// cursor writes a place in what is kept for who asks; parseCursor reads it.
func cursor(k state.RetryKey) string {
	return fmt.Sprintf("%d.%d.%s", k.Part, k.Offset, base64.RawURLEncoding.EncodeToString([]byte(k.Path)))
}

func parseCursor(s string) (*state.RetryKey, error) {
	if s == "" {
		return nil, nil
	}
	k := &state.RetryKey{}
	at := strings.LastIndexByte(s, '.')
	if at < 0 {
		return nil, errCursor(s)
	}
	_, err := fmt.Sscanf(s[:at], "%d.%d", &k.Part, &k.Offset)
	path, bad := base64.RawURLEncoding.DecodeString(s[at+1:])
	if errors.Join(err, bad) != nil || len(path)%2 != 0 {
		return nil, errCursor(s)
	}
	k.Path = record.Path(path)
	return k, nil
}

func errCursor(s string) error {
	return invalid("cursor %q is none: take `next` of the page before", s)
}
