package capture

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// minRefused is how many refusals speak for a limit.
const minRefused = 2

// limitOf is the limit of requests that refusals with 429 tell of, as a twin's
// file has it; "" if they come at no such limit. At each refusal as many were
// taken in the second, or minute, before it, and never many more: windows of a
// partner slide, and times here are a little off.
func limitOf(taken, refused []time.Time) string {
	if len(refused) < minRefused {
		return ""
	}
	slices.SortFunc(taken, time.Time.Compare)
	for _, unit := range []struct {
		window time.Duration
		name   string
	}{{time.Second, "s"}, {time.Minute, "m"}} {
		before := func(t time.Time) int {
			after := func(t time.Time) int {
				return sort.Search(len(taken), func(i int) bool { return taken[i].After(t) })
			}
			return after(t) - after(t.Add(-unit.window))
		}
		var held []int
		for _, t := range refused {
			held = append(held, before(t))
		}
		slices.Sort(held)
		most := 0
		for _, t := range taken {
			most = max(most, before(t))
		}
		limit := held[len(held)/2]
		if limit >= 2 && 10*held[len(held)/10] >= 7*limit && 10*most <= 13*limit {
			return fmt.Sprintf("%d/%s", limit, unit.name)
		}
	}
	return ""
}
