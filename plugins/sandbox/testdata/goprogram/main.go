// Command goprogram reads lines and answers with what a run could remember or
// guess: clock, random, the order of a map, goroutines, memory.
package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

var runs int

var seen = map[string]int{}

func main() {
	fmt.Fprintln(os.Stderr, "started at", time.Now().UTC().Format(time.RFC3339Nano), rand.Uint64())
	fmt.Println("before the first read")
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 8<<20)
	for in.Scan() {
		runs++
		line := in.Text()
		for i, w := range strings.Fields(line) {
			seen[w] += i
		}
		result := make(chan string)
		go func() {
			time.Sleep(time.Millisecond)
			result <- fmt.Sprint(runs, len(seen), time.Now().UnixNano(), rand.Uint64())
		}()
		var order []string
		for w := range seen {
			order = append(order, w)
		}
		fmt.Println(<-result, order)
		switch {
		case strings.Contains(line, "exit"):
			os.Exit(len(line))
		case strings.Contains(line, "panic"):
			panic(line)
		case strings.Contains(line, "big"):
			b := make([]byte, 4<<20)
			b[len(b)-1] = 1
			fmt.Println(len(b))
		}
	}
	fmt.Fprintln(os.Stderr, "ended")
}
