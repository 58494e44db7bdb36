//go:build linux

package faulttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
)

// realRig is a rig whose brokers are real Kafkas, each behind a proxy for the
// node; the test itself asks them directly.
type realRig struct {
	*rig
	kafkas  [2]*brokers.Kafka // of the source and of the output
	proxies [2]*proxy
	disk    string // the folder of the output's data, a small file system of its own; "": there is none
}

const (
	atSource = iota
	atOutput
)

// life is a real Kafka as the rig sees one.
type life struct{ *brokers.Kafka }

func (l life) kill() { l.Kafka.Kill() }

func (l life) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := l.Signal(s); err != nil {
		t.Fatal(err)
	}
}
func (l life) alive() bool  { return l.Alive() }
func (l life) tail() string { return l.Log() }

// newRealRig starts both brokers and the node, which knows them as main and
// other.
func newRealRig(t *testing.T, diskMiB int) *realRig {
	t.Helper()
	rr := &realRig{rig: newNode(t, false)}
	rr.rest = 500 * time.Millisecond // what a stalled broker has in its sockets it appends late
	rr.disk = smallDisk(t, diskMiB)
	for i, name := range []string{"source", "output"} {
		rr.proxies[i] = newProxy(t)
		o := brokers.KafkaOptions{Advertise: rr.proxies[i].addr(), Extra: "log.index.size.max.bytes=65536"}
		if i == atOutput && rr.disk != "" {
			o.Dir = filepath.Join(rr.disk, "data")
		}
		k := brokers.StartKafka(t, o)
		rr.proxies[i].serve(k.ProxiedAddr())
		rr.kafkas[i] = k
		b := &broker{program: life{k}, name: name, addr: k.Addr()}
		b.client = newClient(t, b.addr)
		if i == atSource {
			rr.source = b
		} else {
			rr.output = b
		}
	}
	rr.run()
	rr.connect("connection: v1\nname: main\nkafka: { brokers: [" + rr.proxies[atSource].addr() + "] }\n")
	rr.connect("connection: v1\nname: other\nkafka: { brokers: [" + rr.proxies[atOutput].addr() + "] }\n")
	return rr
}

// smallDisk mounts a small file system in memory; without the right to do so
// there is none, and the log says so.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faulttest-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Logf("without a full disk: mount a small file system: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill takes all that is free on the output's disk; the result gives it back.
func (rr *realRig) fill() (free func()) {
	rr.t.Helper()
	path := filepath.Join(rr.disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		rr.t.Fatal(err)
	}
	defer f.Close()
	part := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(part)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		rr.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			rr.t.Fatal(err)
		}
	}
}

// readBack is one record of the output as another client read it.
type readBack struct {
	number    int
	sum       gen.Sum
	partition int32
	offset    int64
}

// kcatRead reads a topic with a client that is not ours.
func (rr *realRig) kcatRead(topic string) []readBack {
	rr.t.Helper()
	text := brokers.Kcat(rr.t, "-C", "-q", "-e", "-b", rr.output.addr, "-t", topic, "-o", "beginning", "-f", `%p\t%o\t%h\t%k\t%s\n`)
	var outs []readBack
	for line := range strings.Lines(text) {
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 5)
		if len(field) != 5 {
			rr.t.Fatalf("kcat wrote %q", line)
		}
		o := readBack{sum: gen.SumOf([]byte(field[3]), []byte(field[4])), number: -1}
		p, err1 := strconv.Atoi(field[0])
		at, err2 := strconv.ParseInt(field[1], 10, 64)
		if err1 != nil || err2 != nil {
			rr.t.Fatalf("kcat wrote %q", line)
		}
		o.partition, o.offset = int32(p), at
		for h := range strings.SplitSeq(field[2], ",") {
			if n, ok := strings.CutPrefix(h, numberHeader+"="); ok {
				if o.number, err1 = strconv.Atoi(n); err1 != nil {
					rr.t.Fatalf("kcat wrote %q", line)
				}
			}
		}
		outs = append(outs, o)
	}
	return outs
}
