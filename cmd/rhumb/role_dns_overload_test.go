package main

import (
	"fmt"
	"testing"
	"time"

	"rhumb/authdns"
)

// TestOverloadIsTold: the words of the node file, and an overload as events and status
// tell it: it begins with the second look that finds it, and ends with the first that
// does not.
func TestOverloadIsTold(t *testing.T) {
	for word, want := range map[string]authdns.OverloadPolicy{"": authdns.OverloadAct, "act": authdns.OverloadAct, "observe": authdns.OverloadObserve, "off": authdns.OverloadOff} {
		if got := overloadPolicy(word); got != want {
			t.Errorf("policy %q: %d, want %d", word, got, want)
		}
	}
	began := time.Date(2026, 7, 1, 12, 30, 0, 0, time.UTC)
	over := authdns.Overload{Since: began, Name: "demo.test.", Part: 0.97}
	var watch alarmWatch
	var told []string
	for _, o := range []authdns.Overload{{}, over, over, over, {}, {}} {
		for _, e := range watch.look(overloadAlarms("ams1-a", o)) {
			told = append(told, e.Kind+" "+e.Text)
		}
	}
	want := "[snapshot QueriesShed ams1-a: since 12:30:00 queries of unknown clients are truncated or dropped: names that do not exist, 97 % of them below demo.test. snapshot QueriesShed ams1-a: over]"
	if fmt.Sprint(told) != want {
		t.Errorf("told %v\nwant %s", told, want)
	}
}
