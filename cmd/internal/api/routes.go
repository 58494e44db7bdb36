package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const (
	pluginsPath    = "/v1/plugins"
	flowPath       = "/v1/flows/{project}/{name}"
	connectionPath = "/v1/connections/{name}"

	// defaultName is the project and the namespace of what names none.
	defaultName = "default"
)

// reply is the answer of a call.
type reply[T any] struct {
	Body T
}

// list is a list in an answer: an object, so that a cursor can be added.
type list[T any] struct {
	Items []T `json:"items" nullable:"false"`
}

type nothing struct{}

type named struct {
	Name string `path:"name"`
}

type flowRef struct {
	Project string `path:"project" doc:"Project of the flow; default if it names none."`
	Name    string `path:"name"`
}

// call registers an operation whose answer is what ask returns.
func call[I, T any](s *service, doc huma.API, method, path, id, summary string, ask func(context.Context, *I) (T, error)) {
	huma.Register(doc, operation(method, path, id, summary), func(ctx context.Context, in *I) (*reply[T], error) {
		answer, err := ask(ctx, in)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &reply[T]{answer}, nil
	})
}

// calls registers an operation whose answer is a list.
func calls[I, T any](s *service, doc huma.API, path, id, summary string, ask func(context.Context, *I) ([]T, error)) {
	call(s, doc, http.MethodGet, path, id, summary, func(ctx context.Context, in *I) (list[T], error) {
		items, err := ask(ctx, in)
		if items == nil {
			items = []T{}
		}
		return list[T]{items}, err
	})
}

// remove registers an operation without an answer.
func remove[I any](s *service, doc huma.API, path, id, summary string, ask func(context.Context, *I) error) {
	huma.Register(doc, operation(http.MethodDelete, path, id, summary), func(ctx context.Context, in *I) (*nothing, error) {
		if err := ask(ctx, in); err != nil {
			return nil, s.fail(ctx, err)
		}
		return nil, nil
	})
}

func operation(method, path, id, summary string) huma.Operation {
	op := huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, MaxBodyBytes: maxBody, BodyReadTimeout: readLimit}
	if method != http.MethodGet && path != pluginsPath && path != importPath {
		op.Parameters = []*huma.Param{{Name: IdempotencyKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "A change that comes again with the same key within ten minutes is answered as the first time."}}
	}
	return op
}

func (s *service) routes(doc huma.API) {
	call(s, doc, http.MethodGet, "/v1/node", "get-node", "The node", func(ctx context.Context, _ *nothing) (*Node, error) {
		return s.Node(ctx)
	})
	s.flowRoutes(doc)
	s.failureRoutes(doc)
	s.offsetRoutes(doc)
	s.logRoutes(doc)
	s.connectionRoutes(doc)
	s.exchangeRoutes(doc)
	s.pluginRoutes(doc)
}

func (s *service) flowRoutes(doc huma.API) {
	calls(s, doc, "/v1/flows", "list-flows", "Flows", func(ctx context.Context, in *struct {
		Project string `query:"project" doc:"Only this project's; all if missing."`
	}) ([]*Flow, error) {
		return s.Flows(ctx, in.Project)
	})
	call(s, doc, http.MethodPost, "/v1/flows", "apply-flow", "Make the flow that the document names, or a revision of it", s.applyFlow)
	call(s, doc, http.MethodPut, flowPath, "put-flow", "Make a flow, or a revision of it", s.putFlow)
	documentBody[PutFlow](doc, doc.OpenAPI().Paths["/v1/flows"].Post)
	documentBody[PutFlow](doc, doc.OpenAPI().Paths[flowPath].Put)
	huma.Register(doc, operation(http.MethodGet, flowPath, "get-flow", "A flow, with what it does on this node"), s.getFlow)
	remove(s, doc, flowPath, "delete-flow", "Delete a flow", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Purge   bool   `query:"purge" doc:"Even if its failure queue holds entries."`
	}) error {
		return s.DeleteFlow(ctx, in.Project, in.Name, in.Purge)
	})
	calls(s, doc, flowPath+"/revisions", "list-revisions", "Revisions of a flow, newest first", func(ctx context.Context, in *flowRef) ([]*Revision, error) {
		return s.Revisions(ctx, in.Project, in.Name)
	})
	call(s, doc, http.MethodPost, flowPath+"/rollback", "rollback-flow", "Make an earlier revision of a flow a new one", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Body    Rollback
	}) (*FlowPlan, error) {
		in.Body.Project, in.Body.Name = in.Project, in.Name
		return s.Rollback(ctx, &in.Body)
	})
	for _, action := range []struct{ verb, state string }{{"start", StateRunning}, {"resume", StateRunning}, {"pause", StatePaused}} {
		call(s, doc, http.MethodPost, flowPath+"/"+action.verb, action.verb+"-flow", "Make a flow "+action.state, func(ctx context.Context, in *flowRef) (*Flow, error) {
			return s.SetFlow(ctx, in.Project, in.Name, action.state)
		})
	}
}

type flowReply struct {
	ETag string `header:"ETag" doc:"The revision, for If-Match."`
	Body *Flow
}

func (s *service) getFlow(ctx context.Context, in *flowRef) (*flowReply, error) {
	f, err := s.Flow(ctx, in.Project, in.Name)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &flowReply{etag(f.Revision), f}, nil
}

