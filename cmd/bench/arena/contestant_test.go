package arena

import (
	"slices"
	"strings"
	"testing"
)

func TestParseContestant(t *testing.T) {
	c, err := ParseContestant(" mine = ./mine -a=b 'c d' ")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"sh", "-c", "exec ./mine -a=b 'c d'"}; c.Name != "mine" || !slices.Equal(c.Command, want) || c.Work != Order {
		t.Errorf("got %+v", c)
	}
	for _, text := range []string{"", "mine", "mine=", "=./mine", " =x", "a,b=x", "a b=x", "a|b=x"} {
		if _, err := ParseContestant(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestPick(t *testing.T) {
	all := []Contestant{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	names := func(cs []Contestant) string {
		var s []string
		for _, c := range cs {
			s = append(s, c.Name)
		}
		return strings.Join(s, ",")
	}
	for in, want := range map[string]string{"": "a,b,c", "c, a": "a,c", "b": "b"} {
		got, err := Pick(all, in)
		if err != nil || names(got) != want {
			t.Errorf("Pick(%q) = %s, %v; want %s", in, names(got), err, want)
		}
	}
	if _, err := Pick(all, "a,d"); err == nil || !strings.Contains(err.Error(), "no contestant d: there are a, b, c") {
		t.Errorf("got %v", err)
	}
	if _, err := Pick(append(all, Contestant{Name: "b"}), ""); err == nil {
		t.Error("two of the same name were taken")
	}
}
