package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// ndjsonType is the media type of entries, one a line.
const ndjsonType = "application/x-ndjson"

const (
	failuresPath = flowPath + "/failures"
	importPath   = failuresPath + "/import"
)

type entryRef struct {
	Project string `path:"project"`
	Name    string `path:"name"`
	Seq     uint64 `path:"seq"`
}

func (s *service) failureRoutes(doc huma.API) {
	call(s, doc, http.MethodGet, failuresPath, "list-failures", "A page of a flow's failure queue, oldest first", s.listFailures)
	call(s, doc, http.MethodGet, failuresPath+"/{seq}", "get-failure", "An entry of a flow's failure queue", func(ctx context.Context, in *entryRef) (*record.Entry, error) {
		return s.Failure(ctx, in.Project, in.Name, in.Seq)
	})
	remove(s, doc, failuresPath+"/{seq}", "drop-failure", "Drop an entry of a flow's failure queue", s.dropFailure)
	call(s, doc, http.MethodPost, failuresPath+"/replay", "replay-failures", "Send entries back to where they failed", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Body    ReplayFailures
	}) (*ReplayReport, error) {
		if err := in.Body.Check(); err != nil {
			return nil, err
		}
		in.Body.Project, in.Body.Name = in.Project, in.Name
		return s.ReplayFailures(ctx, &in.Body)
	})
	call(s, doc, http.MethodPost, failuresPath+"/drop", "drop-failures", "Drop entries for good", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Body    DropFailures
	}) (*DropReport, error) {
		if err := in.Body.Check(); err != nil {
			return nil, err
		}
		in.Body.Project, in.Body.Name = in.Project, in.Name
		return s.DropFailures(ctx, &in.Body)
	})
	s.importRoute(doc)
	call(s, doc, http.MethodGet, flowPath+"/retries", "list-retries", "A page of what a flow keeps for another attempt", s.listRetries)
}

func (s *service) listFailures(ctx context.Context, in *struct {
	Project string `path:"project"`
	Name    string `path:"name"`
	After   uint64 `query:"after" doc:"Cursor: the answer's next."`
	Limit   int    `query:"limit" minimum:"0" maximum:"1000" doc:"Entries a page; 0 or missing: 100."`
	Class   string `query:"class" doc:"Only of this error class."`
	Stage   string `query:"stage" doc:"Only of this stage or delivery."`
	Key     string `query:"key" doc:"Only of records with this key, which may be empty."`
	Since   int64  `query:"since" doc:"Only given up at this time or later, Unix ms."`
	Until   int64  `query:"until" doc:"Only given up before this time, Unix ms."`
	Where   string `query:"where" doc:"Only where this expression holds, over the record and failure."`
}) (*FailurePage, error) {
	page, err := s.Failures(ctx, &FailureQuery{
		Project: in.Project, Name: in.Name, After: in.After, Limit: in.Limit,
		FailureFilter: FailureFilter{Class: in.Class, Stage: in.Stage, Key: queryKey(ctx), Since: in.Since, Until: in.Until, Where: in.Where},
	})
	if page != nil && page.Entries == nil {
		whole := *page
		whole.Entries = []*record.Entry{}
		page = &whole
	}
	return page, err
}

// queryKey is the key that a request asks for, nil if it asks for any.
func queryKey(ctx context.Context) *string {
	query := requestOf(ctx).URL.Query()
	if !query.Has("key") {
		return nil
	}
	key := query.Get("key")
	return &key
}

func (s *service) dropFailure(ctx context.Context, in *entryRef) error {
	req := &DropFailures{Project: in.Project, Name: in.Name, Selection: Selection{Seqs: []uint64{in.Seq}}}
	report, err := s.DropFailures(ctx, req)
	if err == nil && report.Dropped == 0 {
		_, err = s.Failure(ctx, in.Project, in.Name, in.Seq)
	}
	return err
}

// importRoute takes entries as they are exported. The body is read by the
// Backend.
func (s *service) importRoute(doc huma.API) {
	call(s, doc, http.MethodPost, importPath, "import-failures", "File entries that were exported, one JSON object a line, at most 8 MiB", func(ctx context.Context, in *flowRef) (*ImportReport, error) {
		r := requestOf(ctx)
		if err := requireType(r, ndjsonType, "application/ndjson", "application/jsonl"); err != nil {
			return nil, err
		}
		report, err := s.ImportFailures(ctx, in.Project, in.Name, r.Body)
		if cause := bodyFailure(r); err != nil && cause != nil {
			err = cause
		}
		return report, err
	})
	doc.OpenAPI().Paths[importPath].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		ndjsonType: {Schema: &huma.Schema{Type: huma.TypeString, Description: "A FailureEntry a line."}},
	}}
}

func (s *service) listRetries(ctx context.Context, in *struct {
	Project string `path:"project"`
	Name    string `path:"name"`
	After   string `query:"after" doc:"Cursor: the answer's next."`
	Limit   int    `query:"limit" minimum:"0" maximum:"1000" doc:"Entries a page; 0 or missing: 100."`
	Stage   string `query:"stage" doc:"Only of this stage or delivery."`
	Key     string `query:"key" doc:"Only of records with this key, which may be empty."`
}) (*RetryPage, error) {
	page, err := s.Retries(ctx, &RetryQuery{Project: in.Project, Name: in.Name, After: in.After, Limit: in.Limit, Stage: in.Stage, Key: queryKey(ctx)})
	if page != nil && page.Entries == nil {
		whole := *page
		whole.Entries = []*Retry{}
		page = &whole
	}
	return page, err
}

func (s *service) offsetRoutes(doc huma.API) {
	call(s, doc, http.MethodGet, flowPath+"/offsets", "get-offsets", "How far a flow has come, and what its source has", func(ctx context.Context, in *flowRef) (*Offsets, error) {
		o, err := s.Offsets(ctx, in.Project, in.Name)
		if o != nil && o.Partitions == nil {
			whole := *o
			whole.Partitions = []PartitionOffset{}
			o = &whole
		}
		return o, err
	})
	call(s, doc, http.MethodPost, flowPath+"/offsets/reset", "reset-offsets", "Plan where a flow is to go on (dry_run), or do as a plan says (hash)", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Body    OffsetsReset
	}) (*OffsetsPlan, error) {
		req := &in.Body
		switch {
		case (req.To == "") == (len(req.Positions) == 0):
			return nil, &Error{Code: CodeInvalid, Detail: "a reset has a target: either to, or positions", Next: `send {"to":"earliest","dry_run":true}`}
		case req.Hash == "" && !req.DryRun:
			return nil, &Error{Code: CodeInvalid, Detail: "a reset needs the hash of a plan", Next: "ask for the plan first: dry_run"}
		}
		req.Project, req.Name = in.Project, in.Name
		return s.ResetOffsets(ctx, req)
	})
}
