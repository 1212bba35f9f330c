package geo

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readRoutes(data []byte) (*Routes, error) {
	b := newRoutesBuilder()
	if err := b.read("rib", bytes.NewReader(data)); err != nil {
		return nil, err
	}
	return b.build(), nil
}

func mustRoutes(t testing.TB, do func(w *mrtWriter)) *Routes {
	t.Helper()
	r, err := readRoutes(written(do))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMRT(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(w *mrtWriter)
		addr  string
		want  Cluster
		match string // empty: no match
	}{
		{"IPv4 (RFC 6396 4.3.2)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501, 64502, 64503)})
		}, "192.0.2.9", Cluster{64503, 64502}, "192.0.2.0/24"},
		{"IPv6 (RFC 6396 4.3.2)", func(w *mrtWriter) {
			w.route(ribIPv6, "2001:db8::/32", entry{3, path(64501, 64504)})
		}, "2001:db8:1::", Cluster{64504, 64501}, "2001:db8::/32"},
		{"IPv4 with Add-Path (RFC 8050 4.1)", func(w *mrtWriter) {
			w.route(ribIPv4AddPath, "192.0.2.0/24", entry{0, path(64501, 64503)}, entry{0, path(64502, 64503)}, entry{0, path(64502, 64503)})
		}, "192.0.2.9", Cluster{64503, 64502}, "192.0.2.0/24"},
		{"IPv6 with Add-Path (RFC 8050 4.1)", func(w *mrtWriter) {
			w.route(ribIPv6AddPath, "2001:db8::/48", entry{1, path(64503)})
		}, "2001:db8::1", Cluster{64503, 0}, "2001:db8::/48"},
		{"multicast and generic are passed over (RFC 6396 4.3.3)", func(w *mrtWriter) {
			for _, subtype := range []uint16{3, 5, 6, 7, 9, 11, 12} {
				w.record(mrtTableDumpV2, subtype, []byte{1, 2, 3})
			}
			w.record(16, 4, []byte{1}) // BGP4MP
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501)})
		}, "192.0.2.0", Cluster{64501, 0}, "192.0.2.0/24"},
		{"prepended (RFC 4271 5.1.2)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501, 64501, 64503, 64503, 64503)})
		}, "192.0.2.0", Cluster{64503, 64501}, "192.0.2.0/24"},
		{"most peers decide the origin, then the neighbour", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64509, 64508)}, entry{1, path(64501, 64503)},
				entry{2, path(64502, 64503)}, entry{3, path(64500, 64502, 64503)})
		}, "192.0.2.0", Cluster{64503, 64502}, "192.0.2.0/24"},
		{"a tie goes to the lower AS", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501, 64508)}, entry{1, path(64501, 64503)})
		}, "192.0.2.0", Cluster{64503, 64501}, "192.0.2.0/24"},
		{"an aggregate belongs to its maker (RFC 4271 9.2.2.2)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, pathOf(segment(2, 64501, 64502), segment(1, 64508, 64509))})
		}, "192.0.2.0", Cluster{64502, 64501}, "192.0.2.0/24"},
		{"members of a confederation are no hops (RFC 5065 5.3)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, pathOf(segment(3, 64508), segment(2, 64502, 64503), segment(4, 64509))})
		}, "192.0.2.0", Cluster{64503, 64502}, "192.0.2.0/24"},
		{"attribute with two octets of length (RFC 4271 4.3)", func(w *mrtWriter) {
			s := segment(2, 64501)
			w.route(ribIPv4, "192.0.2.0/24", entry{0, append([]byte{0x50, 2, 0, byte(len(s))}, s...)})
		}, "192.0.2.0", Cluster{64501, 0}, "192.0.2.0/24"},
		{"a route of our own has no path", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, pathOf()}, entry{1, nil})
		}, "192.0.2.0", Cluster{}, "192.0.2.0/24"},
		{"AS 0 is nobody (RFC 7607)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501, 0)}, entry{1, path(64501, 64503)})
		}, "192.0.2.0", Cluster{64503, 64501}, "192.0.2.0/24"},
		{"bits behind the prefix are irrelevant (RFC 6396 4.3.2)", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.255/22", entry{0, path(64501)})
		}, "192.0.1.0", Cluster{64501, 0}, "192.0.0.0/22"},
		{"withdrawn everywhere: no entries", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24")
			w.route(ribIPv4, "198.51.100.0/24", entry{0, path(64501)})
		}, "192.0.2.0", Cluster{}, ""},
		{"a default route is no cluster", func(w *mrtWriter) {
			w.route(ribIPv4, "0.0.0.0/0", entry{0, path(64501)})
			w.route(ribIPv4, "198.51.100.0/24", entry{0, path(64501)})
		}, "192.0.2.0", Cluster{}, ""},
		{"the last of equal prefixes counts", func(w *mrtWriter) {
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501)})
			w.route(ribIPv4, "198.51.100.0/24", entry{0, path(64502)})
			w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64500)})
		}, "192.0.2.0", Cluster{64500, 0}, "192.0.2.0/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, match, ok := mustRoutes(t, c.write).Lookup(netip.MustParseAddr(c.addr))
			if got != c.want || ok != (c.match != "") || ok && match.String() != c.match {
				t.Errorf("Lookup(%s) = %+v %s %v, want %+v %s", c.addr, got, match, ok, c.want, c.match)
			}
		})
	}
}

