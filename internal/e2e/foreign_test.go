//go:build e2e

package e2e

import "testing"

// foreignPeers puts every stock daemon into the lab: a BIRD, an FRR and our own
// router; Unbound and kresd as resolvers; nginx as web server.
func foreignPeers() []string {
	return []string{"--router", "t-eu=bird", "--router", "t-us=frr",
		"--resolver", "res-eu=unbound", "--resolver", "res-us=kresd", "--resolver", "res-ap=unbound", "--origin", "nginx"}
}

func TestE2EResolvers(t *testing.T) {
	l := startLab(t, foreignPeers()...)
	_ = l
}
