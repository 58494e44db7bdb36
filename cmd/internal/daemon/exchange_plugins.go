package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// signPlugin signs requests with a plugin: it gets the request as one record
// and emits the request as it is sent. It is a delivery.Signer.
type signPlugin struct {
	stage registry.Stage
	info  pluginInfo
}

// pluginInfo names a plugin's place in messages.
type pluginInfo struct{ stage, plugin string }

// Do implements delivery.Signer.
func (p *signPlugin) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	emitted, err := p.info.ask(ctx, p.stage, r.Record())
	if err != nil {
		return err
	}
	signed, err := r.Emitted(emitted)
	if err != nil {
		return err
	}
	_, err = send(ctx, signed)
	return err
}

// validatePlugin judges answers with a plugin: emit is ok, retry is tried
// again, fail rejects. It is a delivery.Judge.
type validatePlugin struct {
	stage registry.Stage
	info  pluginInfo
}

// judgeLimit bounds how long an answer waits for the plugin that judges it.
const judgeLimit = time.Minute

// Judge implements delivery.Judge.
func (p *validatePlugin) Judge(x *verdict.Exchange) verdict.Verdicts {
	ctx, cancel := context.WithTimeout(context.Background(), judgeLimit)
	defer cancel()
	_, err := p.info.ask(ctx, p.stage, x.Response.Record())
	if err == nil {
		return verdict.Verdicts{}
	}
	e := *record.AsError(err)
	e.Message = fmt.Sprintf("%s: status %d: %s", x.What, x.Response.Status, messageOf(&e))
	if e.Code == 0 {
		e.Code = uint32(x.Response.Status)
	}
	if e.Class.Transient() && e.RetryAfter == 0 {
		if d := verdict.Default(x).All; d != nil {
			e.RetryAfter = d.RetryAfter
		}
	}
	return verdict.Verdicts{All: &e}
}

func messageOf(e *record.Error) string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.Class.String()
}

// ask gives a plugin one record, and returns the one that it emits.
func (p pluginInfo) ask(ctx context.Context, st registry.Stage, rec record.Record) (*record.Record, error) {
	now := time.Now().UnixMilli()
	rec.Topic, rec.Timestamp, rec.Attempt, rec.To = p.stage, now, 1, -1
	var out record.Results
	b := &record.Batch{Partition: record.Partition{Topic: p.stage}, Records: []record.Record{rec}, Next: 1, Now: now}
	if err := st.Process(ctx, b, &out); err != nil {
		if ctx.Err() != nil {
			return nil, record.Errorf(record.Retryable, "stage %s: plugin %s: %w", p.stage, p.plugin, err)
		}
		return nil, record.Errorf(record.AsError(err).Class, "stage %s: plugin %s: %w", p.stage, p.plugin, err)
	}
	switch {
	case len(out.Failures) > 0:
		return nil, out.Failures[0].Err
	case len(out.Emits) != 1:
		return nil, record.Errorf(record.Protocol, "stage %s: plugin %s emits %d records for one: it is to emit one", p.stage, p.plugin, len(out.Emits))
	}
	return &out.Emits[0].Record, nil
}

// signingKeys is what a plugin that signs asks for signatures.
func signingKeys(keys sign.Keys) func(handle, alg uint32, message []byte) ([]byte, error) {
	return func(handle, alg uint32, message []byte) ([]byte, error) {
		if uint64(handle) >= uint64(len(keys)) {
			return nil, sandbox.SignUnknownKey
		}
		if _, err := sign.Algorithm(alg).MarshalText(); err != nil {
			return nil, sandbox.SignUnknownAlgorithm
		}
		if err := keys[handle].Admits(sign.Algorithm(alg)); err != nil {
			return nil, sandbox.SignKeyMismatch
		}
		return keys[handle].Sign(sign.Algorithm(alg), message)
	}
}
