package api

// MaxPreflight is how many records a pre-flight takes of a flow's source at
// most.
const MaxPreflight = 100_000

// CodePreflight is a pre-flight that could not be carried out, or that found
// what nobody has accepted.
const CodePreflight = "E_PREFLIGHT"

// Preflight is what a stage makes of records of its flow's source with its old
// and its new plugin. Records is Identical, Differ and NewFailures together.
type Preflight struct {
	// Source is how many records of the source were read, Records how many came
	// to the stage and went through both plugins.
	Source  int64 `json:"source"`
	Records int64 `json:"records"`
	// Identical answers are the same to the last byte. NewFailures are records
	// that the new plugin fails or wants again later, and the old one did not;
	// Differ are all others. OldFailures, among Differ, are those that the old
	// plugin failed and the new one does not.
	Identical   int64 `json:"identical"`
	Differ      int64 `json:"differ"`
	NewFailures int64 `json:"new_failures"`
	OldFailures int64 `json:"old_failures"`
	// Fields are what differs, that of most records first, at most 20; More is
	// how many there are beside them.
	Fields []FieldDiff `json:"fields,omitempty"`
	More   int64       `json:"more,omitempty"`
	// FuelRatio is the fuel of the new plugin over that of the old one; 0: not
	// known.
	FuelRatio float64 `json:"fuel_ratio,omitempty"`
	// First is set instead where there is no old plugin: nothing is compared.
	First *Outcomes `json:"first,omitempty"`
	// Skipped is why the stage was left out; Partial is what was left out of it
	// and why.
	Skipped string `json:"skipped,omitempty"`
	Partial string `json:"partial,omitempty"`
}

// FieldDiff is a field in which answers differ.
type FieldDiff struct {
	// Path is a path in a JSON value, an array's elements as []; or what else of
	// an answer differs, in parentheses: (outcome), (emissions), (output),
	// (partition), (key), (header NAME), (headers), (timestamp), (value) of other
	// bytes than JSON, (text) of the same JSON written otherwise, (failure).
	Path string `json:"path"`
	// Kind: + only the new plugin has it, - only the old one, ~ it differs.
	Kind  string `json:"kind"`
	Count int64  `json:"count"` // records
	// Example is the old and the new value, in the answers to Record. Of a field
	// that is called a secret, a token, a password or the like both are ***.
	Example [2]string `json:"example"`
	Record  string    `json:"record"`
}

// Outcomes count what a plugin answers to records.
type Outcomes struct {
	// Passed records were answered with Emissions.
	Passed    int64 `json:"passed"`
	Emissions int64 `json:"emissions"`
	Dropped   int64 `json:"dropped"`
	Failed    int64 `json:"failed"`
	Retried   int64 `json:"retried"` // wanted again later
	// Failure is why the first of those failed or wanted again.
	Failure string `json:"failure,omitempty"`
}

// Planned is what a plan saw of a flow: a request with it is refused
// (CodeConflict) once the flow has another revision.
type Planned struct {
	Flow     string `json:"flow"` // project/name
	Revision uint32 `json:"revision"`
}

// Seen is how the pre-flight of a revision ended, as who made the revision says.
type Seen struct {
	// Skipped: it was not to be carried out.
	Skipped bool `json:"skipped,omitempty"`
	// Records that were compared, summed over stages; see Preflight.
	Records     int64 `json:"records"`
	Differ      int64 `json:"differ"`
	NewFailures int64 `json:"new_failures"`
	// Accepted is what let differences pass: "max-diff 12", "yes", "asked". At
	// most 255 bytes.
	Accepted string `json:"accepted,omitempty"`
}
