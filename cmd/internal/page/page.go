// Package page reads pages of the documentation for the tests that carry out
// what they show. It runs nothing.
package page

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// Block is a fenced block of a page.
type Block struct {
	// Kind is the first word behind the fence, Name the second; "" if there is
	// none.
	Kind, Name string
	// Text is what stands in it, with all its line ends.
	Text string
	// Line of the opening fence, from 1.
	Line int
}

var fence = regexp.MustCompile("^```([a-z]*)(?: ([a-z.-]+))?$")

// Blocks are the blocks of a page in their order. One without an end ends the
// test.
func Blocks(t testing.TB, text string) []Block {
	t.Helper()
	var out []Block
	var open *Block
	for i, line := range strings.Split(text, "\n") {
		switch m := fence.FindStringSubmatch(line); {
		case open != nil && line == "```":
			out, open = append(out, *open), nil
		case open != nil:
			open.Text += line + "\n"
		case m != nil:
			open = &Block{Kind: m[1], Name: m[2], Line: i + 1}
		}
	}
	if open != nil {
		t.Fatalf("the block in line %d of the page has no end", open.Line)
	}
	return out
}

// First is the text of the first block of a kind. If there is none the test
// ends.
func First(t testing.TB, text, kind string) string {
	t.Helper()
	for _, b := range Blocks(t, text) {
		if b.Kind == kind {
			return b.Text
		}
	}
	t.Fatalf("the page has no block of %s", kind)
	return ""
}

// Call is a call of curl.
type Call struct {
	// Command is what stands behind `curl -s `, Want what it wrote.
	Command, Want string
	Method, URL   string
	Header        http.Header
	Body          string
}

var word = regexp.MustCompile(`'[^']*'|\S+`)

// Calls are the calls of curl in a block of commands and their answers. They
// may have headers (-H) and a body (-d), each in single quotes.
func Calls(console string) []Call {
	var out []Call
	for _, text := range strings.Split(console, "$ curl -s ")[1:] {
		c := Call{Method: http.MethodGet, Header: http.Header{}}
		c.Command, c.Want, _ = strings.Cut(text, "\n")
		words := word.FindAllString(c.Command, -1)
		for i := 0; i < len(words); i++ {
			switch w := strings.Trim(words[i], "'"); {
			case w == "-d" && i+1 < len(words):
				i++
				c.Method, c.Body = http.MethodPost, strings.Trim(words[i], "'")
			case w == "-H" && i+1 < len(words):
				i++
				name, value, _ := strings.Cut(strings.Trim(words[i], "'"), ": ")
				c.Header.Add(name, value)
			default:
				c.URL = w
			}
		}
		out = append(out, c)
	}
	return out
}
