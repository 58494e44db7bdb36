package record

import (
	"encoding/json"
	"fmt"
)

// EntryVersion is the version of an Entry's JSON form.
const EntryVersion = 1

// Entry is a record that could not go on, with what a replay needs: an element
// of the failure queue, and a line of a failures file. One entry is filed for
// each (flow, partition, offset, path).
type Entry struct {
	// Seq is the entry's number in the queue; 0 outside of one.
	Seq uint64
	// Flow is {project}/{name}; FlowUID and Revision say which flow of that
	// name and which document.
	Flow     string
	FlowUID  uint64
	Revision uint32
	// Generation is the flow's reset generation.
	Generation uint32
	// Stage is the id of the stage or delivery that failed.
	Stage string
	// Plugin is name@version, empty for a built-in stage; Digest is
	// "sha256:" and 64 hex digits.
	Plugin, Digest string
	// Touched are the digests of the plugins that the record passed before.
	Touched []string

	Class   Class
	Code    uint32
	Message string
	// Attempts made, at least 1.
	Attempts uint32
	// Time at which the record was given up, Unix milliseconds.
	Time int64

	// Input is the record as the failing stage got it. Its value is nil and
	// InputOmitted true when it is too large to keep: then the source has it.
	Input        Record
	InputOmitted bool
	// InputHash is the xxh64 of the value of an omitted input.
	InputHash uint64
	// Replay holds the circumstances of the failing call, nil if it cannot be
	// repeated; NoReplay then says why, where that is known.
	Replay   *Replay
	NoReplay string
	// Exchange is the last request and its answer, for a delivery that had one.
	Exchange *Exchange
	// Call is that of a plugin that signs or validates, for a delivery that
	// failed in it. Stage, Plugin, Digest, Input and Replay above are the
	// delivery's all the same.
	Call *Call
	// History are the attempts that failed, the last one included.
	History []Attempt
	// Requeues is how often it went from the queue back to retry.
	Requeues uint32
	// Told says what went wrong when the flow's `exceptions` ran for it; "" if
	// nothing did.
	Told string
	// Setting is how the stage ran its plugin. It is not kept in the queue:
	// who hands an entry out may add it. nil: not known.
	Setting *Setting
}

// Setting is how a stage runs a plugin, as its flow says: with the plugin and
// a Replay all that a record can be run again with. Zero values mean what they
// mean in a flow.
type Setting struct {
	// File is the plugin's file where there was no node, an absolute path.
	File string `json:"file,omitempty"`
	// With is the plugin's configuration, byte for byte as it got it.
	With      Text     `json:"with,omitempty"`
	Lines     string   `json:"lines,omitempty"`
	Envelope  bool     `json:"envelope,omitempty"`
	Isolation string   `json:"isolation,omitempty"`
	Function  string   `json:"function,omitempty"`
	Hosts     []string `json:"hosts,omitempty"`
	// Fuel a record and MemoryBytes are the limits that the flow sets; 0: none.
	Fuel        int64 `json:"fuel,omitempty"`
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
}

// ID is the identity of the record that failed.
func (e *Entry) ID() string { return e.Input.ID() }

type entryJSON struct {
	Version     int       `json:"failure"`
	Seq         uint64    `json:"seq,omitempty"`
	ID          string    `json:"id"`
	Flow        string    `json:"flow"`
	FlowUID     string    `json:"flow_uid,omitempty"`
	Revision    uint32    `json:"revision,omitempty"`
	Generation  uint32    `json:"generation,omitempty"`
	Stage       string    `json:"stage"`
	Plugin      string    `json:"plugin,omitempty"`
	Digest      string    `json:"digest,omitempty"`
	Touched     []string  `json:"touched,omitempty"`
	Class       Class     `json:"class"`
	Code        uint32    `json:"code,omitempty"`
	Message     string    `json:"message"`
	Attempts    uint32    `json:"attempts"`
	Time        int64     `json:"time"`
	Trace       string    `json:"trace,omitempty"`
	Path        string    `json:"path,omitempty"`
	Input       *envelope `json:"input"`
	Omitted     bool      `json:"input_omitted,omitempty"`
	InputHash   string    `json:"input_hash,omitempty"`
	Redelivered bool      `json:"redelivered,omitempty"`
	Replay      *Replay   `json:"replay,omitempty"`
	NoReplay    string    `json:"no_replay,omitempty"`
	Exchange    *Exchange `json:"exchange,omitempty"`
	Call        *Call     `json:"call,omitempty"`
	History     []Attempt `json:"history,omitempty"`
	Requeues    uint32    `json:"requeues,omitempty"`
	Told        string    `json:"told,omitempty"`
	Setting     *Setting  `json:"setting,omitempty"`
}

