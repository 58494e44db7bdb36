package sandbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// baseBufferBytes is what the guest is asked to allocate for frames
	// before the image of level 0; each level doubles it.
	baseBufferBytes = 128 << 10
	// baseWarmUp is the number of records in the warm-up of level 0.
	baseWarmUp = 128
	// maxImageLevel is the greatest level.
	maxImageLevel = 8
	// raiseAfter is how many calls in a row must grow memory to raise it.
	raiseAfter = 3
)

// imageMillis is the clock of everything that happens before the image is
// taken, 2000-01-01: the image must not depend on when it was made.
const imageMillis = 946_684_800_000

// instance is a running guest. One goroutine uses it at a time.
type instance struct {
	stage *Stage
	// ctx carries the environment into host functions; it never ends.
	ctx     context.Context
	env     *guestEnv
	alloc   *memories
	mod     api.Module
	memory  api.Memory
	batch   api.Function
	malloc  api.Function
	globals []api.MutableGlobal
	image   *image
	enc     abi.Encoder
	dec     abi.Decoder
	stack   [2]uint64

	// sent is how many bytes of the image's buffer requests have filled since
	// the instance was in the state of its image, owed what of them is not put
	// back.
	sent int
	owed pages

	// used: its state is no longer the image's. spoiled: its last call
	// failed. dead: it cannot be put back.
	used, spoiled, dead bool
	// starting: it has no image yet, and each of its calls a budget.
	starting bool
}

// base instantiates the module without running any of its exports.
func (s *Stage) base(silent bool) (*instance, error) {
	in := &instance{stage: s, env: &guestEnv{World: World{silent: silent}, fuelExport: s.mod.fuel}, alloc: &memories{limit: uint64(s.limit)}}
	in.dec.Outputs, in.dec.MaxEmits, in.dec.MaxHeaders = s.outputs, maxCallEmits, maxCallHeaders
	in.ctx = experimental.WithMemoryAllocator(context.WithValue(context.Background(), envKey{}, in.env), in.alloc)
	in.env.begin(imageMillis, 0)
	s.count.instances.Add(1)
	mod, err := s.rt.wz.InstantiateModule(in.ctx, s.mod.compiled, in.env.moduleConfig())
	if err != nil {
		in.alloc.free()
		return nil, s.startError(in, "instantiation", err)
	}
	in.mod, in.memory = mod, mod.Memory()
	in.env.fuel.bind(mod, s.mod.fuel)
	in.env.fuel.set(s.startFuel())
	for _, g := range s.mod.globals {
		// Imported globals are refused by Inspect, v128 ones make the image
		// inexact and are never put back.
		if mg, ok := mod.ExportedGlobal(g.Export).(api.MutableGlobal); ok {
			in.globals = append(in.globals, mg)
		}
	}
	in.functions()
	return in, nil
}

func (in *instance) functions() {
	in.batch = in.mod.ExportedFunction(exportBatch)
	in.malloc = in.mod.ExportedFunction(exportAlloc)
}

// newInstance makes an instance whose state is the image: of the existing
// image where that is exact, else by starting the guest.
func (s *Stage) newInstance(ctx context.Context) (*instance, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		im, level := s.image, s.level
		s.mu.Unlock()
		if im != nil && im.level == level && s.mod.info.ExactRestore {
			return s.clone(im)
		}
		in, err := s.start(level)
		if err == nil {
			s.publish(in)
			return in, nil
		}
		if level == 0 {
			return nil, err
		}
		// The guest cannot be warmed up at this level; the one below worked.
		s.mu.Lock()
		s.maxLevel = min(s.maxLevel, level-1)
		s.level = min(s.level, s.maxLevel)
		s.mu.Unlock()
	}
}

