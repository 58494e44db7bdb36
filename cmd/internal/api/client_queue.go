package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/record"
)

// Rollback implements Backend.
func (c *Client) Rollback(ctx context.Context, req *Rollback) (*FlowPlan, error) {
	return one[FlowPlan](func(out any) error {
		return c.post(ctx, req, out, deployLimit, "flows", project(req.Project), req.Name, "rollback")
	})
}

// Offsets implements Backend.
func (c *Client) Offsets(ctx context.Context, projectName, name string) (*Offsets, error) {
	return one[Offsets](func(out any) error { return c.get(ctx, out, nil, "flows", project(projectName), name, "offsets") })
}

// ResetOffsets implements Backend.
func (c *Client) ResetOffsets(ctx context.Context, req *OffsetsReset) (*OffsetsPlan, error) {
	return one[OffsetsPlan](func(out any) error {
		return c.post(ctx, req, out, deployLimit, "flows", project(req.Project), req.Name, "offsets", "reset")
	})
}

// values are the query of a filter.
func (f *FailureFilter) values() url.Values {
	query := url.Values{}
	for name, v := range map[string]string{"class": f.Class, "stage": f.Stage, "where": f.Where} {
		if v != "" {
			query.Set(name, v)
		}
	}
	for name, v := range map[string]int64{"since": f.Since, "until": f.Until} {
		if v != 0 {
			query.Set(name, strconv.FormatInt(v, 10))
		}
	}
	if f.Key != nil {
		query.Set("key", *f.Key)
	}
	return query
}

// Failures implements Backend.
func (c *Client) Failures(ctx context.Context, q *FailureQuery) (*FailurePage, error) {
	query := q.values()
	if q.After != 0 {
		query.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return one[FailurePage](func(out any) error { return c.get(ctx, out, query, "flows", project(q.Project), q.Name, "failures") })
}

// Failure implements Backend.
func (c *Client) Failure(ctx context.Context, projectName, name string, seq uint64) (*record.Entry, error) {
	return one[record.Entry](func(out any) error {
		return c.get(ctx, out, nil, "flows", project(projectName), name, "failures", strconv.FormatUint(seq, 10))
	})
}

// checkSelection refuses what JSON would not carry unchanged.
func checkSelection(s *Selection) error {
	if s.Filter != nil && s.Filter.Key != nil && !utf8.ValidString(*s.Filter.Key) {
		return &Error{Code: CodeUsage, Detail: "the key is not UTF-8 and cannot choose entries here", Next: "choose them by their numbers, which a list of entries has"}
	}
	return s.Check()
}

// ReplayFailures implements Backend.
func (c *Client) ReplayFailures(ctx context.Context, req *ReplayFailures) (*ReplayReport, error) {
	if err := checkSelection(&req.Selection); err != nil {
		return nil, err
	}
	return one[ReplayReport](func(out any) error {
		return c.post(ctx, req, out, deployLimit, "flows", project(req.Project), req.Name, "failures", "replay")
	})
}

// DropFailures implements Backend.
func (c *Client) DropFailures(ctx context.Context, req *DropFailures) (*DropReport, error) {
	if err := checkSelection(&req.Selection); err != nil {
		return nil, err
	}
	return one[DropReport](func(out any) error {
		return c.post(ctx, req, out, deployLimit, "flows", project(req.Project), req.Name, "failures", "drop")
	})
}

// importChunk is how many bytes of entries a request of ImportFailures carries
// at most, unless one entry is larger.
const importChunk = 4 << 20

// ImportFailures implements Backend. What is too much for one request is sent
// in several: then those before the one that fails have been filed, which the
// error says.
func (c *Client) ImportFailures(ctx context.Context, projectName, name string, entries io.Reader) (*ImportReport, error) {
	total := &ImportReport{}
	var chunk bytes.Buffer
	send := func() error {
		req := request{method: http.MethodPost, path: []string{"flows", project(projectName), name, "failures", "import"}, kind: ndjsonType, body: bytes.NewReader(chunk.Bytes()), limit: deployLimit}
		report, err := one[ImportReport](func(out any) error { return c.ask(ctx, req, out) })
		if err != nil {
			return err
		}
		chunk.Reset()
		total.Filed, total.Present = total.Filed+report.Filed, total.Present+report.Present
		return nil
	}
	partly := func(err error) error {
		known, ok := errors.AsType[*Error](err)
		if !ok || total.Filed == 0 {
			return err
		}
		e := *known
		e.Detail += fmt.Sprintf("; %d entries before were filed", total.Filed)
		return &e
	}
	lines := bufio.NewReaderSize(entries, 64<<10)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, partly(err)
		}
		if entry := bytes.TrimSpace(line); len(entry) > 0 {
			if bad := json.Unmarshal(entry, &record.Entry{}); bad != nil {
				return nil, partly(&Error{Code: CodeInvalid, Detail: fmt.Sprintf("line %d: %v", n, bad), Next: "each line is an entry as `flowctl queue export` writes it"})
			}
			if chunk.Len() > 0 && chunk.Len()+len(entry) >= importChunk {
				if err := send(); err != nil {
					return nil, partly(err)
				}
			}
			chunk.Write(entry)
			chunk.WriteByte('\n')
		}
		if err == io.EOF {
			break
		}
	}
	if err := send(); err != nil {
		return nil, partly(err)
	}
	return total, nil
}

// Retries implements Backend.
func (c *Client) Retries(ctx context.Context, q *RetryQuery) (*RetryPage, error) {
	query := url.Values{}
	if q.After != "" {
		query.Set("after", q.After)
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Stage != "" {
		query.Set("stage", q.Stage)
	}
	if q.Key != nil {
		query.Set("key", *q.Key)
	}
	return one[RetryPage](func(out any) error { return c.get(ctx, out, query, "flows", project(q.Project), q.Name, "retries") })
}
