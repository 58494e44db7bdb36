// Package api is the admin API of a node: its types, its HTTP handlers and a
// client. The daemon implements Backend and so does Client, so that a command
// cannot tell a node in its own process from one that is far away.
//
// It decides nothing about flows: it carries questions and answers.
package api

import (
	"context"
	"io"

	"github.com/millrace-io/millrace/runtime/record"
)

// Backend is what a node can be asked. Errors are *Error where the asker can
// do something about them. All methods may be called by any goroutine.
type Backend interface {
	// Node describes the node.
	Node(ctx context.Context) (*Node, error)

	// PutFlow makes a flow or a revision of one. With DryRun it only plans.
	PutFlow(ctx context.Context, req *PutFlow) (*FlowPlan, error)
	Flows(ctx context.Context, project string) ([]*Flow, error)
	// Flow is the flow with its status on this node: partitions, lag, figures.
	Flow(ctx context.Context, project, name string) (*Flow, error)
	// SetFlow starts ("running") or pauses ("paused") a flow.
	SetFlow(ctx context.Context, project, name, state string) (*Flow, error)
	// DeleteFlow refuses while the queue holds entries unless purge is set.
	DeleteFlow(ctx context.Context, project, name string, purge bool) error
	// Revisions are the flow's, newest first.
	Revisions(ctx context.Context, project, name string) ([]*Revision, error)

	// Rollback makes the document and the plugins of an earlier revision a new
	// revision. With DryRun it only plans.
	Rollback(ctx context.Context, req *Rollback) (*FlowPlan, error)

	// Offsets are how far the flow has come, and what its source has now.
	Offsets(ctx context.Context, project, name string) (*Offsets, error)
	// ResetOffsets makes the flow go on elsewhere, in a new reset generation.
	// With DryRun it only plans; without it the request carries the Hash of a
	// plan, and is refused (CodeConflict) if the plan would be another now. A
	// running flow is paused for the change and goes on afterwards.
	ResetOffsets(ctx context.Context, req *OffsetsReset) (*OffsetsPlan, error)

	// Failures are a page of the failure queue of a flow, oldest first.
	Failures(ctx context.Context, q *FailureQuery) (*FailurePage, error)
	// Failure is one entry. Like those of a page it has the Setting of its
	// stage, if its revision of the flow is still known.
	Failure(ctx context.Context, project, name string, seq uint64) (*record.Entry, error)
	// ReplayFailures sends entries back to the stage or delivery that they
	// failed in: they leave the queue and are kept, due at once. With DryRun it
	// only says which.
	ReplayFailures(ctx context.Context, req *ReplayFailures) (*ReplayReport, error)
	// DropFailures removes entries for good; the receipt counts them as dropped
	// from the queue. With DryRun it only says how many.
	DropFailures(ctx context.Context, req *DropFailures) (*DropReport, error)
	// ImportFailures files entries, one JSON object a line as the failures of a
	// page are written, in the queue of a flow that exists. One whose emission
	// has an entry already is passed over, so it may be repeated. An entry that
	// is not sound ends it (CodeInvalid, with the line); those before may have
	// been filed, which the error says.
	ImportFailures(ctx context.Context, project, name string, entries io.Reader) (*ImportReport, error)
	// Retries are a page of what the flow keeps for another attempt, by
	// partition and offset.
	Retries(ctx context.Context, q *RetryQuery) (*RetryPage, error)

	// Logs are what the plugins of a flow logged last on this node. With
	// WaitMillis it waits until there is a line.
	Logs(ctx context.Context, q *LogQuery) (*LogPage, error)

	PutConnection(ctx context.Context, req *PutConnection) (*ConnectionPlan, error)
	Connections(ctx context.Context) ([]*Connection, error)
	Connection(ctx context.Context, name string) (*Connection, error)
	DeleteConnection(ctx context.Context, name string) error
	// TestConnection reaches for the other side; what it finds is in the
	// answer, not in the error. Anonymous connections (kafka://host:port) can
	// be tested too.
	TestConnection(ctx context.Context, name string) (*ConnectionTest, error)
	// Exchanges looks at what goes over a connection of kind http from now on,
	// and answers once the time or the count of q has come. It never slows a
	// delivery: what comes too fast is passed over and counted.
	Exchanges(ctx context.Context, q *ExchangeQuery) (*ExchangePage, error)

	// UploadPlugin checks, stores and compiles a module. File is its name, of
	// which a module without a manifest takes its own.
	UploadPlugin(ctx context.Context, file string, wasm io.Reader) (*Plugin, error)
	Plugins(ctx context.Context) ([]*Plugin, error)
	// Plugin is a plugin by [namespace/]name, the version deployed last;
	// [namespace/]name@version; or sha256:digest, of which the first 8 hex
	// digits are enough.
	Plugin(ctx context.Context, ref string) (*Plugin, error)
	// Blob is the file of a stored plugin, by its whole digest, sha256:...
	Blob(ctx context.Context, digest string) ([]byte, error)

	// Deploy activates an uploaded plugin in the stages that admit it. With
	// DryRun it only plans, and carries out the pre-flight that is asked for; it
	// then answers CodePreflight if a source cannot be read just now.
	Deploy(ctx context.Context, req *Deploy) (*Deployment, error)
	// Deployment tells how far a deployment is.
	Deployment(ctx context.Context, id string) (*Deployment, error)
}