// start starts the guest, configures it, warms it up and takes the image.
func (s *Stage) start(level int) (*instance, error) {
	in, err := s.configured()
	if err != nil {
		return nil, err
	}
	logs := in.env.lines
	size := uint32(baseBufferBytes << level)
	if int64(size) >= s.limit {
		size = uint32(s.limit / 4)
	}
	buffer, err := in.allocate(size)
	if err != nil {
		in.close()
		return nil, s.allocError(in, err, "a buffer of %s", BytesText(int64(size)))
	}
	im := &image{level: level, buffer: buffer, bufferBytes: size}
	in.image = im
	in.env.silent = true
	if err := in.warmUp(baseWarmUp << level); err != nil {
		// A guest that cannot take the sample is not refused for it: its
		// image is taken as it was before.
		in.close()
		if level > 0 {
			return nil, err
		}
		if in, err = s.configured(); err != nil {
			return nil, err
		}
		if im.buffer, err = in.allocate(size); err != nil {
			in.close()
			return nil, s.allocError(in, err, "a buffer of %s", BytesText(int64(size)))
		}
		in.image = im
	}
	in.env.silent, in.starting = false, false
	im.memory = clone(in.view())
	im.zero = zerosOf(im.memory)
	for _, g := range in.globals {
		im.globals = append(im.globals, g.Get())
	}
	in.used, in.sent = false, 0
	if len(logs) > 0 {
		s.tell(in.ctx, &guestEnv{World: World{lines: logs}}, nil, false)
	}
	return in, nil
}

// configured instantiates the guest and gives it its configuration.
func (s *Stage) configured() (*instance, error) {
	in, err := s.base(false)
	if err != nil {
		return nil, err
	}
	in.starting = true
	fail := func(err error) (*instance, error) {
		in.close()
		return nil, err
	}
	if f := in.mod.ExportedFunction(exportInitialize); f != nil {
		if _, err := f.Call(in.ctx); err != nil {
			return fail(s.startError(in, exportInitialize, err))
		}
	}
	if f := in.mod.ExportedFunction(exportInit); f != nil {
		config := s.cfg.Config
		ptr, err := in.allocate(uint32(len(config)))
		if err != nil {
			return fail(s.allocError(in, err, "%d bytes for its configuration", len(config)))
		}
		if !in.memory.Write(ptr, config) {
			return fail(fmt.Errorf("start plugin %s: stage_alloc answered %#x, outside of its memory", s.cfg.Plugin, ptr))
		}
		in.env.fuel.set(s.startFuel())
		res, err := f.Call(in.ctx, uint64(ptr), uint64(len(config)))
		if err != nil {
			return fail(s.startError(in, exportInit, err))
		}
		in.env.Finish()
		if code := int32(uint32(res[0])); code != 0 {
			return fail(&InitError{Plugin: s.cfg.Plugin, Export: exportInit, Code: code, Message: in.env.LastLines(8)})
		}
	}
	in.env.Finish()
	// Start-up may have logged; the slice is handed over.
	lines := in.env.lines
	in.env.lines = nil
	in.env.begin(imageMillis, 0)
	in.env.lines = lines
	return in, nil
}

func (s *Stage) startError(in *instance, what string, err error) error {
	in.env.Finish()
	text := in.env.trapText(err)
	switch {
	case in.env.fuel.out():
		text = in.env.fuel.text()
	case in.mod == nil && s.mod.hasStart:
		text += fmt.Sprintf("; a start function has %d units of fuel", instanceFuel)
	}
	return &InitError{Plugin: s.cfg.Plugin, Export: what, Message: text}
}

// allocError is a failure of stage_alloc at the start.
func (s *Stage) allocError(in *instance, err error, format string, args ...any) error {
	if in.env.fuel.out() {
		err = in.env.fuel.error()
	}
	return fmt.Errorf("start plugin %s: allocate %s: %w", s.cfg.Plugin, fmt.Sprintf(format, args...), err)
}

// allocate asks the guest for a buffer of n bytes.
func (in *instance) allocate(n uint32) (uint32, error) {
	if in.starting {
		in.env.fuel.set(in.stage.startFuel())
	}
	in.stack[0] = uint64(max(n, 8))
	if err := in.malloc.CallWithStack(in.ctx, in.stack[:]); err != nil {
		return 0, err
	}
	ptr := uint32(in.stack[0])
	switch {
	case ptr == 0:
		return 0, errNoMemory
	case ptr%8 != 0:
		return 0, record.Errorf(record.Protocol, "stage_alloc answered %#x, which is not a multiple of 8", ptr)
	case uint64(ptr)+uint64(n) > uint64(in.memory.Size()):
		return 0, record.Errorf(record.Protocol, "stage_alloc answered %#x for %d bytes, outside of its memory of %d", ptr, n, in.memory.Size())
	}
	return ptr, nil
}

// errNoMemory: stage_alloc answered 0.
var errNoMemory = errors.New("stage_alloc answered that it has none")

