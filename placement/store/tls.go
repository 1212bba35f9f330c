package store

import (
	"crypto/tls"
	"errors"
	"time"
)

// TLSMode says what of the store's traffic is encrypted.
type TLSMode string

// The modes. Members and clients of one cluster need not have the same: only Off does
// not get on with a cluster that is closed to clear connections.
const (
	// TLSOff speaks in clear alone. Under it a member listens as etcd itself does.
	TLSOff TLSMode = "off"
	// TLSAllow speaks both. A cluster goes back to clear when all members say so.
	TLSAllow TLSMode = "allow"
	// TLSAuto speaks both until every node can do TLS, and then TLS alone. A new
	// cluster begins with TLS.
	TLSAuto TLSMode = "auto"
	// TLSRequire never speaks in clear, and refuses to begin where it would have to.
	TLSRequire TLSMode = "require"
)

// TLSFiles are the PEM files with which etcd itself dials the other members; it reads
// them anew for every connection. Each member's certificate bears Name.
type TLSFiles struct {
	Cert, Key, CA, Name string
}

// MemberTLS guards the two ports of a member.
type MemberTLS struct {
	Mode TLSMode
	// Peers and Clients are what the ports for members and for clients are served with.
	// Both must demand and verify certificates. Their VerifyConnection is asked again
	// every few seconds while a connection stands, so that revoking one ends it.
	Peers, Clients *tls.Config
	// Lacks is why this node has no pair to show. Without one a member stays in clear, as
	// long as the others do.
	Lacks error
	// Dial are the files for connections to the other members.
	Dial TLSFiles
	// Ready tells whether every node of the fleet can follow, if the members go over
	// to TLS (or, with false, back), and what is missing. nil: they all can.
	Ready func(tls bool) (ok bool, missing string)
	// Settle is how long all must have been ready before the first member goes over.
	// Within it a node can be rolled back without further ado. 0: ten minutes.
	Settle time.Duration

	pace time.Duration // of looks at the membership; 0: gatePace
	asks time.Duration // how long a member that joins waits for the others; 0: joinTime
}

// lacks returns why a member cannot speak TLS; nil: it can.
func (m *MemberTLS) lacks() error {
	if m == nil || m.Mode == TLSOff {
		return errors.New("TLS is off here; say allow at every member first, and wait until none does")
	}
	return m.Lacks
}

// ClientTLS guards the connections of a client.
type ClientTLS struct {
	Mode TLSMode
	// Config verifies that the other side is a member, and shows a certificate.
	Config *tls.Config
	// Marker is a file which remembers that the cluster is closed to clear
	// connections: from then on nobody on the way can talk this client out of TLS.
	Marker string
}

// settleTime is the default of MemberTLS.Settle.
const settleTime = 10 * time.Minute
