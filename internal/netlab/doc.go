// Package netlab builds a small internet from network namespaces and breaks it on request.
//
// It exists so that Rhumb can be run, watched and tested on one machine with
// real packets, real ports and real kernel routing tables, and with nothing
// installed: every interface, address and route is made by netlink, every
// filter by nftables' netlink messages, every mount by a system call.
//
// # Words
//
//   - Topology: what is wanted, as values: Nodes, the Links between them, the
//     addresses at both Ends, the static routes. Lab declares the one that
//     "rhumb lab" runs.
//   - Net: a Topology that was built. Host: one built Node, which is a network
//     namespace and a mount namespace held by a thread of this process, so that
//     both vanish with it and nothing appears under /run/netns.
//   - Line: a Link with delay, loss, jitter, reordering or a rate. Its two ends
//     meet in a hidden namespace where a forwarder on packet sockets holds each
//     frame until it is due; the kernel's netem is not needed.
//   - Fault: something broken on request (kill, cut, slow, flap, loss, mute,
//     blackhole) and everything needed to undo it.
//   - FIB: the routes that one owner keeps in a Host's kernel table.
//   - Resolver: a caching iterative resolver which behaves as those that clients
//     use, down to what hurts: it does not ask the parent again while an NS set
//     lives, and it believes the child's own NS set more than the parent's.
//   - Control: the socket through which another process asks a running lab to
//     run a program inside a Host, or to break and heal it.
//
// # Flow
//
// The outer process opens the listeners it wants on the real machine and calls
// Reexec.Run, which starts the same program again in a new user (unless
// privileged), network, mount and PID namespace. Inside, Enter mounts /proc,
// becomes the first process and starts the worker; whichever of them dies, the
// kernel takes everything below with it. The worker calls Build on a Topology
// and then uses Hosts: Start runs programs in them, Do, Listen and Dial open
// sockets in them. Close, or the end of the process in any manner, leaves no
// process, namespace or mount behind.
//
// Netlab knows nothing of placement, BGP or DNS policy: what meets the lab's
// routers and sites is started in them by its caller.
package netlab
