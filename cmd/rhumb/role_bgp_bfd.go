package main

import (
	"fmt"

	"rhumb/bgp"
	"rhumb/placement"
)

// tellBFD writes into the fleet's log that a BFD session is up, or is not any more. The
// steps between are of no use to anybody who reads it.
func tellBFD(tell func(placement.Event), e bgp.BFDEvent) {
	const up = "up"
	if e.From != up && e.To != up {
		return
	}
	text := fmt.Sprintf("BFD with %s: %s → %s", e.Peer, e.From, e.To)
	if e.To != up {
		text += because(e.Diag)
	}
	if e.Failed {
		text += "; its BGP session is reset"
	}
	tell(placement.Event{At: e.At, Kind: "bgp", Text: text})
}
