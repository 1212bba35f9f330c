package main

import (
	"path/filepath"

	"rhumb/bgp/rpki"
)

// addRPKI follows the VRPs by which the speaker's origins are judged. What is announced
// is remembered without them, too: who begins to judge must not lose a prefix by it.
func addRPKI(u *unit) {
	var err error
	if u.known, err = rpki.OpenKnown(filepath.Join(u.cfg.Node.DataDir, "announced.json")); err != nil {
		u.log.Warn("bgp: what was announced before is not known; every origin is judged as new", "err", err)
	}
	r := &u.cfg.BGP.RPKI
	if !r.On() {
		return
	}
	u.vrps = rpki.NewSource(rpki.Config{File: r.File, Caches: r.RTR, MaxAge: r.MaxAge.D(), Logger: u.log})
	u.add("rpki", u.vrps.Run)
}
