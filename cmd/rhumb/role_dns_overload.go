package main

import (
	"rhumb/authdns"
	"rhumb/internal/config"
	"rhumb/placement"
)

// alarmQueriesShed says that a name server turns queries away, or would.
const alarmQueriesShed = "QueriesShed"

// overloadPolicy is what the node file says, which has been checked.
func overloadPolicy(word string) authdns.OverloadPolicy {
	switch word {
	case config.OverloadObserve:
		return authdns.OverloadObserve
	case config.OverloadOff:
		return authdns.OverloadOff
	}
	return authdns.OverloadAct
}

// overloadAlarms is the alarm of a node whose name server is asked for more than it can
// answer: the log of events tells when it begins and ends, the status that it is so.
func overloadAlarms(node string, o authdns.Overload) []placement.Alarm {
	if o.Since.IsZero() {
		return nil
	}
	return []placement.Alarm{{Kind: alarmQueriesShed, Object: node, Text: o.String()}}
}

// alarmAliasStale says that a name of others, which an alias has for target, cannot be
// looked up: what it had last is served.
const alarmAliasStale = "AliasStale"

func aliasAlarms(node string, stale []string) (out []placement.Alarm) {
	for _, text := range stale {
		out = append(out, placement.Alarm{Kind: alarmAliasStale, Object: node, Text: text})
	}
	return out
}
