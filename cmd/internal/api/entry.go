package api

// FailureEntry describes the JSON form of a record.Entry in the OpenAPI
// document. Entries themselves travel as record.Entry.
type FailureEntry struct {
	Version      int             `json:"failure" doc:"Version of this form."`
	Seq          uint64          `json:"seq,omitempty" doc:"Number in the queue."`
	ID           string          `json:"id" doc:"Identity of the record."`
	Flow         string          `json:"flow" doc:"project/name"`
	FlowUID      string          `json:"flow_uid,omitempty"`
	Revision     uint32          `json:"revision,omitempty"`
	Generation   uint32          `json:"generation,omitempty"`
	Stage        string          `json:"stage" doc:"Stage or delivery that failed."`
	Plugin       string          `json:"plugin,omitempty" doc:"name@version"`
	Digest       string          `json:"digest,omitempty" doc:"sha256:..."`
	Touched      []string        `json:"touched,omitempty" doc:"Digests of the plugins passed before."`
	Class        string          `json:"class" doc:"Error class."`
	Code         uint32          `json:"code,omitempty" doc:"The guest's code, or the HTTP status."`
	Message      string          `json:"message"`
	Attempts     uint32          `json:"attempts"`
	Time         int64           `json:"time" doc:"When the record was given up, Unix ms."`
	Trace        string          `json:"trace,omitempty"`
	Path         string          `json:"path,omitempty"`
	Input        FailureInput    `json:"input" doc:"The record as the failing stage got it."`
	InputOmitted bool            `json:"input_omitted,omitempty" doc:"The value was too large to keep; the source has it."`
	InputHash    string          `json:"input_hash,omitempty" doc:"xxh64 of an omitted value."`
	Redelivered  bool            `json:"redelivered,omitempty" doc:"The record may have been processed before."`
	Replay       *FailureReplay  `json:"replay,omitempty" doc:"Circumstances of the call; missing if it cannot be repeated."`
	NoReplay     string          `json:"no_replay,omitempty" doc:"Why it cannot be repeated."`
	Setting      *FailureSetting `json:"setting,omitempty" doc:"How the stage ran its plugin."`
}

// FailureInput describes the record of a FailureEntry. Bytes are a string if
// they are UTF-8, else {"base64": "..."}, and null if there are none.
type FailureInput struct {
	Key       any             `json:"key"`
	Value     any             `json:"value"`
	Headers   []FailureHeader `json:"headers,omitempty"`
	Topic     string          `json:"topic,omitempty"`
	Broker    string          `json:"broker,omitempty"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Timestamp int64           `json:"timestamp" doc:"Unix ms"`
}

// FailureHeader is a header of a FailureInput.
type FailureHeader struct {
	Key   any `json:"key"`
	Value any `json:"value"`
}

// FailureReplay describes what a replay of a FailureEntry needs.
type FailureReplay struct {
	BatchID     string   `json:"batch_id"`
	Now         int64    `json:"now" doc:"The guest's clock, Unix ms."`
	ImageLevel  int      `json:"image_level"`
	ConfigHash  string   `json:"config_hash"`
	Fuel        int64    `json:"fuel,omitempty" doc:"Units that the call used."`
	FuelLimit   int64    `json:"fuel_limit,omitempty" doc:"Budget of a record in units, without what its bytes add."`
	MemoryLimit int64    `json:"memory_limit,omitempty" doc:"Bytes"`
	FuelCosts   uint32   `json:"fuel_costs,omitempty" doc:"Version of the costs that fuel was counted by."`
	Logs        []string `json:"logs,omitempty" doc:"What the guest logged in the call."`
}

// FailureSetting describes how the stage of a FailureEntry ran its plugin.
type FailureSetting struct {
	File        string   `json:"file,omitempty" doc:"The plugin's file where there was no node."`
	With        any      `json:"with,omitempty" doc:"The plugin's configuration as its text."`
	Lines       string   `json:"lines,omitempty"`
	Envelope    bool     `json:"envelope,omitempty"`
	Isolation   string   `json:"isolation,omitempty"`
	Function    string   `json:"function,omitempty"`
	Hosts       []string `json:"hosts,omitempty"`
	Fuel        int64    `json:"fuel,omitempty" doc:"Limit that the flow sets, units a record."`
	MemoryBytes int64    `json:"memory_bytes,omitempty" doc:"Limit that the flow sets."`
}
