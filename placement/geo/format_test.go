package geo

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// samples are tables which use every corner of the stored form.
func samples(t testing.TB) map[string]*Table {
	full, err := Compile(Info{Name: "n", Licence: "l", Attribution: "a", BuildTime: time.Unix(1_700_000_000, 0).UTC()},
		seq(network{"0.0.0.0/0", located("NL")}, network{"0.0.0.0/32", located("DE")},
			network{"192.0.2.0/24", located("AU")}, network{"255.255.255.255/32", located("DE")},
			network{"::/0", located("BR")}, network{"2001:db8::/32", located("JP")}, network{"2001:db8::8000:0/97", located("NL")},
			network{"2001:db8::1:0:0/128", located("AU")}, network{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", located("DE")}))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Table{"empty": mustCompile(t), "full": full}
}

func encoded(t testing.TB, table *Table) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := table.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for name, table := range samples(t) {
		got, err := Decode(bytes.NewReader(encoded(t, table)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Digest() != table.Digest() || !slices.Equal(dump(got), dump(table)) {
			t.Errorf("%s: got %q, want %q", name, dump(got), dump(table))
		}
		if name == "full" && got.Info() != table.Info() {
			t.Errorf("info %+v, want %+v", got.Info(), table.Info())
		}
	}
}

func unzip(t testing.TB, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func zip(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Nothing cut short is accepted, and no altered content under the old digest.
func TestDecodeRefusesDamage(t *testing.T) {
	table := samples(t)["full"]
	raw := unzip(t, encoded(t, table))
	for n := range raw {
		if _, err := Decode(bytes.NewReader(zip(t, raw[:n]))); err == nil {
			t.Fatalf("accepted the first %d of %d bytes", n, len(raw))
		}
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x11
		got, err := Decode(bytes.NewReader(zip(t, bad)))
		if err == nil && got.Digest() != table.Digest() {
			t.Fatalf("byte %d altered: accepted as %s", i, got.Digest())
		}
	}
	if _, err := Decode(strings.NewReader("plain text")); err == nil {
		t.Error("accepted what is not gzip")
	}
}

func FuzzDecode(f *testing.F) {
	for _, table := range samples(f) {
		f.Add(unzip(f, encoded(f, table)))
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		table, err := Decode(bytes.NewReader(zip(t, raw)))
		if err != nil {
			return
		}
		again, err := Decode(bytes.NewReader(encoded(t, table)))
		if err != nil || again.Digest() != table.Digest() {
			t.Fatalf("accepted, but does not survive a round trip: %v", err)
		}
	})
}

func TestDefault(t *testing.T) {
	table, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if got := largest(table, 6); !slices.Contains(got, "US") || !slices.Contains(got, "CN") || !slices.Contains(got, "JP") || !slices.Contains(got, "DE") {
		t.Errorf("countries with most IPv4 addresses are %q, want US, CN, JP and DE among them", got)
	}
	if _, ok := table.Location(netip.MustParseAddr("192.0.2.1")); ok {
		t.Error("a documentation address has a location")
	}
	i := table.Info()
	if table.Len() < 300_000 || len(table.Locations()) < 200 || i.Attribution == "" || i.Licence == "" || i.BuildTime.IsZero() {
		t.Errorf("%d prefixes, %d classes, info %+v", table.Len(), len(table.Locations()), i)
	}
	const want = "4a08f5c58f90d4d8f441c062d906ff235987346fdd8b1472aa14c6a3ba97aa38"
	if table.Digest() != want {
		t.Errorf("digest %s, want %s as SOURCES.md has it", table.Digest(), want)
	}
}

// largest names the n countries that hold most of IPv4.
func largest(table *Table, n int) []string {
	size, at := map[string]int{}, table.Locations()
	for p, id := range table.Entries() {
		if p.Addr().Is4() {
			size[at[id].Country] += 1 << (32 - p.Bits())
		}
	}
	list := slices.SortedFunc(maps.Keys(size), func(a, b string) int { return size[b] - size[a] })
	return list[:n]
}

func BenchmarkDefault(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Default(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWith(b *testing.B) {
	table, err := Default()
	if err != nil {
		b.Fatal(err)
	}
	overrides := []Override{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Location: located("NL")}, {Prefix: netip.MustParsePrefix("2001:db8::/32"), Location: located("AU")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := table.With(overrides); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClass(b *testing.B) {
	table, err := Default()
	if err != nil {
		b.Fatal(err)
	}
	for _, addr := range []string{"193.0.6.139", "2a01:e00::1"} {
		a := netip.MustParseAddr(addr)
		b.Run(addr, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Class(a)
			}
		})
	}
}

func BenchmarkFold(b *testing.B) {
	table, err := Default()
	if err != nil {
		b.Fatal(err)
	}
	label := make([]uint32, len(table.Locations()))
	for i := range label {
		label[i] = uint32(i % 12)
	}
	for b.Loop() {
		table.Prefixes().Fold(label, 99)
	}
}
