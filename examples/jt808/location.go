package main

import (
	"encoding/hex"
	"strconv"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

// alarmNames are the bits of the alarm word that have a word of their own here.
var alarmNames = []struct {
	bit  uint8
	name string
}{
	{0, "emergency"}, {1, "overspeed"}, {2, "fatigue"}, {3, "danger"}, {4, "gnss-fault"}, {5, "gnss-antenna-open"}, {6, "gnss-antenna-short"},
	{7, "power-low"}, {8, "power-off"}, {20, "area"}, {21, "route"}, {23, "off-route"}, {26, "stolen"}, {29, "collision"},
}

// status bits.
const (
	statusIgnition = 1 << 0
	statusFixed    = 1 << 1
	statusSouth    = 1 << 2
	statusWest     = 1 << 3
)

// location writes the body of a message 0x0200.
func location(w *millrace.Writer, body []byte) error {
	r := reader{b: body}
	alarm, status := r.u32(), r.u32()
	latitude, longitude := int64(r.u32()), int64(r.u32())
	altitude, speed, direction := r.u16(), r.u16(), r.u16()
	time := bcd(r.take(6))
	if r.short {
		return millrace.Fail(codeBody, "the location is cut off: "+strconv.Itoa(len(body))+" of 28 bytes")
	}
	if time == "" {
		return millrace.Fail(codeBody, "the time of the location is no BCD")
	}
	if time != unset && !isDate(time) {
		return millrace.Fail(codeBody, "the time of the location is no date: "+time)
	}
	if status&statusSouth != 0 {
		latitude = -latitude
	}
	if status&statusWest != 0 {
		longitude = -longitude
	}
	w.Name("time")
	if time == unset {
		w.Value(nil)
	} else {
		w.Value(timestamp(time))
	}
	w.Member("latitude", decimal(latitude, 6))
	w.Member("longitude", decimal(longitude, 6))
	w.Member("altitude", int(altitude))
	w.Member("speed", decimal(int64(speed), 1))
	w.Member("direction", int(direction))
	w.Member("ignition", status&statusIgnition != 0)
	w.Member("fixed", status&statusFixed != 0)
	w.Member("status", status)
	w.Member("alarm", alarm)
	w.Name("alarms")
	w.Begin('[')
	for _, a := range alarmNames {
		if alarm>>a.bit&1 != 0 {
			w.Value(a.name)
		}
	}
	w.End(']')
	return items(w, &r)
}

// items writes the additional items behind a location. What has no name here is
// given in hexadecimal under its number.
func items(w *millrace.Writer, r *reader) error {
	for len(r.b) > 0 {
		id, n := r.u8(), int(r.u8())
		value := reader{b: r.take(n)}
		if r.short {
			return millrace.Fail(codeBody, "the additional item "+hexByte(id)+" is cut off")
		}
		switch {
		case id == 0x01 && n == 4:
			w.Member("mileage", decimal(int64(value.u32()), 1))
		case id == 0x02 && n == 2:
			w.Member("fuel", decimal(int64(value.u16()), 1))
		case id == 0x03 && n == 2:
			w.Member("recorder_speed", decimal(int64(value.u16()), 1))
		case id == 0x04 && n == 2:
			w.Member("alarm_event", int(value.u16()))
		case id == 0x25 && n == 4:
			w.Member("signals", value.u32())
		case id == 0x2a && n == 2:
			w.Member("io", int(value.u16()))
		case id == 0x30 && n == 1:
			w.Member("signal_strength", int(value.u8()))
		case id == 0x31 && n == 1:
			w.Member("satellites", int(value.u8()))
		default:
			w.Member(hexByte(id), hex.EncodeToString(value.b))
		}
	}
	return nil
}

// unset is the time of a terminal that was not told it yet.
const unset = "000000000000"

// isDate tells whether YYMMDDhhmmss is one.
func isDate(s string) bool {
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	days := 31
	switch two(2) {
	case 2:
		days = 28
		if two(0)%4 == 0 {
			days = 29
		}
	case 4, 6, 9, 11:
		days = 30
	}
	return two(2) >= 1 && two(2) <= 12 && two(4) >= 1 && two(4) <= days && two(6) < 24 && two(8) < 60 && two(10) < 60
}

// timestamp is YYMMDDhhmmss as RFC 3339: terminals say it in UTC+8.
func timestamp(s string) string {
	return "20" + s[0:2] + "-" + s[2:4] + "-" + s[4:6] + "T" + s[6:8] + ":" + s[8:10] + ":" + s[10:12] + "+08:00"
}

// decimal is n over a power of ten as a JSON number, exact and with all places.
func decimal(n int64, places int) millrace.JSON {
	b := make([]byte, 0, 24)
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	scale := int64(1)
	for range places {
		scale *= 10
	}
	b = append(strconv.AppendInt(b, n/scale, 10), '.')
	for n %= scale; places > 0; places-- {
		scale /= 10
		b = append(b, '0'+byte(n/scale))
		n %= scale
	}
	return b
}
