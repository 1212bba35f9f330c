// Package forward takes packets of sessions owned elsewhere, and of broken paths, and tunnels them to a site which can use them.
//
// An anycast route that flips, or a site that drains, brings the packets of
// established TCP connections to a site which has never heard of them, and
// whose kernel answers with a reset. This package stands beside any server
// (stock nginx, HAProxy, our own) which listens on a wildcard address, with
// the VIP on the loopback device. It terminates nothing and the server isn't
// changed. If it dies, the kernel answers as if it had never been there.
//
// # Words
//
// A stray is a packet to a VIP whose connection isn't on this host. Its owner
// is the site which has the connection. The ingress is the site where the
// stray arrived. A flow is a client's address and port with a VIP's.
//
// # Flow of a packet
//
// One nftables table for each family (rules.go) finds strays in the kernel:
// neither a SYN, nor for a socket that is here. They are copied to the device
// rhumb0, read (inject.go, pump.go), and looked up in the table of owners, a
// pure state machine: owner.go judges strays, word.go what sites say of them,
// hold.go those of sessions that move. It asks, in this order:
//
//  1. its hints, what an owner said in the last 10 seconds;
//  2. announcements, digests of its flows that a leaving site sent ahead
//     (announce.go);
//  3. the other edges of this very site, behind one router (neighbour.go), and with
//     them the pair, the site which had this client, or its network, before;
//  4. the whole group at once.
//
// A site answers from one exact inet_diag request (diag.go), so never out of
// memory that could be stale. While a flow is undecided its packets wait.
// Then they go by the tunnel (tunnel.go, part.go, window.go: authenticated UDP
// between the sites' unicast addresses, peer.go) to the owner, which writes
// them to its own rhumb0 (receive.go). Its server answers the client directly:
// only what clients send makes the detour. What came by tunnel is never
// tunnelled again.
//
// # Broken paths
//
// A relay is a third site that passes on what is for a peer while the path to that
// is broken. SetHearing tells what the site's detector hears; peers tell each other
// by hellos (hello.go) whether they are heard and whether they relay. Out of both a
// pure state machine (way.go, ways.go, rank.go) decides who is reached by whom; a
// goroutine owns it (detour.go) and publishes a route for each peer, an immutable
// value. Who sends loads it; who relays (relay.go) checks hops, sender and budget
// and sends on what is inside as it came, sealed for the peer.
//
// # QUIC, ICMP
//
// A server's UDP socket is unconnected, so no socket tells whose a QUIC packet
// is. A set in nftables does (rules_quic.go): it learns a flow from the Initial
// packet of a connection, renews it with each packet, and answers asks
// (flowset.go). For as long as an idle connection lives, all flows are learnt
// after a start. Where the servers' connection ids name their site (quic.go),
// there is nothing to learn and nobody to ask.
//
// An ICMP error is treated as a packet of the session that it quotes
// (rules_icmp.go).
//
// # What is given back
//
// If nobody owns the flow, or there are more questions than 2,000 a second,
// the packet is given back by the device rhumb1, and the kernel judges it as
// without us. The third packet of a handshake with SYN cookies (RFC 4987
// section 3.6) belongs to no socket and takes the same way, until cookies are
// seen to be in use (cookies.go): then SYNs are remembered.
//
// # When the process dies
//
// The rules judge only VIPs that stand in a set, and its elements live 2
// seconds unless renewed. The devices are TUN, and stay for the next process; where /dev/net/tun may not be
// opened, as in a user namespace, virtual Ethernet pairs read by packet
// sockets.
//
// # What the host needs
//
// The VIP on the loopback device and a wildcard listener, such as nginx's
// "listen 443 ssl reuseport;". The uplink must let the VIP out as source while
// the site no longer announces it, for the owner goes on answering. A firewall
// of the host must let packets in by rhumb0 and rhumb1, and out by rhumb0,
// where copies of strays leave without a conntrack entry. Conntrack itself
// isn't in the way: strays are taken before it looks. The capabilities are
// CAP_NET_ADMIN and CAP_NET_RAW.
//
// # For those who move sessions
//
// In moves.go: Hold keeps a flow's packets here while its session is restored, Release
// gives them to the kernel, and Moved, at the site that gave the session away,
// sends after it what still arrives. OnForeign tells that a flow owned
// elsewhere arrives here.
//
// # Cost
//
// A download pays for the packets of its client only, which are few. An upload
// pays for everything: a system call at the ingress and one at the owner for each
// packet, and on its way between them those of many packets together, which the
// kernel carries as one (outbox.go). Tags and look-ups are small beside that.
// Sessions whose packets arrive where they belong pay for the rules alone.
//
// # Concurrency
//
// One goroutine reads strays, one reads the tunnel, one renews the rules, one
// drives what waits for time, one decides about relays. The table of owners and
// what is known of peers' answers are under one lock, which nobody holds while
// reading, writing or calling back. The lists of peers and VIPs are immutable,
// replaced whole.
//
// # Bounds
//
// TCP and QUIC over IPv4 and IPv6. Left to the kernel, as if this package
// weren't there: other UDP, fragments, and ICMP errors about QUIC whose owner is
// found by connection id: the packet they quote has the client's. An Initial
// packet repeated after a flip begins a second handshake; the client's timeout
// mends it. A TCP server's listener must be a wildcard: the kernel can't tell
// one bound to the VIP from a session. The wall clock must not be set back while
// the process is down for a moment, or peers refuse its datagrams as replays
// until the clock has caught up.
package forward