// Each error names the record and where it begins.
func TestMRTErrors(t *testing.T) {
	head := len(written(func(*mrtWriter) {}))
	good := func(w *mrtWriter) { w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501)}) }
	second := len(written(good))
	rib := func(body ...byte) func(w *mrtWriter) {
		return func(w *mrtWriter) { good(w); w.record(mrtTableDumpV2, ribIPv4, body) }
	}
	for _, c := range []struct {
		name   string
		data   []byte
		record int
		offset int
		want   string
	}{
		{"cut in a header", written(good)[:head+5], 2, head, "header: unexpected EOF"},
		{"cut in a body", written(good)[:second-1], 2, head, "body of"},
		{"length beyond reason", append(written(good), 0, 0, 0, 0, 0, 13, 0, 2, 0xff, 0, 0, 0), 3, second, "length 4278190080"},
		{"prefix too long", written(rib(0, 0, 0, 0, 33)), 3, second, "prefix length 33 of at most 32"},
		{"no entry count", written(rib(0, 0, 0, 0, 8, 192)), 3, second, "record too short"},
		{"entry cut", written(rib(0, 0, 0, 0, 8, 192, 0, 1, 0, 0)), 3, second, "entry 1 of 1: record too short"},
		{"unknown peer", written(rib(0, 0, 0, 0, 8, 192, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0)), 3, second, "peer 4 of 4"},
		{"octets left over", written(rib(0, 0, 0, 0, 8, 192, 0, 0, 7)), 3, second, "1 octets behind"},
		{"attribute too long", written(rib(0, 0, 0, 0, 8, 192, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0x40, 2, 9)), 3, second, "attribute 2: longer"},
		{"segment too long", written(rib(0, 0, 0, 0, 8, 192, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0x40, 2, 2, 2, 1)), 3, second, "AS path: segment of type 2"},
		{"segment of no type", written(rib(0, 0, 0, 0, 8, 192, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0x40, 2, 2, 5, 0)), 3, second, "AS path: segment of type 5"},
		{"a route before the peers", written(good)[head:], 1, 0, "before the peer index"},
		{"peer cut", written(func(w *mrtWriter) { w.record(mrtTableDumpV2, ribPeers, []byte{0, 0, 0, 0, 0, 0, 0, 1, 2}) }), 2, head, "peer 1 of 1"},
		{"damaged gzip", []byte{0x1f, 0x8b, 0, 0}, 1, 0, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readRoutes(c.data)
			var at *MRTError
			if !errors.As(err, &at) || at.File != "rib" || at.Record != c.record || at.Offset != int64(c.offset) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want record %d at byte %d: %s", err, c.record, c.offset, c.want)
			}
		})
	}
	t.Run("nothing of use", func(t *testing.T) {
		for _, data := range [][]byte{nil, written(func(*mrtWriter) {})} {
			if _, err := readRoutes(data); err == nil || !strings.Contains(err.Error(), "no route of IPv4 or IPv6") {
				t.Errorf("got %v", err)
			}
		}
	})
}