// Error is an error that a user sees. Code is language-neutral and stable.
type Error struct {
	Status int    `json:"status"` // HTTP's
	Code   string `json:"code"`   // E_...
	Title  string `json:"title,omitempty"`
	// Detail is a sentence: the target and the cause. Next is the next step.
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
	// Problems are the linter's, rendered, if a document was refused.
	Problems []Problem `json:"problems,omitempty"`
}

func (e *Error) Error() string { return e.Detail }

// Problem is what the linter says of a place in a document.
type Problem struct {
	Code     string `json:"code"`
	Level    string `json:"level"` // error, warning
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Message  string `json:"message"`
	Help     string `json:"help,omitempty"`
	Rendered string `json:"rendered"`
}

// Codes of errors.
const (
	CodeNotFound      = "E_NOT_FOUND"
	CodeInvalid       = "E_INVALID"
	CodeConflict      = "E_CONFLICT" // If-Match, or the state does not allow it
	CodeQueueNotEmpty = "E_QUEUE_NOT_EMPTY"
	CodeInUse         = "E_IN_USE"
	CodeVersionTaken  = "E_VERSION_TAKEN" // the same version with other bytes
	CodeRefused       = "E_PLUGIN_REFUSED"
	CodeTooLarge      = "E_TOO_LARGE"
	CodeUnavailable   = "E_UNAVAILABLE" // no leader, shutting down
	CodeForbidden     = "E_FORBIDDEN"   // foreign Host or Origin
	CodeInternal      = "E_INTERNAL"
)

// Node describes a node.
type Node struct {
	ID          string `json:"id"`
	Version     string `json:"version"`
	Address     string `json:"address"`
	Data        string `json:"data"`
	PID         int    `json:"pid"`
	Started     int64  `json:"started"` // Unix ms
	Incarnation uint64 `json:"incarnation"`
	Leader      bool   `json:"leader"`
	Ready       bool   `json:"ready"`
	Applied     uint64 `json:"applied"` // index
	Flows       int    `json:"flows"`
	Interpreted bool   `json:"interpreted,omitempty"` // no executable memory
}

