package millrace

import "github.com/millrace-io/millrace/pdk/go/internal/bridge"

// function is a stage that has its configuration.
type function = func(r *Record, out *Out) error

// plugin is what Stage, StageWith and Describe were told.
var plugin struct {
	configure func(json []byte) (function, error)
	schema    func(b []byte) []byte
	manifest  Manifest
	described bool
}

// Stage makes f the stage of this plugin. It is called once, from init: main is
// not run. The stage answers each record by what it calls on out, and returns
// what that returned, or an error: the record is failed.
func Stage(f func(r *Record, out *Out) error) {
	register(func(json []byte) (function, error) {
		o, err := ReadObject(json)
		if err != nil {
			return nil, err
		}
		if o.Len() > 0 {
			return nil, Fail(1, "with: the stage takes no configuration")
		}
		return f, nil
	})
}

// StageWith is Stage for a stage with a configuration: C is a struct whose
// fields are the settings of the flow's `with:`.
//
//	type Rules struct {
//		Remove []string `json:"remove" doc:"Fields that go."`
//		Email  string   `json:"email" default:"***"`
//	}
//
// A field has the type bool, string, an integer, a float, JSON, a slice, a map with
// string keys or a struct of these, a pointer to one of them, or one with a
// method UnmarshalJSON. The name is that of the tag json, or the field's in lower
// case letters with _ between words; doc is for the schema. A setting must be
// given unless it has a default, which is JSON or the text of a string, or is a
// pointer, which may be null. If *C has a method Validate() error, that has the
// last word.
func StageWith[C any](f func(r *Record, out *Out, config *C) error) {
	register(func(json []byte) (function, error) {
		config := new(C)
		if err := decodeConfig(json, config); err != nil {
			return nil, err
		}
		return func(r *Record, out *Out) error { return f(r, out, config) }, nil
	})
	plugin.schema = func(b []byte) []byte { return appendSchema(b, new(C)) }
}

func register(configure func(json []byte) (function, error)) {
	if plugin.configure != nil {
		panic("millrace: Stage was called twice: a plugin has one stage")
	}
	plugin.configure = configure
}

const noStage = "the plugin has no stage: call millrace.Stage in init"

func configured(json []byte) (function, error) {
	if plugin.configure == nil {
		return nil, Fail(1, noStage)
	}
	return plugin.configure(json)
}

// engine runs a stage over batches, into one buffer that is used again.
type engine struct {
	stage   function
	record  Record
	request request
	out     Out
	// about is one more than the number of the record under way, 0 for none.
	about uint32
}

// batch answers every record of the frame; nil if the frame is broken.
func (e *engine) batch(frame []byte) []byte {
	q := &e.request
	var ok bool
	if *q, ok = readRequest(frame); !ok {
		return nil
	}
	o, r := &e.out, &e.record
	o.outputs = plugin.manifest.Outputs
	r.request = q
	o.b = o.b[:0]
	o.room(len(frame) + batchBytes)
	o.skip(batchBytes)
	at := q.first
	for range q.count {
		if at = q.record(at, r); at < 0 {
			return nil
		}
		o.begin(r)
		e.about = r.id + 1
		o.finish(call(e.stage, r, o))
	}
	e.about = 0
	le.PutUint64(o.b, uint64(len(o.b))|frameVersion<<32|kindResult<<48)
	le.PutUint64(o.b[8:], uint64(q.count))
	le.PutUint64(o.b[16:], q.id)
	le.PutUint64(o.b[24:], uint64(q.now))
	return o.b
}

func init() {
	bridge.New = func(config []byte) (func(frame []byte) []byte, error) {
		stage, err := configured(config)
		if err != nil {
			return nil, err
		}
		e := &engine{stage: stage}
		return e.batch, nil
	}
	bridge.Manifest = func() []byte { return appendManifest(nil) }
	bridge.Samples = func() []bridge.Sample {
		var all []bridge.Sample
		for _, s := range plugin.manifest.Samples {
			all = append(all, bridge.Sample(s))
		}
		return all
	}
	bridge.Outputs = func() []string { return plugin.manifest.Outputs }
}