// bzipped is the table of oneRoute as bzip2 -9 writes it.
const bzipped = "425a68393141592653591fcfbd6f0000357fccfcb200404010080040000c100620018040000048410026882000741a146234d03d40d0da40d329320000d0d342d884d02f7a6902c9c4cee465d3e0c3b21115c420d82a36d43a6f7d924da16bccef744c08188830a88c45c2780da64493951b2b9ab30b8e02ba285a8f813dc607e2ee48a70a1203f9f7ade0"

func oneRoute(w *mrtWriter) { w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501, 64503)}) }

func TestMRTCompressed(t *testing.T) {
	plain := written(oneRoute)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write(plain)
	_ = zw.Close()
	bz, err := hex.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(), "bzip2": bz} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenRoutes([]string{file})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c, _, ok := r.Lookup(netip.MustParseAddr("192.0.2.1")); !ok || c != (Cluster{64503, 64501}) {
			t.Errorf("%s: %+v %v", name, c, ok)
		}
		if got := r.Time().Unix(); got != 1_700_000_000 {
			t.Errorf("%s: time %d", name, got)
		}
	}
	if _, err := OpenRoutes([]string{filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := OpenRoutes(nil); err == nil {
		t.Error("no files: no error")
	}
}

// Whatever the octets are, reading ends, and what was read is a table: each
// stretch begins behind the one before it and is found again.
func FuzzMRT(f *testing.F) {
	f.Add(written(oneRoute))
	f.Add(written(func(w *mrtWriter) {
		w.route(ribIPv6AddPath, "2001:db8::/32", entry{1, path(64501, 64503)}, entry{2, pathOf(segment(1, 64500))})
		w.route(ribIPv6, "2001:db8::1/128", entry{1, path(64501)})
		w.route(ribIPv4, "192.0.2.0/24", entry{0, path(64501)})
		w.route(ribIPv4, "0.0.0.0/1", entry{0, path(64502)})
		w.route(ribIPv4, "192.0.2.128/25")
		w.record(16, 4, []byte{1})
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readRoutes(data)
		if err != nil {
			if r != nil {
				t.Error("an error and a table")
			}
			return
		}
		if r.Len() == 0 && len(r.v4.list)+len(r.v6.list) != 2 {
			t.Error("no routes, yet stretches")
		}
		r.each(func(s stretch) {
			if s.last.less(s.first) {
				t.Fatalf("stretch from %v to %v", s.first, s.last)
			}
			for _, p := range []point{s.first, s.last} {
				a := p.prefix(128, false).Addr()
				if s.v4 {
					a = p.prefix(32, true).Addr()
				} else if a.Is4In6() {
					continue // is looked up as IPv4
				}
				c, match, ok := r.Lookup(a)
				if ok != (s.bits > 0) || ok && (c != s.cluster || match.Bits() != s.bits || !match.Contains(a)) {
					t.Fatalf("%s: %+v %s %v, want %+v", a, c, match, ok, s)
				}
			}
		})
	})
}

// testdata/bird.mrt was written by BIRD 2.0.12: two tables, each with its own peer
// index.
func TestBirdsFile(t *testing.T) {
	r, err := OpenRoutes([]string{"testdata/bird.mrt"})
	if err != nil {
		t.Fatal(err)
	}
	checkBird(t, r)
}

func checkBird(t *testing.T, r *Routes) {
	t.Helper()
	for addr, want := range map[string]Cluster{
		"192.0.2.1": {64503, 64501}, "198.51.100.1": {64503, 64501}, "2001:db8::1": {64504, 0}} {
		if got, match, ok := r.Lookup(netip.MustParseAddr(addr)); !ok || got != want {
			t.Errorf("%s: %+v by %s, want %+v", addr, got, match, want)
		}
	}
	if r.Len() != 3 {
		t.Errorf("%d routes, want 3", r.Len())
	}
}
