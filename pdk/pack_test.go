package pdk

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestPackTakesWhatTheListNames(t *testing.T) {
	kit := fstest.MapFS{}
	for i, name := range []string{"src/lib.rs", "src/json/mod.rs", "src/json/deep/a.rs", "Cargo.toml", "target/x.rs", "a.go", "a_test.go", "b.txt", ".hidden/x"} {
		kit[name] = &fstest.MapFile{Data: fmt.Append(nil, "content of ", name), ModTime: time.Unix(int64(i), 0), Mode: 0o600}
	}
	for _, c := range []struct{ list, want string }{
		{"src/**\nCargo.toml\n", "Cargo.toml src/json/deep/a.rs src/json/mod.rs src/lib.rs"},
		{"*.go", "a.go a_test.go"},
		{"# a comment\n\nsrc/*/*.rs\nsrc/lib.rs\nsrc/**", "src/json/deep/a.rs src/json/mod.rs src/lib.rs"},
		{"**/a.rs", "src/json/deep/a.rs"},
		{"b.*", "b.txt"},
	} {
		kit[".pack"] = &fstest.MapFile{Data: []byte(c.list)}
		zip, err := Pack(kit)
		if err != nil {
			t.Errorf("%q: %v", c.list, err)
			continue
		}
		var names []string
		copied := fstest.MapFS{}
		err = Unpack(zip, func(name string, content []byte) error {
			if string(content) != "content of "+name {
				t.Errorf("%q: %s holds %q", c.list, name, content)
			}
			names = append(names, name)
			copied[name] = &fstest.MapFile{Data: content, ModTime: time.Now()}
			return nil
		})
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%q: got %s, %v, want %s", c.list, got, err, c.want)
		}
		copied["node_modules/x.js"] = &fstest.MapFile{Data: []byte("x")}
		again, err := Repack(copied)
		if err != nil || !bytes.Equal(again, zip) {
			t.Errorf("%q: packed again it has other bytes, %v", c.list, err)
		}
		copied[names[0]].Data = append(copied[names[0]].Data, '!')
		if again, err = Repack(copied); err != nil || bytes.Equal(again, zip) {
			t.Errorf("%q: a changed file gives the same bytes, %v", c.list, err)
		}
	}
	kit[".pack"] = &fstest.MapFile{Data: []byte("src/**\nREADME.md\n")}
	if _, err := Pack(kit); err == nil || !strings.Contains(err.Error(), `no file matches "README.md"`) {
		t.Errorf("a pattern without files: %v", err)
	}
}

func TestKits(t *testing.T) {
	for _, name := range Kits() {
		zip, digest := Kit(name)
		if digest != Digest(zip) || len(digest) != 71 {
			t.Errorf("%s: digest %s", name, digest)
		}
		var names []string
		if err := Unpack(zip, func(name string, _ []byte) error { names = append(names, name); return nil }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(names) < 3 || !slices.Contains(names, "README.md") {
			t.Errorf("%s holds %v", name, names)
		}
	}
	if zip, _ := Kit("cobol"); zip != nil {
		t.Error("there is a kit for COBOL")
	}
}
