package main

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

func TestPartitionsOfBrokers(t *testing.T) {
	if got := partitionName("orders", "broker-a", 3); got != "orders/broker-a/3" {
		t.Errorf("got %s", got)
	}
	for in, want := range map[string]api.OffsetTarget{
		"3":                 {Partition: 3, Offset: 9},
		"orders/3":          {Topic: "orders", Partition: 3, Offset: 9},
		"orders/broker-a/3": {Topic: "orders", Broker: "broker-a", Partition: 3, Offset: 9},
	} {
		if got, err := offsetTarget(in, "9"); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"orders//3", "/broker-a/3", "orders/broker-a/", "//3"} {
		if got, err := offsetTarget(in, "9"); err == nil {
			t.Errorf("%s: got %+v", in, got)
		}
	}
}

func TestSkipsAreShown(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	f := &api.Flow{Figures: &api.Figures{}}
	if got := skipPairs(f, now); got != nil {
		t.Errorf("got %v", got)
	}
	f.Figures.Skipped = 25
	for i := range 5 {
		f.Skips = append(f.Skips, api.Skip{Topic: "in", Partition: int32(i), Records: 5, From: 10, To: 15, At: now.UnixMilli() - int64(5-i)*60_000})
	}
	want := "25 records passed over: in/4 at 10, which goes on at 15, 1m ago; in/3 at 10, which goes on at 15, 2m ago; in/2 at 10, which goes on at 15, 3m ago; and 2 more"
	if got := skipPairs(f, now); len(got) != 1 || got[0] != [2]string{"Skipped", want} {
		t.Errorf("got %v, want %s", got, want)
	}
}