// PutFlow is a document to apply.
type PutFlow struct {
	Document string `json:"document"` // YAML
	// File names the document in problems.
	File string `json:"file,omitempty"`
	// Vars override, Env are the environment variables that the document names.
	Vars map[string]string `json:"vars,omitempty"`
	Env  map[string]string `json:"env,omitempty"`
	// Files are the digests (sha256:...) of uploaded local plugins by the path
	// that the document names.
	Files   map[string]string `json:"files,omitempty"`
	IfMatch uint32            `json:"if_match,omitempty"` // revision, 0: any
	// New: there must be no such flow yet (CodeConflict).
	New    bool `json:"new,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
	// Connections are documents that are applied before this one and need not
	// exist yet in a dry run.
	Connections []string `json:"connections,omitempty"`
	// Preflight is as in Deploy. It is carried out for a flow that is new, and
	// for one of the same document whose plugins are others.
	Preflight int `json:"preflight,omitempty" minimum:"0" maximum:"100000"`
	// Seen is recorded in the revision.
	Seen *Seen `json:"seen,omitempty"`
}

// Rollback asks for an earlier revision of a flow.
type Rollback struct {
	Project string `json:"-"`
	Name    string `json:"-"`
	// Revision to go back to; 0: the one before the present one.
	Revision uint32 `json:"revision,omitempty"`
	IfMatch  uint32 `json:"if_match,omitempty"` // present revision, 0: any
	DryRun   bool   `json:"dry_run,omitempty"`
}

// FlowPlan is what applying a document changes, or has changed.
type FlowPlan struct {
	Project  string    `json:"project"`
	Name     string    `json:"name"`
	Action   string    `json:"action"` // create, update, unchanged
	Revision uint32    `json:"revision,omitempty"`
	From     uint32    `json:"from,omitempty"` // of a rollback: the revision that is taken up again
	Changes  []string  `json:"changes,omitempty"`
	Warnings []Problem `json:"warnings,omitempty"`
	DryRun   bool      `json:"dry_run,omitempty"`
	// Stages are those of the pre-flight.
	Stages []DeploymentStage `json:"stages,omitempty"`
}

// Flow states.
const (
	StateRunning    = "running"
	StatePaused     = "paused"
	StateAutoPaused = "auto_paused"
)

// Flow is a flow and what it does.
type Flow struct {
	Project          string            `json:"project"`
	Name             string            `json:"name"`
	UID              string            `json:"uid"`
	Description      string            `json:"description,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Revision         uint32            `json:"revision"`
	Generation       uint32            `json:"generation"`
	DeployGeneration uint32            `json:"deploy_generation"`
	State            string            `json:"state"`
	Reason           string            `json:"reason,omitempty"`
	Order            string            `json:"order"`
	Slots            int               `json:"slots"`
	Source           string            `json:"source"`
	// Delivery describes the deliveries in a line; Deliveries are all of them,
	// those of branches included.
	Delivery   string     `json:"delivery"`
	Deliveries []Delivery `json:"deliveries,omitempty"`
	Stages     []Stage    `json:"stages"`
	Created    int64      `json:"created"` // Unix ms
	Updated    int64      `json:"updated"`
	// Problem is why records do not get through just now.
	Problem string `json:"problem,omitempty"`
	// Held is set while the flow holds itself back and goes on by itself; State
	// is then auto_paused and Reason says the same. AutoPauses are how often
	// that was, since this node opened the flow.
	Held       *Held            `json:"held,omitempty"`
	AutoPauses map[string]int64 `json:"auto_pauses,omitempty"` // by kind of reason
	Lag        int64            `json:"lag"`                   // records (bytes for files) between watermark and end; -1: unknown
	Partitions []Partition      `json:"partitions,omitempty"`
	Queue      Queue            `json:"queue"`
	Retries    *Retries         `json:"retries,omitempty"`
	Receipt    *Receipt         `json:"receipt,omitempty"`
	// Rate is set where the flow limits its records.
	Rate        *Rate             `json:"rate,omitempty"`
	Connections []ConnectionUsage `json:"connections,omitempty"`
	Figures     *Figures          `json:"figures,omitempty"` // since this node opened the flow
	Skips       []Skip            `json:"skips,omitempty"`
	Document    string            `json:"document,omitempty"`
}

