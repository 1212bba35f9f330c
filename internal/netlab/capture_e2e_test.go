//go:build e2e

package netlab

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

func TestCapture(t *testing.T) {
	n := build(t, forkTopologyPlain())
	echo(t, n, "site")
	path := filepath.Join(t.TempDir(), "site.pcap")
	c, err := mustHost(t, n, "site").Capture("router", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range n.Topology.Addresses("site") {
		if got := roundTrip(t, mustHost(t, n, "router"), a); got != "site" {
			t.Fatalf("%s answered %q", a, got)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames := pcapFrames(t, file)
	for _, want := range []string{"who", "site"} {
		count := 0
		for _, f := range frames {
			if bytes.HasSuffix(bytes.TrimRight(f, "\x00"), []byte(want)) {
				count++
			}
		}
		if count != 2 {
			t.Errorf("%d frames of %d carry %q, want one in each family", count, len(frames), want)
		}
	}
}

// forkTopologyPlain is forkTopology without loss.
func forkTopologyPlain() Topology {
	topo := forkTopology()
	topo.Links[0].Impair = Impairment{}
	return topo
}

func pcapFrames(t *testing.T, file []byte) (frames [][]byte) {
	t.Helper()
	for rest := file[24:]; len(rest) > 0; {
		kept := binary.LittleEndian.Uint32(rest[8:])
		if len(rest) < int(16+kept) {
			t.Fatal("the last frame is cut off")
		}
		frames = append(frames, rest[16:16+kept])
		rest = rest[16+kept:]
	}
	return frames
}
