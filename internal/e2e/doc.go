// Package e2e holds the scenarios with real peers.
//
// Its tests (tag e2e) start the lab of the built binary, break it from outside as
// an operator would, and look at it from where clients, resolvers and routers
// stand. One file is one scenario: faults and what is expected of them.
//
// # Words
//
//   - Lab: a running `rhumb lab` with a state directory and host ports of its own,
//     so that several run side by side. When its test ends, no process, namespace
//     or mount of it may be left; that is asserted every time.
//   - Agent: this test binary, started again inside a node of the lab. It asks
//     name servers or watches the kernel's routes there, and reports each event
//     with the time at which it was seen.
//   - Timeline: what happened when, and lanes of states (who answers, where a route
//     leads) drawn over the same seconds. Every test leaves one in bin/e2e, and a
//     failed one the lab's logs beside it.
//
// # Flow
//
// TestMain finds the binary (RHUMB_BIN, else it is built once), a test calls
// startLab, which returns at `lab ready`. Questions go to the host's listener
// (lab.ask) or are asked inside a node (lab.askIn); pollers and route watchers run
// until their test ends, and await waits for what they have seen. Scenarios whose
// limits are generous run side by side (t.Parallel), after those that need the
// machine for themselves.
package e2e