// Stage of a flow, in the order of its document; deliveries are among them.
type Stage struct {
	ID string `json:"id"`
	// Branch is the branch and the case that it lies in, as "by-country: else";
	// "" outside of branches.
	Branch   string `json:"branch,omitempty"`
	Describe string `json:"describe"`
	Plugin   string `json:"plugin,omitempty"` // name@version
	Digest   string `json:"digest,omitempty"`
	// Setting is how the stage runs its plugin now.
	Setting   *record.Setting `json:"setting,omitempty"`
	Otherwise string          `json:"otherwise"`
	// Plugins are those that sign and validate for a delivery.
	Plugins []DeliveryPlugin `json:"plugins,omitempty"`
	// Stateful: answers depend on earlier batches; Impure: on other hosts.
	// Such a stage can be neither replayed nor compared.
	Stateful bool  `json:"stateful,omitempty"`
	Impure   bool  `json:"impure,omitempty"`
	Calls    int64 `json:"calls"`
	Records  int64 `json:"records"`
	Nanos    int64 `json:"nanos"`
	Drops    int64 `json:"drops"`
	Failures int64 `json:"failures"`
}

// DeliveryPlugin is a plugin that signs or validates for a delivery.
type DeliveryPlugin struct {
	// ID is its place: DELIVERY.sign or DELIVERY.validate.
	ID      string          `json:"id"`
	Plugin  string          `json:"plugin"` // name@version
	Digest  string          `json:"digest"`
	Setting *record.Setting `json:"setting,omitempty"`
}

// Partition of a flow's source.
type Partition struct {
	Topic     string `json:"topic"`
	Broker    string `json:"broker,omitempty"` // of a queue of RocketMQ
	Partition int32  `json:"partition"`
	Slot      uint32 `json:"slot"`
	Owner     string `json:"owner,omitempty"`
	Epoch     uint64 `json:"epoch"`
	// Committed is the durable watermark, Position what is fetched next, End
	// the partition's end; -1: unknown.
	Committed int64  `json:"committed"`
	Position  int64  `json:"position"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	InFlight  int    `json:"in_flight"`
	Paused    bool   `json:"paused,omitempty"` // fetching, because the window is full
	Problem   string `json:"problem,omitempty"`
}

// Figures count records of a flow on this node since it was opened.
type Figures struct {
	Since   int64 `json:"since"` // Unix ms
	In      int64 `json:"in"`
	Emitted int64 `json:"emitted"`
	Dropped int64 `json:"dropped"`
	Failed  int64 `json:"failed"`
	Retried int64 `json:"retried"`
	// Skipped are those that the source has passed over; see Skip.
	Skipped int64 `json:"skipped,omitempty"`
}

// Skip are records of a partition that a flow's source has passed over since
// the node opened the flow, because the log no longer had them or as the flow's
// out_of_range says.
type Skip struct {
	Topic     string `json:"topic"`
	Broker    string `json:"broker,omitempty"`
	Partition int32  `json:"partition"`
	// Records is how many offsets were passed over in all; From and To are of
	// the last time: where the flow was, and where it went on.
	Records int64 `json:"records"`
	From    int64 `json:"from"`
	To      int64 `json:"to"`
	At      int64 `json:"at"` // Unix ms
}

// Revision of a flow.
type Revision struct {
	Revision uint32            `json:"revision"`
	At       int64             `json:"at"`               // Unix ms
	Pinned   map[string]string `json:"pinned,omitempty"` // stage -> name@version sha256:...
	Document string            `json:"document"`
	// Preflight is how it ended; nil where there was none.
	Preflight *Seen `json:"preflight,omitempty"`
}

// PutConnection is a connection document to apply.
type PutConnection struct {
	Document string            `json:"document"`
	File     string            `json:"file,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	DryRun   bool              `json:"dry_run,omitempty"`
}

// ConnectionPlan is what applying a connection changes, or has changed.
type ConnectionPlan struct {
	Name   string `json:"name"`
	Action string `json:"action"` // create, update, unchanged
	DryRun bool   `json:"dry_run,omitempty"`
}

