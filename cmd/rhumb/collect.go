package main

import "runtime/debug"

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