type exchangeJSON struct {
	Method          string           `json:"method"`
	URL             string           `json:"url"`
	RequestHeaders  []envelopeHeader `json:"request_headers,omitempty"`
	RequestBody     Text             `json:"request_body"`
	RequestCut      bool             `json:"request_cut,omitempty"`
	Status          int              `json:"status,omitempty"`
	ResponseHeaders []envelopeHeader `json:"response_headers,omitempty"`
	ResponseBody    Text             `json:"response_body"`
	ResponseCut     bool             `json:"response_cut,omitempty"`
}

// MarshalJSON writes headers and bodies as envelopes do.
func (x *Exchange) MarshalJSON() ([]byte, error) {
	return marshalPlain(&exchangeJSON{
		Method: x.Method, URL: x.URL, RequestHeaders: toEnvelopeHeaders(x.RequestHeaders), RequestBody: x.RequestBody, RequestCut: x.RequestCut,
		Status: x.Status, ResponseHeaders: toEnvelopeHeaders(x.ResponseHeaders), ResponseBody: x.ResponseBody, ResponseCut: x.ResponseCut,
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (x *Exchange) UnmarshalJSON(b []byte) error {
	var j exchangeJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*x = Exchange{
		Method: j.Method, URL: j.URL, RequestHeaders: fromEnvelopeHeaders(j.RequestHeaders), RequestBody: j.RequestBody, RequestCut: j.RequestCut,
		Status: j.Status, ResponseHeaders: fromEnvelopeHeaders(j.ResponseHeaders), ResponseBody: j.ResponseBody, ResponseCut: j.ResponseCut,
	}
	return nil
}

// MarshalJSON writes the versioned form that failure files and the queue's
// export share.
func (e *Entry) MarshalJSON() ([]byte, error) {
	j := entryJSON{
		Version: EntryVersion, Seq: e.Seq, ID: e.ID(), Flow: e.Flow, Revision: e.Revision, Generation: e.Generation,
		Stage: e.Stage, Plugin: e.Plugin, Digest: e.Digest, Touched: e.Touched,
		Class: e.Class, Code: e.Code, Message: e.Message, Attempts: e.Attempts, Time: e.Time,
		Path: e.Input.Path.String(), Input: toEnvelope(&e.Input), Omitted: e.InputOmitted,
		Redelivered: e.Input.Redelivered, Replay: e.Replay, NoReplay: e.NoReplay,
		Exchange: e.Exchange, Call: e.Call, History: e.History, Requeues: e.Requeues, Told: e.Told, Setting: e.Setting,
	}
	if e.FlowUID != 0 {
		j.FlowUID = hex64(e.FlowUID)
	}
	if e.InputOmitted {
		j.InputHash = hex64(e.InputHash)
	}
	if !e.Input.Trace.IsZero() {
		j.Trace = e.Input.Trace.String()
	}
	b, err := marshalPlain(j)
	if err != nil {
		return nil, fmt.Errorf("write failure entry of %s: %w", e.ID(), err)
	}
	return b, nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var j entryJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("read failure entry: %w", err)
	}
	if j.Version != EntryVersion {
		return fmt.Errorf("read failure entry: version %d; this program knows version %d", j.Version, EntryVersion)
	}
	if j.Input == nil {
		return fmt.Errorf("read failure entry %s: it has no input", j.ID)
	}
	*e = Entry{
		Seq: j.Seq, Flow: j.Flow, Revision: j.Revision, Generation: j.Generation, Stage: j.Stage, Plugin: j.Plugin, Digest: j.Digest,
		Touched: j.Touched, Class: j.Class, Code: j.Code, Message: j.Message, Attempts: j.Attempts, Time: j.Time,
		Input: j.Input.record(), InputOmitted: j.Omitted,
		Replay: j.Replay, NoReplay: j.NoReplay,
		Exchange: j.Exchange, Call: j.Call, History: j.History, Requeues: j.Requeues, Told: j.Told, Setting: j.Setting,
	}
	e.Input.Attempt, e.Input.Redelivered = max(j.Attempts, 1), j.Redelivered
	var err error
	if e.FlowUID, err = parseHex64(j.FlowUID); err != nil {
		return fmt.Errorf("read failure entry %s: flow_uid: %w", j.ID, err)
	}
	if err = checkRef(e.Input.Ref); err != nil {
		return fmt.Errorf("read failure entry %s: %w", j.ID, err)
	}
	if e.InputHash, err = parseHex64(j.InputHash); err != nil {
		return fmt.Errorf("read failure entry %s: input_hash: %w", j.ID, err)
	}
	if e.Input.Path, err = ParsePath(j.Path); err != nil {
		return fmt.Errorf("read failure entry %s: %w", j.ID, err)
	}
	if j.Trace != "" {
		if err := e.Input.Trace.parse(j.Trace); err != nil {
			return fmt.Errorf("read failure entry %s: trace: %w", j.ID, err)
		}
	}
	return nil
}