func (s *service) connectionRoutes(doc huma.API) {
	calls(s, doc, "/v1/connections", "list-connections", "Connections", func(ctx context.Context, _ *nothing) ([]*Connection, error) {
		return s.Connections(ctx)
	})
	call(s, doc, http.MethodPost, "/v1/connections", "apply-connection", "Make or change the connection that the document names", s.applyConnection)
	call(s, doc, http.MethodPut, connectionPath, "put-connection", "Make or change a connection", s.putConnection)
	documentBody[PutConnection](doc, doc.OpenAPI().Paths["/v1/connections"].Post)
	documentBody[PutConnection](doc, doc.OpenAPI().Paths[connectionPath].Put)
	call(s, doc, http.MethodGet, connectionPath, "get-connection", "A connection; its secrets by name only", func(ctx context.Context, in *named) (*Connection, error) {
		return s.Connection(ctx, in.Name)
	})
	remove(s, doc, connectionPath, "delete-connection", "Delete a connection that no flow uses", func(ctx context.Context, in *named) error {
		return s.DeleteConnection(ctx, in.Name)
	})
	call(s, doc, http.MethodPost, connectionPath+"/test", "test-connection", "Reach for the other side; an anonymous connection (kafka://host:port) is named with its slashes escaped",
		func(ctx context.Context, in *named) (*ConnectionTest, error) { return s.TestConnection(ctx, in.Name) })
}

func (s *service) pluginRoutes(doc huma.API) {
	call(s, doc, http.MethodPost, pluginsPath, "upload-plugin", "Check and store a module of at most 64 MiB", s.upload)
	doc.OpenAPI().Paths[pluginsPath].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	calls(s, doc, pluginsPath, "list-plugins", "Stored plugins", func(ctx context.Context, _ *nothing) ([]*Plugin, error) {
		return s.Plugins(ctx)
	})
	call(s, doc, http.MethodGet, pluginsPath+"/{ref}", "find-plugin", "A plugin by name, name@version, or sha256: and at least 8 hex digits", func(ctx context.Context, in *struct {
		Ref string `path:"ref"`
	}) (*Plugin, error) {
		return s.Plugin(ctx, in.Ref)
	})
	call(s, doc, http.MethodGet, pluginsPath+"/{namespace}/{name}", "get-plugin", "A plugin, the version deployed last", func(ctx context.Context, in *struct {
		Namespace string `path:"namespace" doc:"default if the plugin names none."`
		Name      string `path:"name"`
	}) (*Plugin, error) {
		return s.Plugin(ctx, pluginRef(in.Namespace, in.Name, ""))
	})
	call(s, doc, http.MethodGet, pluginsPath+"/{namespace}/{name}/{version}", "get-plugin-version", "A version of a plugin", func(ctx context.Context, in *struct {
		Namespace string `path:"namespace" doc:"default if the plugin names none."`
		Name      string `path:"name"`
		Version   string `path:"version"`
	}) (*Plugin, error) {
		return s.Plugin(ctx, pluginRef(in.Namespace, in.Name, in.Version))
	})
	s.blobRoute(doc)
	call(s, doc, http.MethodPost, "/v1/deployments", "deploy", "Activate a stored plugin in the stages that admit it", func(ctx context.Context, in *struct{ Body Deploy }) (*Deployment, error) {
		return s.Deploy(ctx, &in.Body)
	})
	call(s, doc, http.MethodGet, "/v1/deployments/{id}", "get-deployment", "How far a deployment is", func(ctx context.Context, in *struct {
		ID string `path:"id"`
	}) (*Deployment, error) {
		return s.Deployment(ctx, in.ID)
	})
}

// wasmType is the media type of plugins' files.
const wasmType = "application/wasm"

type blobReply struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *service) blobRoute(doc huma.API) {
	const path = "/v1/blobs/{sha256}"
	huma.Register(doc, operation(http.MethodGet, path, "get-blob", "The file of a stored plugin"), func(ctx context.Context, in *struct {
		SHA256 string `path:"sha256" pattern:"^[0-9a-f]{64}$" doc:"The 64 hex digits of its digest."`
	}) (*blobReply, error) {
		b, err := s.Blob(ctx, digestPrefix+in.SHA256)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &blobReply{wasmType, b}, nil
	})
	doc.OpenAPI().Paths[path].Get.Responses["200"].Content = map[string]*huma.MediaType{
		wasmType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}
}

// digestPrefix begins every digest.
const digestPrefix = "sha256:"

func pluginRef(namespace, name, version string) string {
	ref := name
	if namespace != defaultName {
		ref = namespace + "/" + name
	}
	if version != "" {
		ref += "@" + version
	}
	return ref
}

// splitPluginRef is the reverse of pluginRef.
func splitPluginRef(ref string) (namespace, name, version string) {
	name, version, _ = strings.Cut(ref, "@")
	if before, after, ok := strings.Cut(name, "/"); ok {
		return before, after, version
	}
	return defaultName, name, version
}

func (s *service) upload(ctx context.Context, in *struct {
	File string `query:"file" doc:"Name of the file, of which a module without a manifest takes its own."`
}) (*Plugin, error) {
	r := requestOf(ctx)
	if err := requireType(r, "application/octet-stream", wasmType); err != nil {
		return nil, err
	}
	p, err := s.UploadPlugin(ctx, in.File, r.Body)
	if err == nil {
		return p, nil
	}
	if cause := bodyFailure(r); cause != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(cause, &tooLarge) {
			return nil, &Error{Code: CodeTooLarge, Detail: "plugin " + in.File + " is larger than " + bytesText(tooLarge.Limit),
				Next: "strip its debug sections, or build it for size"}
		}
		return nil, cause
	}
	return nil, err
}