// view is the whole memory. It goes stale when the guest grows it, and must
// not be used once the instance is closed.
func (in *instance) view() []byte {
	b, _ := in.memory.Read(0, in.memory.Size())
	return b
}

// warmUp passes records through the guest that are never real data, so that
// its heap has the size that batches need.
func (in *instance) warmUp(count int) error {
	s := in.stage
	var sample []record.Record
	if m := s.mod.info.Manifest; m != nil {
		sample = m.Sample
	}
	if len(sample) == 0 {
		sample = []record.Record{{Key: []byte("key"), Value: []byte("{}"), Topic: "sample", Attempt: 1, To: -1}}
	}
	size, err := in.enc.Size(sample)
	if err != nil {
		return err
	}
	count = max(len(sample), min(count, int(in.image.bufferBytes)/size*len(sample)))
	records := make([]record.Record, count)
	for i := range records {
		records[i] = sample[i%len(sample)]
	}
	if size, err = in.enc.Size(records); err != nil {
		return err
	}
	if uint64(size) > uint64(in.image.bufferBytes) {
		return nil
	}
	in.env.fuel.set(max(s.startFuel(), s.budget(count, size)))
	ptr, res, err := in.send(records, size, 0, imageMillis)
	if err != nil {
		return err
	}
	var discard record.Results
	if _, ok := in.memory.Read(ptr, res); !ok {
		return nil
	}
	frame, _ := in.memory.Read(ptr, res)
	// What it answers to a sample is no reason to refuse it.
	_ = in.dec.Decode(frame, 0, records, 0, &discard)
	return nil
}

// send encodes records into the image's buffer, which must hold size bytes,
// and calls the guest.
func (in *instance) send(records []record.Record, size int, id uint64, now int64) (ptr, n uint32, err error) {
	return in.sendAt(in.image.buffer, records, size, id, now)
}

func (in *instance) sendAt(buffer uint32, records []record.Record, size int, id uint64, now int64) (ptr, n uint32, err error) {
	dst, ok := in.memory.Read(buffer, uint32(size))
	if !ok {
		return 0, 0, record.Errorf(record.Protocol, "its buffer of %d bytes at %#x lies outside of its memory", size, buffer)
	}
	if buffer == in.image.buffer {
		in.settle(size)
		in.sent = max(in.sent, size)
	}
	in.enc.Encode(dst, id, now, records)
	in.stack[0], in.stack[1] = uint64(buffer), uint64(size)
	if err := in.batch.CallWithStack(in.ctx, in.stack[:]); err != nil {
		return 0, 0, err
	}
	return uint32(in.stack[0] >> 32), uint32(in.stack[0]), nil
}

// close ends the instance; it is idempotent.
func (in *instance) close() {
	in.dead = true
	if in.mod != nil {
		_ = in.mod.Close(in.ctx)
	}
}

// take gets an instance in the state of the present image.
func (s *Stage) take(ctx context.Context) (*instance, error) {
	for {
		s.mu.Lock()
		var in *instance
		if n := len(s.idle); n > 0 {
			in, s.idle = s.idle[n-1], s.idle[:n-1]
		}
		level := s.level
		s.mu.Unlock()
		if in == nil {
			return s.newInstance(ctx)
		}
		if in.image.level == level && in.ready() {
			return in, nil
		}
		in.close()
	}
}

// give returns an instance to the pool, or closes it if it is of no more use.
func (s *Stage) give(in *instance) {
	if !in.dead {
		s.mu.Lock()
		keep := !s.gate.IsShut() && in.image.level == s.level
		if keep {
			s.idle = append(s.idle, in)
		}
		s.mu.Unlock()
		if keep {
			return
		}
	}
	in.close()
}

// grew notes whether a call of size bytes grew memory, and raises the level of
// the image when that happens again and again: calls that did not grow it though
// they were as large say that the level is enough, smaller ones say nothing.
func (s *Stage) grew(level, size int, did bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case level != s.level:
		return
	case !did:
		if size >= s.streakSize {
			s.streak = 0
		}
		return
	}
	s.streakSize = size
	if s.streak++; s.streak >= raiseAfter {
		s.streak = 0
		if s.level < s.maxLevel {
			s.level++
			s.log.Debug("image raised", "level", s.level)
		}
	}
}