// Connection is a connection; secrets by name only.
type Connection struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Target   string   `json:"target"` // brokers or base URL
	Updated  int64    `json:"updated"`
	UsedBy   []string `json:"used_by,omitempty"`
	Document string   `json:"document,omitempty"`
	// Usage is set while a flow of this node uses a connection of kind http.
	Usage *ConnectionUsage `json:"usage,omitempty"`
}

// ConnectionTest is what a test found.
type ConnectionTest struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Millis int64  `json:"millis"`
	Detail string `json:"detail"` // what was reached, or why not
	Next   string `json:"next,omitempty"`
}

// Plugin is a stored plugin.
type Plugin struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Digest    string   `json:"digest"` // sha256:...
	Size      int64    `json:"size"`
	Mode      string   `json:"mode"`
	Stored    int64    `json:"stored"`            // Unix ms
	UsedBy    []string `json:"used_by,omitempty"` // project/flow/stage
	// Existed tells that an upload changed nothing.
	Existed bool `json:"existed,omitempty"`
	// Inspect is the sandbox's report; only of a single plugin.
	Inspect any `json:"inspect,omitempty"`
}

// Ref is [namespace/]name@version.
func (p *Plugin) Ref() string {
	if p.Namespace != "" && p.Namespace != "default" {
		return p.Namespace + "/" + p.Name + "@" + p.Version
	}
	return p.Name + "@" + p.Version
}

// Deploy activates a stored plugin.
type Deploy struct {
	Digest string `json:"digest"` // sha256:...
	// Flow ([project/]name) and Stage narrow the stages concerned.
	Flow   string `json:"flow,omitempty"`
	Stage  string `json:"stage,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	// Preflight is how many of the latest records of each flow's source go
	// through the old and the new plugin of its stages; 0: none. Only with DryRun.
	Preflight int `json:"preflight,omitempty" minimum:"0" maximum:"100000"`
	// Planned is what the plan that is to be carried out was made of: the
	// request is refused (CodeConflict) if it would change other flows now, or
	// other revisions of them. Empty: whatever there is.
	Planned []Planned `json:"planned,omitempty"`
	// Seen is recorded in the revisions, by flow (project/name).
	Seen map[string]Seen `json:"seen,omitempty"`
}

// Deployment is a deployment's plan and progress. ID is empty in a plan, and
// when no flow is concerned.
type Deployment struct {
	ID     string           `json:"id,omitempty"`
	Plugin *Plugin          `json:"plugin"`
	Flows  []DeploymentFlow `json:"flows"`
	Done   bool             `json:"done"`
	DryRun bool             `json:"dry_run,omitempty"`
	// Skipped are stages of the same plugin whose range does not admit this
	// version, or that have it already: "project/flow/stage: why".
	Skipped []string `json:"skipped,omitempty"`
}

// DeploymentFlow is one flow's part of a deployment.
type DeploymentFlow struct {
	Flow       string            `json:"flow"` // project/name
	State      string            `json:"state"`
	Generation uint32            `json:"generation,omitempty"`
	Revision   uint32            `json:"revision,omitempty"` // of a plan: the present one
	Stages     []DeploymentStage `json:"stages"`
	// Slots is how many the flow has, Switched how many report the generation.
	Slots    int    `json:"slots"`
	Switched int    `json:"switched"`
	Nodes    int    `json:"nodes"`
	Problem  string `json:"problem,omitempty"`
}

// DeploymentStage is the change of one stage.
type DeploymentStage struct {
	Stage      string `json:"stage"`
	OldVersion string `json:"old_version,omitempty"`
	OldDigest  string `json:"old_digest,omitempty"`
	NewVersion string `json:"new_version"`
	NewDigest  string `json:"new_digest"`
	// Preflight is set in a plan that asked for one.
	Preflight *Preflight `json:"preflight,omitempty"`
}
