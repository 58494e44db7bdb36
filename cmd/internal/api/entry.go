package api

// FailureEntry describes the JSON form of a record.Entry in the OpenAPI
// document. Entries themselves travel as record.Entry.
type FailureEntry struct {
	Version      int              `json:"failure" doc:"Version of this form."`
	Seq          uint64           `json:"seq,omitempty" doc:"Number in the queue."`
	ID           string           `json:"id" doc:"Identity of the record."`
	Flow         string           `json:"flow" doc:"project/name"`
	FlowUID      string           `json:"flow_uid,omitempty"`
	Revision     uint32           `json:"revision,omitempty"`
	Generation   uint32           `json:"generation,omitempty"`
	Stage        string           `json:"stage" doc:"Stage or delivery that failed."`
	Plugin       string           `json:"plugin,omitempty" doc:"name@version"`
	Digest       string           `json:"digest,omitempty" doc:"sha256:..."`
	Touched      []string         `json:"touched,omitempty" doc:"Digests of the plugins passed before."`
	Class        string           `json:"class" doc:"Error class."`
	Code         uint32           `json:"code,omitempty" doc:"The guest's code, or the HTTP status."`
	Message      string           `json:"message"`
	Attempts     uint32           `json:"attempts"`
	Time         int64            `json:"time" doc:"When the record was given up, Unix ms."`
	Trace        string           `json:"trace,omitempty"`
	Path         string           `json:"path,omitempty"`
	Input        FailureInput     `json:"input" doc:"The record as the failing stage got it."`
	InputOmitted bool             `json:"input_omitted,omitempty" doc:"The value was too large to keep; the source has it."`
	InputHash    string           `json:"input_hash,omitempty" doc:"xxh64 of an omitted value."`
	Redelivered  bool             `json:"redelivered,omitempty" doc:"The record may have been processed before."`
	Replay       *FailureReplay   `json:"replay,omitempty" doc:"Circumstances of the call; missing if it cannot be repeated."`
	NoReplay     string           `json:"no_replay,omitempty" doc:"Why it cannot be repeated."`
	Exchange     *FailureExchange `json:"exchange,omitempty" doc:"The last request of a delivery and its answer."`
	Call         *FailureCall     `json:"call,omitempty" doc:"The call of the plugin that signs or validates, for a delivery that failed in it."`
	History      []FailureAttempt `json:"history,omitempty" doc:"Attempts that failed: the first and the latest."`
	Requeues     uint32           `json:"requeues,omitempty" doc:"How often it went back to retry."`
	Told         string           `json:"told,omitempty" doc:"What went wrong when the flow's exceptions were told."`
	Setting      *FailureSetting  `json:"setting,omitempty" doc:"How the stage ran its plugin."`
}

// FailureExchange describes the request of a FailureEntry and its answer;
// bodies are cut, credentials hidden.
type FailureExchange struct {
	Method          string          `json:"method"`
	URL             string          `json:"url"`
	RequestHeaders  []FailureHeader `json:"request_headers,omitempty"`
	RequestBody     any             `json:"request_body"`
	RequestCut      bool            `json:"request_cut,omitempty" doc:"The body is only the beginning."`
	Status          int             `json:"status,omitempty" doc:"Missing: there was no answer."`
	ResponseHeaders []FailureHeader `json:"response_headers,omitempty"`
	ResponseBody    any             `json:"response_body"`
	ResponseCut     bool            `json:"response_cut,omitempty" doc:"The body is only the beginning."`
}

// FailureCall describes the call of a plugin that signs or validates which a
// delivery failed in.
type FailureCall struct {
	Stage        string          `json:"stage" doc:"DELIVERY.sign or DELIVERY.validate"`
	Plugin       string          `json:"plugin" doc:"name@version"`
	Digest       string          `json:"digest" doc:"sha256:..."`
	Class        string          `json:"class" doc:"What came of the call, as the plugin answered it."`
	Code         uint32          `json:"code,omitempty"`
	Message      string          `json:"message"`
	Input        FailureInput    `json:"input" doc:"The request or the answer as the plugin got it."`
	InputOmitted bool            `json:"input_omitted,omitempty" doc:"It was too large to keep."`
	InputHash    string          `json:"input_hash,omitempty" doc:"xxh64 of an omitted value."`
	Hidden       []string        `json:"hidden,omitempty" doc:"Headers and parameters whose values are asterisks."`
	Replay       *FailureReplay  `json:"replay,omitempty" doc:"Circumstances of the call; missing if it cannot be repeated."`
	NoReplay     string          `json:"no_replay,omitempty" doc:"Why it cannot be repeated."`
	Setting      *FailureSetting `json:"setting,omitempty" doc:"How the plugin was run."`
}

// FailureAttempt describes an attempt that failed.
type FailureAttempt struct {
	Time    int64  `json:"time" doc:"When it had failed, Unix ms."`
	Millis  int64  `json:"ms" doc:"How long it took."`
	Class   string `json:"class"`
	Code    uint32 `json:"code,omitempty"`
	Message string `json:"message"`
}

// FailureInput describes the record of a FailureEntry. Bytes are a string if
// they are UTF-8, else {"base64": "..."}, and null if there are none.
type FailureInput struct {
	Key       any             `json:"key"`
	Value     any             `json:"value"`
	Headers   []FailureHeader `json:"headers,omitempty"`
	Topic     string          `json:"topic,omitempty"`
	Broker    string          `json:"broker,omitempty"`
	Ref       string          `json:"ref,omitempty" doc:"The sender's name of the record, where it has no offset of its own."`
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
	BatchID     string             `json:"batch_id"`
	Now         int64              `json:"now" doc:"The guest's clock, Unix ms."`
	ImageLevel  int                `json:"image_level"`
	ConfigHash  string             `json:"config_hash"`
	Fuel        int64              `json:"fuel,omitempty" doc:"Units that the call used."`
	FuelLimit   int64              `json:"fuel_limit,omitempty" doc:"Budget of a record in units, without what its bytes add."`
	MemoryLimit int64              `json:"memory_limit,omitempty" doc:"Bytes"`
	FuelCosts   uint32             `json:"fuel_costs,omitempty" doc:"Version of the costs that fuel was counted by."`
	Logs        []string           `json:"logs,omitempty" doc:"What the guest logged in the call."`
	Signatures  []FailureSignature `json:"signatures,omitempty" doc:"What the guest asked to be signed."`
}

// FailureSignature describes a signature that a plugin asked for.
type FailureSignature struct {
	Handle        uint32 `json:"handle" doc:"Number of the key."`
	Alg           uint32 `json:"alg" doc:"Number of the algorithm."`
	MessageSHA256 string `json:"message_sha256"`
	Signature     []byte `json:"signature,omitempty"`
	Refused       int32  `json:"refused,omitempty" doc:"What the guest got instead of a signature."`
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
