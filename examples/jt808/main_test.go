package main

import (
	"encoding/hex"
	"fmt"
	"testing"

	millrace "github.com/millrace-io/millrace/pdk/go"
	"github.com/millrace-io/millrace/pdk/go/millracetest"
)

func TestSamples(t *testing.T) { millracetest.CheckSamples(t, "") }

func run(t *testing.T, hexFrame string) *millracetest.Answers {
	t.Helper()
	b, err := hex.DecodeString(hexFrame)
	if err != nil {
		t.Fatal(err)
	}
	return millracetest.New(t, "").Value(t, string(b))
}

func TestFrames(t *testing.T) {
	for _, c := range []struct{ name, frame, key, want string }{
		{"location of 2013 with items",
			"7e0200003f013912345678007d02000000000000000301dc89d0073d8aa5000c0258002d26060110153001040001e240020201c7030202562504000000052a02000130011f31010be1037d017d0200427e",
			"13912345678",
			`{"phone":"13912345678","message":"location","id":512,"serial":126,"version":2013,"time":"2026-06-01T10:15:30+08:00","latitude":31.230416,"longitude":121.473701,"altitude":12,"speed":60.0,"direction":45,"ignition":true,"fixed":true,"status":3,"alarm":0,"alarms":[],"mileage":12345.6,"fuel":45.5,"recorder_speed":59.8,"signals":5,"io":1,"signal_strength":31,"satellites":11,"0xe1":"7d7e00"}`},
		{"location of 2019, south and west, with alarms",
			"7e0200402001000000000139123456780002200000030000000e0204cc000435e69402080000016726123123595904020007be7e",
			"13912345678",
			`{"phone":"13912345678","message":"location","id":512,"serial":2,"version":2019,"protocol":1,"time":"2026-12-31T23:59:59+08:00","latitude":-33.868800,"longitude":-70.641300,"altitude":520,"speed":0.0,"direction":359,"ignition":false,"fixed":true,"status":14,"alarm":536870915,"alarms":["emergency","overspeed","collision"],"alarm_event":7}`},
		{"location before the clock is set", "7e0200001c013912345678000900000000000000000000000000000000000000000000000000000000277e", "13912345678",
			`{"phone":"13912345678","message":"location","id":512,"serial":9,"version":2013,"time":null,"latitude":0.000000,"longitude":0.000000,"altitude":0,"speed":0.0,"direction":0,"ignition":false,"fixed":false,"status":0,"alarm":0,"alarms":[]}`},
		{"registration whose names are GBK", "7e0100002d0138000000010004001f0073bba64131004d4f44454c2d37000000000000000000000000005430303030343201bba64131323334357a7e", "13800000001",
			`{"phone":"13800000001","message":"registration","id":256,"serial":4,"version":2013,"province":31,"city":115,"manufacturer_gbk":"bba64131","model":"MODEL-7","terminal":"T000042","plate_color":1,"plate_gbk":"bba6413132333435"}`},
		{"heartbeat", "7e000200000139123456780003317e", "13912345678", `{"phone":"13912345678","message":"heartbeat","id":2,"serial":3,"version":2013}`},
		{"registration of 2013",
			"7e0100002d0138000000010004001f007341434d45314d4f44454c2d37000000000000000000000000005430303030343201bba64131323334352c7e",
			"13800000001",
			`{"phone":"13800000001","message":"registration","id":256,"serial":4,"version":2013,"province":31,"city":115,"manufacturer":"ACME1","model":"MODEL-7","terminal":"T000042","plate_color":1,"plate_gbk":"bba6413132333435"}`},
		{"registration of 2019",
			"7e0100405201000000086138000000010005001f007300000000000041434d453100000000000000000000000000000000000000000000004d4f44454c2d39000000000000000000000000000000000000000000000054303030303433024239383736356d7e",
			"8613800000001",
			`{"phone":"8613800000001","message":"registration","id":256,"serial":5,"version":2019,"protocol":1,"province":31,"city":115,"manufacturer":"ACME1","model":"MODEL-9","terminal":"T000043","plate_color":2,"plate":"B98765"}`},
		{"packet of a split message", "7e0801200301391234567800060003000201027d02607e", "13912345678",
			`{"phone":"13912345678","message":"0x0801","id":2049,"serial":6,"version":2013,"packets":3,"packet":2,"body":"01027e"}`},
		{"encrypted", "7e02000404013912345678000701020304317e", "13912345678",
			`{"phone":"13912345678","message":"location","id":512,"serial":7,"version":2013,"encrypted":true,"body":"01020304"}`},
		{"unknown message", "7e0704000201391234567800080001387e", "13912345678", `{"phone":"13912345678","message":"0x0704","id":1796,"serial":8,"version":2013,"body":"0001"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, c.frame)
			if v := got.Value(0); v != c.want {
				t.Errorf("got  %s\nwant %s", v, c.want)
			}
			if e := got.Emits(0); len(e) == 1 && string(e[0].Key) != c.key {
				t.Errorf("key %s, want %s", e[0].Key, c.key)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for frame, want := range map[string]millrace.Failure{
		"":           {Code: 1, Message: "no frame: it does not begin and end with 0x7e"},
		"7e":         {Code: 1, Message: "no frame: it does not begin and end with 0x7e"},
		"68656c6c6f": {Code: 1, Message: "no frame: it does not begin and end with 0x7e"},
		"7e7e":       {Code: 3, Message: "an empty frame"},
		"7e027d037e": {Code: 1, Message: "0x7d without 0x01 or 0x02 behind it at byte 2"},
		"7e027d7e":   {Code: 1, Message: "0x7d without 0x01 or 0x02 behind it at byte 2"},
		"7e000200000139123456780003317e7e000200000139123456780003317e":                                             {Code: 1, Message: "0x7e inside the frame at byte 14: one record is one frame"},
		"7e0200402001000000000139123456780002200001030000000e0204cc000435e69402080000016726123123595904020007be7e": {Code: 2, Message: "the checksum is 0xbe, the bytes give 0xbf"},
		"7e00020000027e":                 {Code: 3, Message: "the header is cut off, or its phone number is no BCD"},
		"7e0002000001391234567a0003337e": {Code: 3, Message: "the header is cut off, or its phone number is no BCD"},
		"7e000200010139123456780003307e": {Code: 3, Message: "the header says that the body has 1 bytes, it has 0"},
		"7e02000014013912345678000900000000000000000000000000000000000000002f7e":                       {Code: 4, Message: "the location is cut off: 20 of 28 bytes"},
		"7e0200001f013912345678000900000000000000000000000000000000000000000000260601101530010400357e": {Code: 4, Message: "the additional item 0x01 is cut off"},
		"7e0200001c013912345678000900000000000000000000000000000000000000000000261301000000137e":       {Code: 4, Message: "the time of the location is no date: 261301000000"},
		"7e0200001c0139123456780009000000000000000000000000000000000000000000002502291015301c7e":       {Code: 4, Message: "the time of the location is no date: 250229101530"},
		"7e0200001c013912345678000900000000000000000000000000000000000000000000260601240000227e":       {Code: 4, Message: "the time of the location is no date: 260601240000"},
		"7e0200001c0139123456780009000000000000000000000000000000000000000000002606011015fffc7e":       {Code: 4, Message: "the time of the location is no BCD"},
	} {
		got := run(t, frame)
		if f := got.Failure(0); f == nil || *f != want {
			t.Errorf("%s: got %v, want %v", frame, f, want)
		}
		if len(got.Emits(0)) != 0 {
			t.Errorf("%s: something was emitted", frame)
		}
	}
}

// Whatever one byte becomes, the checksum or a rule notices, and nothing panics.
func TestEveryDamagedByteIsNoticed(t *testing.T) {
	const frame = "7e0200402001000000000139123456780002200000030000000e0204cc000435e69402080000016726123123595904020007be7e"
	good, err := hex.DecodeString(frame)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, c := range []byte{0, 1, 0x7d, 0x7e, 0xff} {
			if c == good[i] {
				continue
			}
			bad := append([]byte(nil), good...)
			bad[i] = c
			f := run(t, fmt.Sprintf("%x", bad)).Failure(0)
			if f == nil || len(f.Message) > 6 && f.Message[:6] == "panic:" {
				t.Errorf("byte %d as %#x: got %v", i, c, f)
			}
		}
	}
}
