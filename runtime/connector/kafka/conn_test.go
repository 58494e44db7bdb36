package kafka

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/connector"
)

// answer is a response as it lies on the wire.
func answer(resp kmsg.Response, key int16) []byte {
	frame := []byte{0, 0, 0, 0, 0, 0, 0, 1}
	if key == kmsg.SASLAuthenticate.Int16() && resp.IsFlexible() {
		frame = append(frame, 0)
	}
	frame = resp.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// request is the beginning of one.
func request(key, version int16) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b[4:], uint16(key))
	binary.BigEndian.PutUint16(b[6:], uint16(version))
	return b
}

func TestLoginAnswers(t *testing.T) {
	handshake := func(code int16, offered ...string) kmsg.Response {
		return &kmsg.SASLHandshakeResponse{Version: 1, ErrorCode: code, SupportedMechanisms: offered}
	}
	authenticate := func(version, code int16) kmsg.Response {
		return &kmsg.SASLAuthenticateResponse{Version: version, ErrorCode: code, SASLAuthBytes: []byte("x")}
	}
	for _, tc := range []struct {
		name string
		resp kmsg.Response
		want string // the text of the refusal, "": it passes through
	}{
		{"a mechanism that is taken", handshake(0, "PLAIN"), ""},
		{"one that is not", handshake(kerr.UnsupportedSaslMechanism.Code, "PLAIN", "SCRAM-SHA-512"), "UNSUPPORTED_SASL_MECHANISM"},
		{"login, version 0", authenticate(0, 0), ""},
		{"no login, version 0", authenticate(0, kerr.SaslAuthenticationFailed.Code), "SASL_AUTHENTICATION_FAILED"},
		{"no login, version 1", authenticate(1, kerr.SaslAuthenticationFailed.Code), "SASL_AUTHENTICATION_FAILED"},
		{"login, version 2", authenticate(2, 0), ""},
		{"no login, version 2", authenticate(2, kerr.SaslAuthenticationFailed.Code), "SASL_AUTHENTICATION_FAILED"},
		{"what the client tries again by itself", authenticate(2, kerr.RequestTimedOut.Code), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			frame := answer(tc.resp, tc.resp.Key())
			first, later := answer(&kmsg.MetadataResponse{}, 3), []byte{0, 0, 0, 1, 9}
			go func() {
				_, _ = io.ReadFull(theirs, make([]byte, 12))
				_, _ = theirs.Write(append(append(append([]byte{}, first...), frame...), later...))
				_ = theirs.Close()
			}()
			c := newBrokerConn(ours)
			go func() { _, _ = c.Write(request(3, 0)) }()
			before := make([]byte, len(first))
			if _, err := io.ReadFull(c, before); err != nil || string(before) != string(first) {
				t.Fatalf("the first answer: %v, %v", before, err)
			}
			c.asked.Store(int32(tc.resp.Key())<<16 | int32(tc.resp.GetVersion()))
			got, err := io.ReadAll(c)
			if tc.want == "" {
				if err != nil || string(got) != string(frame)+string(later) {
					t.Errorf("got %v, %v, want %v", got, err, append(frame, later...))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || len(got) > 0 {
				t.Fatalf("got %v, %v, want %s", got, err, tc.want)
			}
			if !isTransport(err) || kerr.IsRetriable(err) {
				t.Errorf("%v is not an error of the network", err)
			}
		})
	}
}

// What is watched for is the request that was written last.
func TestLoginRequests(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	c := newBrokerConn(ours)
	c.asked.Store(0)
	for _, tc := range []struct {
		key, version int16
		want         int32
	}{{3, 12, 0}, {17, 1, 17<<16 | 1}, {36, 2, 36<<16 | 2}} {
		if _, err := c.Write(request(tc.key, tc.version)); err != nil {
			t.Fatal(err)
		}
		if got := c.asked.Load(); got != tc.want {
			t.Errorf("request %d: the next answer is taken for %x, want %x", tc.key, got, tc.want)
		}
	}
}

// listener answers each connection by a function.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return ln.Addr().String()
}

func TestCheckOtherServers(t *testing.T) {
	web := listener(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 64))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_ = c.Close()
	})
	closes := listener(t, func(c net.Conn) { _ = c.Close() })
	silent := listener(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	anyTLS := func() (*tls.Config, error) { return connector.NewTLS(nil, nil, nil) }
	for _, tc := range []struct {
		name, want string
		cfg        Config
	}{
		{"a web server", "an HTTP server answers there: correct the port", Config{Brokers: []string{web}}},
		{"a web server, tls", "the listener does not speak TLS: take `tls` out", Config{Brokers: []string{web}, TLS: anyTLS}},
		{"one that closes", "it closed the connection at the first byte: the listener may demand TLS", Config{Brokers: []string{closes}}},
		{"one that is silent", "no answer in time: start the broker, or correct", Config{Brokers: []string{silent}}},
		{"one that is silent, tls", "no answer in time: start the broker, or correct", Config{Brokers: []string{silent}, TLS: anyTLS}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			err := Check(ctx, tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "kafka at "+tc.cfg.Brokers[0]+": ") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if ctx.Err() != nil {
				t.Error("the check took all of its time")
			}
		})
	}
}

// A member that cannot be reached fails the check; an address of the
// configuration that is not one does not.
func TestCheckMembers(t *testing.T) {
	c := cluster(t, kfake.NumBrokers(3))
	cfg := config(c)
	cfg.Brokers = cfg.Brokers[:1]
	if err := Check(bounded(t), cfg); err != nil {
		t.Error(err)
	}
	answered := c.ListenAddrs()[0]
	nowhere := unused(t)
	host, port, err := net.SplitHostPort(nowhere)
	if err != nil {
		t.Fatal(err)
	}
	c.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		p, _ := net.LookupPort("tcp", port)
		resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 7, Host: host, Port: int32(p)}}
		return resp, nil, true
	})
	err = Check(bounded(t), cfg)
	want := "kafka: broker 7 at " + nowhere + ", the address that " + answered + " names for it (its advertised.listeners): nothing listens there: connection refused: start that broker"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// The brokers are told who asks and where it stands.
func TestClientAndRack(t *testing.T) {
	names := make(chan string, 16)
	addr := listener(t, func(c net.Conn) {
		b := make([]byte, 64)
		n, _ := c.Read(b)
		names <- string(b[:n])
		_ = c.Close()
	})
	for want, cfg := range map[string]Config{"millrace": {Brokers: []string{addr}}, "orders-etl": {Brokers: []string{addr}, ClientID: "orders-etl"}} {
		_ = Check(bounded(t), cfg)
		if got := <-names; !strings.Contains(got, want) {
			t.Errorf("the first request %q has no client id %q", got, want)
		}
		for len(names) > 0 {
			<-names
		}
	}

	c := cluster(t, kfake.SeedTopics(1, "in"))
	racks := make(chan string, 1)
	c.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		racks <- req.(*kmsg.FetchRequest).Rack
		return nil, nil, false
	})
	cfg := config(c)
	cfg.Rack = "az-1"
	s, err := NewSource(SourceConfig{Config: cfg, Topics: []string{"in"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.Assign(in0, 0)
	ctx := bounded(t)
	go func() { _, _ = s.Poll(ctx) }()
	select {
	case got := <-racks:
		if got != "az-1" {
			t.Errorf("rack %q, want az-1", got)
		}
	case <-ctx.Done():
		t.Fatal("nothing was fetched")
	}
}
