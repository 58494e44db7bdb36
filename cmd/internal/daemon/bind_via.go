package daemon

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// rebindAfter is how long a plugin that could not be bound refuses records
// before it is tried again.
const rebindAfter = 3 * time.Second

// bindVia makes the stage of the plugin that kept entries pass in a stage this
// once. The error is ctx's.
func (r *runner) bindVia(ctx context.Context, key viaKey) (boundPlugin, error) {
	v := &viaStage{r: r, key: key, now: time.Now}
	use, err := v.acquire(ctx)
	if err == nil {
		v.release(ctx, use)
	}
	return boundPlugin{stage: key.stage, st: v}, ctx.Err()
}

// viaStage runs a plugin in place of a stage's own, with the setting that the
// stage has now. While the plugin cannot be bound it refuses each record, so
// that the entry goes back to the queue with the reason. It is safe for
// concurrent use.
type viaStage struct {
	registry.Stage // nil: a stand-in is asked for no more than Process and Close
	r              *runner
	key            viaKey
	now            func() time.Time

	mu    sync.Mutex
	doc   *flow.Flow // guarded by mu; that was bound for last
	tried time.Time  // guarded by mu; when
	err   error      // guarded by mu; why it could not be
	use   *viaUse    // guarded by mu; nil: none yet
}

// viaUse is a plugin that calls work with.
type viaUse struct {
	boundPlugin
	calls   int  // guarded by viaStage.mu
	retired bool // guarded by viaStage.mu; its last call lets go of it
}

// Process implements registry.Stage.
func (v *viaStage) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	use, err := v.acquire(ctx)
	switch {
	case err == nil:
		defer v.release(ctx, use)
		return use.st.Process(ctx, b, out)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		refused := record.Errorf(record.Rejected, "%w", err)
		for i := range b.Records {
			out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: refused})
		}
		return nil
	}
}

// Close implements registry.Stage; no call may be under way.
func (v *viaStage) Close(ctx context.Context) error {
	v.mu.Lock()
	old := v.retire()
	v.mu.Unlock()
	v.r.unbind(ctx, old)
	return nil
}

// acquire binds the plugin where that is due.
func (v *viaStage) acquire(ctx context.Context) (*viaUse, error) {
	v.mu.Lock()
	var old []boundPlugin
	if doc := v.r.doc.Load(); doc != v.doc || v.err != nil && v.now().Sub(v.tried) >= rebindAfter {
		old, v.err = v.bind(ctx, doc)
		if v.doc, v.tried = doc, v.now(); ctx.Err() != nil {
			v.doc = nil // it was not the plugin's fault
		}
	}
	use, err := v.use, v.err
	if err == nil {
		use.calls++
	}
	v.mu.Unlock()
	v.r.unbind(context.WithoutCancel(ctx), old)
	return use, err
}

// bind binds the plugin as doc says, and returns what nobody uses any more; mu
// is held.
func (v *viaStage) bind(ctx context.Context, doc *flow.Flow) (old []boundPlugin, err error) {
	stages := doc.AllStages()
	at := slices.IndexFunc(stages, func(s *flow.Stage) bool { return s.ID == v.key.stage && s.Plugin != nil })
	if at < 0 {
		return nil, fmt.Errorf("stage %s runs no plugin that %s could stand in for: replay the entry with the present one", v.key.stage, v.key.digest)
	}
	s := stages[at]
	info := pipeline.StageInfo{ID: s.ID, Plugin: s.Plugin.Ref.Name, Digest: v.key.digest, Otherwise: otherwise(s.Otherwise)}
	if v.use != nil && reflect.DeepEqual(v.use.setting, s.Plugin) && v.use.info.Otherwise == info.Otherwise {
		return nil, nil
	}
	b, err := v.r.d.bindPlugin(ctx, doc, s, v.r.uid, info, nil)
	if err != nil {
		return nil, err
	}
	v.r.d.metrics.bound(v.r.name, s.ID, b.st)
	old = v.retire()
	v.use = &viaUse{boundPlugin: b}
	return old, nil
}

// retire takes the plugin out of use, and returns it if no call works with it;
// mu is held.
func (v *viaStage) retire() []boundPlugin {
	use := v.use
	if v.use = nil; use == nil {
		return nil
	}
	if use.retired = true; use.calls > 0 {
		return nil
	}
	return []boundPlugin{use.boundPlugin}
}

func (v *viaStage) release(ctx context.Context, use *viaUse) {
	v.mu.Lock()
	use.calls--
	last := use.retired && use.calls == 0
	v.mu.Unlock()
	if last {
		v.r.unbind(context.WithoutCancel(ctx), []boundPlugin{use.boundPlugin})
	}
}
