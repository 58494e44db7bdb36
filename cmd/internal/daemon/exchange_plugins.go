package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/delivery"
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

// pluginInfo names a plugin and its place.
type pluginInfo struct{ stage, plugin, digest string }

// Do implements delivery.Signer.
func (p *signPlugin) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	asked, err := p.info.ask(ctx, p.stage, r.Record())
	if err != nil {
		return err
	}
	signed, err := r.Emitted(asked.out)
	if err != nil {
		return asked.refused(record.AsError(err))
	}
	_, err = send(ctx, signed)
	return err
}

// apart signs with a plugin that does not see what says who asks: it gets the
// request without what auth adds, and that is added to what it emits. So no
// credential comes into a guest, and none into what is kept of its failures. It
// is a delivery.Signer.
type apart struct {
	auth delivery.Signer
	own  *signPlugin
}

// Credentials are those of the connection.
func (a apart) Credentials() (header, query []string) {
	if c, ok := a.auth.(interface {
		Credentials() (header, query []string)
	}); ok {
		return c.Credentials()
	}
	return nil, nil
}

// Do implements delivery.Signer.
func (a apart) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	return a.auth.Do(ctx, r, func(ctx context.Context, known *sign.Request) (int, error) {
		status := 0
		err := a.own.Do(ctx, r, func(ctx context.Context, signed *sign.Request) (int, error) {
			var err error
			status, err = send(ctx, sign.Graft(r, known, signed))
			return status, err
		})
		return status, err
	})
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

// asked is a call that a plugin has answered with one record.
type asked struct {
	out  *record.Record
	call *record.Call
}

// refused is the error of an answer that is none of a request or a verdict.
func (a *asked) refused(err *record.Error) *record.Error {
	return failedCall(a.call, err, nil, "the call itself did not fail: what it emitted was refused")
}

// failedCall is err with the call that it is the outcome of.
func failedCall(c *record.Call, err *record.Error, r *record.Replay, noReplay string) *record.Error {
	c.Class, c.Code, c.Message, c.Replay, c.NoReplay = err.Class, err.Code, err.Message, r, noReplay
	if c.Message == "" && err.Err != nil {
		c.Message = err.Err.Error()
	}
	out := *err
	out.Call = c
	return &out
}

// ask gives a plugin one record, and returns the one that it emits. A
// *record.Error that it fails with has a Call. What a guest draws at random
// depends on where its record is from: each call gets an offset of its own.
func (p pluginInfo) ask(ctx context.Context, st registry.Stage, rec record.Record) (*asked, error) {
	now := time.Now().UnixMilli()
	rec.Topic, rec.Offset, rec.Timestamp, rec.Attempt, rec.To = p.stage, rand.Int64(), now, 1, -1
	var out record.Results
	b := &record.Batch{Partition: record.Partition{Topic: p.stage}, Records: []record.Record{rec}, Next: rec.Offset, Now: now}
	if err := st.Process(ctx, b, &out); err != nil {
		if ctx.Err() != nil {
			return nil, record.Errorf(record.Retryable, "stage %s: plugin %s: %w", p.stage, p.plugin, err)
		}
		return nil, record.Errorf(record.AsError(err).Class, "stage %s: plugin %s: %w", p.stage, p.plugin, err)
	}
	a := &asked{call: &record.Call{Stage: p.stage, Plugin: p.plugin, Digest: p.digest, Input: rec}}
	switch {
	case len(out.Failures) > 0:
		f := &out.Failures[0]
		return nil, failedCall(a.call, f.Err, f.Replay, f.NoReplay)
	case len(out.Emits) != 1:
		return nil, a.refused(record.Errorf(record.Protocol, "stage %s: plugin %s emits %d records for one: it is to emit one", p.stage, p.plugin, len(out.Emits)))
	}
	a.out = &out.Emits[0].Record
	return a, nil
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
