// Package vip lets several nodes of a site share addresses without a router: one of them answers, by a lease.
//
// Where a site has a router, it spreads clients over the nodes by equal-cost routes, and this
// package is not needed. Where it has only a switch, the nodes share addresses
// (VIPs). One node owns them. When it dies another one owns them a fifth of a second
// later, and tells the neighbours by a gratuitous ARP and an unsolicited neighbour
// advertisement. Two never answer at once.
//
// # Words
//
// A lease is a set of addresses with one owner at a time. The members are the nodes that
// vote; three at least. A grant is a member's word that until some moment it will grant the
// lease to nobody else. The fence is what keeps a host silent that is not the owner.
//
// # Flow
//
// A member that finds the lease free asks all others for it (lease.go). With the grants of more
// than half of them it is the owner for the length of the lease, less a margin,
// counted from when it asked. It asks anew every 45 ms; a grant lasts 180 ms. Members
// that have granted say no to everybody else (grantor.go), so nobody can take what
// is still in force, whoever is cut off, stopped, or thought to be dead. A
// member that was started anew grants nothing for the length of a lease, since the process
// before it may have.
//
// No two clocks are compared. What counts is only that none runs faster than
// another one by more than margin to length, a twelfth.
//
// # The fence
//
// An owner that is stopped does not know that its time is over. So the permission is not its own but
// the kernel's: rules (fence.go, match.go) drop ARP requests for the addresses, neighbour
// solicitations, packets to and from them, and announcements, unless
// a set holds the present moment. The owner writes the moments of the lease into it, as slots of the
// wall clock, 16.8 ms each. If it stands still they pass; and if it was
// stopped between deciding and writing, then it writes slots that have passed. Each
// element also ends by a timeout, on a clock that nobody can set.
//
// The addresses themselves live for 3 seconds unless renewed, in case somebody flushes the
// rules just when the process stands still. Rules that were flushed come back within half a
// second.
//
// When the process ends, the rules stay and the host is silent; Forget removes them.
//
// # What the host needs
//
// CAP_NET_ADMIN and CAP_NET_RAW, Linux 5.16, a device on the segment, and a wildcard listener of
// the server. The addresses stand on that device while the lease is ours. They may stand on
// another device of the host for good; the fence silences them there too.
//
// # Bounds
//
// A virtual machine that is suspended as a whole, clocks included, cannot know of it: for what was left of
// the permission, a sixth of a second at most, it answers when it goes on. Two
// members alone cannot share a lease: a third one, which may serve nothing, has to vote.
// Established connections end with the owner: the next one does not know them.
//
// # Concurrency
//
// One goroutine drives all leases of a node and is the only one that touches the kernel.
// The machine of a lease (lease.go) is pure: time and messages in, steps out.
package vip
