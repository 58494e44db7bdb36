package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const (
	jsonType = "application/json"
	yamlType = "application/yaml"
)

type applyFlowInput struct {
	File    string `query:"file" doc:"Name of the document in problems."`
	DryRun  bool   `query:"dry_run" doc:"Only plan."`
	IfMatch string `header:"If-Match" doc:"Revision that the flow must have."`
}

func (s *service) applyFlow(ctx context.Context, in *applyFlowInput) (*FlowPlan, error) {
	req, err := readFlow(ctx, in.File, in.DryRun, in.IfMatch)
	if err != nil {
		return nil, err
	}
	return s.PutFlow(ctx, req)
}

func (s *service) putFlow(ctx context.Context, in *struct {
	Project string `path:"project" doc:"Project of the flow; default if it names none."`
	Name    string `path:"name"`
	File    string `query:"file" doc:"Name of the document in problems."`
	DryRun  bool   `query:"dry_run" doc:"Only plan."`
	IfMatch string `header:"If-Match" doc:"Revision that the flow must have."`
}) (*FlowPlan, error) {
	req, err := readFlow(ctx, in.File, in.DryRun, in.IfMatch)
	if err != nil {
		return nil, err
	}
	// What a document is called is the Backend's to say: its plan tells.
	plan := *req
	plan.DryRun = true
	planned, err := s.PutFlow(ctx, &plan)
	if err != nil {
		return nil, err
	}
	if planned.Project != in.Project || planned.Name != in.Name {
		return nil, wrongName("flow", planned.Project+"/"+planned.Name, in.Project+"/"+in.Name)
	}
	if req.DryRun {
		return planned, nil
	}
	return s.PutFlow(ctx, req)
}

func (s *service) applyConnection(ctx context.Context, in *struct {
	File   string `query:"file" doc:"Name of the document in problems."`
	DryRun bool   `query:"dry_run" doc:"Only plan."`
}) (*ConnectionPlan, error) {
	req, err := readConnection(ctx, in.File, in.DryRun)
	if err != nil {
		return nil, err
	}
	return s.PutConnection(ctx, req)
}

func (s *service) putConnection(ctx context.Context, in *struct {
	Name   string `path:"name"`
	File   string `query:"file" doc:"Name of the document in problems."`
	DryRun bool   `query:"dry_run" doc:"Only plan."`
}) (*ConnectionPlan, error) {
	req, err := readConnection(ctx, in.File, in.DryRun)
	if err != nil {
		return nil, err
	}
	plan := *req
	plan.DryRun = true
	planned, err := s.PutConnection(ctx, &plan)
	if err != nil {
		return nil, err
	}
	if planned.Name != in.Name {
		return nil, wrongName("connection", planned.Name, in.Name)
	}
	if req.DryRun {
		return planned, nil
	}
	return s.PutConnection(ctx, req)
}

func wrongName(kind, inside, path string) error {
	return &Error{Code: CodeInvalid, Detail: fmt.Sprintf("the document is %s %s, the path says %s", kind, inside, path),
		Next: "make the two agree"}
}

func readFlow(ctx context.Context, file string, dryRun bool, ifMatch string) (*PutFlow, error) {
	var req PutFlow
	document, err := readDocument(requestOf(ctx), &req)
	if err == nil {
		err = complete(&req.Document, &req.File, document, file)
	}
	if err != nil {
		return nil, err
	}
	req.DryRun = req.DryRun || dryRun
	if ifMatch != "" {
		if req.IfMatch, err = parseETag(ifMatch); err != nil {
			return nil, err
		}
	}
	return &req, nil
}

func readConnection(ctx context.Context, file string, dryRun bool) (*PutConnection, error) {
	var req PutConnection
	document, err := readDocument(requestOf(ctx), &req)
	if err == nil {
		err = complete(&req.Document, &req.File, document, file)
	}
	if err != nil {
		return nil, err
	}
	req.DryRun = req.DryRun || dryRun
	return &req, nil
}

// complete puts a YAML body and the query's file name into a request, and
// refuses one without a document.
func complete(document, file *string, body, name string) error {
	if body != "" {
		*document = body
	}
	if *document == "" {
		return &Error{Code: CodeInvalid, Detail: "the request has no document"}
	}
	if name != "" {
		*file = name
	}
	return nil
}

// readDocument returns a YAML body, or decodes a JSON one into req.
func readDocument(r *http.Request, req any) (document string, err error) {
	if err := requireType(r, jsonType, yamlType, "application/x-yaml", "text/yaml"); err != nil {
		return "", err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if cause := bodyFailure(r); cause != nil {
			err = cause
		}
		return "", err
	}
	if mediaType(r) != jsonType {
		return string(body), nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err = dec.Decode(req); err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = fmt.Errorf("more than one JSON value")
		}
	}
	if err != nil {
		return "", &Error{Code: CodeInvalid, Detail: fmt.Sprintf("read the request's body: %v", err),
			Next: "GET /openapi.json tells what each call takes"}
	}
	return "", nil
}

func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

func requireType(r *http.Request, types ...string) error {
	if slices.Contains(types, mediaType(r)) {
		return nil
	}
	return &Error{Code: CodeUsage, Status: http.StatusUnsupportedMediaType,
		Detail: fmt.Sprintf("content type %q is not taken here", r.Header.Get("Content-Type")),
		Next:   "send Content-Type: " + types[0]}
}

func bodyFailure(r *http.Request) error {
	if b, ok := r.Body.(*bodyReader); ok {
		return b.failure()
	}
	return nil
}

func etag(revision uint32) string { return strconv.Quote(strconv.FormatUint(uint64(revision), 10)) }

// parseETag reads a revision out of an If-Match header; * is any, hence 0.
func parseETag(s string) (uint32, error) {
	if s == "*" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 32)
	if err != nil || n == 0 {
		return 0, &Error{Code: CodeUsage, Detail: fmt.Sprintf("If-Match: %s is not a revision", s), Next: `send If-Match: "7", or leave it out`}
	}
	return uint32(n), nil
}

// documentBody describes the body of an operation that readDocument reads.
// huma would read and check the body itself if it were told earlier.
func documentBody[T any](doc huma.API, op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		jsonType: {Schema: doc.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")},
		yamlType: {Schema: &huma.Schema{Type: huma.TypeString, Description: "The document alone."}},
	}}
}
