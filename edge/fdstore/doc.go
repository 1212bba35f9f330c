// Package fdstore holds the sockets of sessions in a process of its own, so that the kernel ends none when the one that serves them dies.
//
// A connection ends when the last descriptor of its socket is closed. The agent gives the
// store a second one of each session that is worth it. When the agent dies the kernel goes on
// with all of them by itself: it sends what it was given, acknowledges what comes, and knows
// to the octet where each stands. The next process takes them over and writes on.
//
// # Words
//
//   - Store: the process that holds descriptors and does nothing with them.
//   - Flow: the name of a descriptor, its connection's two ends.
//   - Kept: a descriptor that the store has.
//
// # Flow
//
// The agent connects to the store's socket (unix, SOCK_SEQPACKET). If nobody is there it
// starts one, which is given the listening socket, so that nobody waits for it. What is kept
// when an agent connects is from one that died: it is given to the new one, and stays in the
// store, which that may need itself.
//
// While no agent is connected the store waits for Patience, and then ends: the kernel
// says so to the clients. An agent that ends in order tells it to end. One store has one
// agent, the last that connected.
//
// # Concurrency
//
// A Client is safe for concurrent use. The store is one goroutine.
package fdstore
