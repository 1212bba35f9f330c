package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// gcWhileLoading is how much garbage, in percent of what is in use, may come together
// while zones are loaded. A load that replaces what is served makes less than twice as
// much as that, garbage and new version together, so at three times nothing is collected
// before it is done. Answers wait for a collection beside a load: it takes a quarter of
// all cores and whatever is idle, and where that is less than one core, nobody may look
// for packets for 10 ms. Without a load beside it the collector gives way to queries.
const gcWhileLoading = 300

// collectLess leaves garbage for later, and returns the setting from before, for
// debug.SetGCPercent. A GOMEMLIMIT is kept all the while, and a GOGC that collects less
// stands. It is the process's setting: only the keeper of zones changes it.
func collectLess() (before int) {
	before = debug.SetGCPercent(gcWhileLoading)
	if before < 0 || before > gcWhileLoading {
		debug.SetGCPercent(before)
	}
	return before
}

// gcRoom is how much garbage may come together, in octets, while nothing is loaded. Left
// to itself the runtime lets it become as much as is in use. But most of what a name
// server uses stays for hours (a city table, zones and their replies) and answering leaves
// next to nothing behind, so that as much again would be resident for nothing.
const gcRoom = 16 << 20

// What is in use bounds the setting from both sides: below gcLeast a large heap that does
// make garbage would be looked through too often, and gcDefault is the runtime's own.
const (
	gcLeast   = 25
	gcDefault = 100
)

// gcServing is the setting, for debug.SetGCPercent, with so much in use.
func gcServing(live uint64) int {
	return int(min(gcDefault, max(gcLeast, 100*gcRoom/max(live, 1))))
}

// collectServing returns the setting from now on, given that from before the load: an
// operator's, by GOGC, stands. It wants to be asked right after a collection.
func collectServing(before int) int {
	if os.Getenv("GOGC") != "" {
		return before
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return gcServing(live[0].Value.Uint64())
}
