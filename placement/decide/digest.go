package decide

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strings"

	"rhumb/placement"
)

// digester writes a snapshot in one canonical form: numbers big-endian, texts
// and lists with their length in front. Names, times and causes are left out:
// they differ between states which act alike.
type digester struct {
	s        *placement.Snapshot
	services []serviceDigest
	buf      []byte
}

type serviceDigest struct {
	name string
	sum  [32]byte
}

func newDigester(s *placement.Snapshot) *digester { return &digester{s: s} }

func (d *digester) number(n int) { d.buf = binary.BigEndian.AppendUint64(d.buf, uint64(n)) }

func (d *digester) text(t string) {
	d.number(len(t))
	d.buf = append(d.buf, t...)
}

func (d *digester) flag(b bool) {
	if b {
		d.buf = append(d.buf, 1)
		return
	}
	d.buf = append(d.buf, 0)
}

// rows digests the decisions for all classes.
func (d *digester) rows(rows []*placement.Row) [32]byte {
	h := sha256.New()
	buf := make([]byte, 0, 1<<16)
	for _, r := range rows {
		buf = appendRow(buf, r)
		if len(buf) > 1<<15 {
			buf = flush(h, buf)
		}
	}
	flush(h, buf)
	return [32]byte(h.Sum(nil))
}

func flush(h hash.Hash, buf []byte) []byte {
	h.Write(buf)
	return buf[:0]
}

func appendRow(buf []byte, r *placement.Row) []byte {
	open := byte(0)
	if r.FailOpen {
		open = 1
	}
	buf = append(buf, open)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(r.Candidates)))
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(r.Shares)))
	for _, c := range r.Candidates {
		buf = binary.BigEndian.AppendUint16(buf, c.Cluster)
		buf = append(buf, c.Tier, byte(c.Out))
		buf = binary.BigEndian.AppendUint32(buf, uint32(c.Cost))
	}
	for _, s := range r.Shares {
		buf = binary.BigEndian.AppendUint16(buf, s.Candidate)
		buf = binary.BigEndian.AppendUint16(buf, s.Upto)
	}
	for _, e := range r.Extras {
		buf = binary.BigEndian.AppendUint16(buf, e.Candidate)
		buf = binary.BigEndian.AppendUint16(buf, e.Upto)
	}
	return buf
}

// service notes a map by the digest of its rows.
func (d *digester) service(m *placement.ServiceMap, rows [32]byte) {
	sub := digester{}
	sub.text(m.Service.Name)
	sub.text(m.Policy.Name)
	sub.number(len(m.Clusters))
	for _, c := range m.Clusters {
		sub.text(c.String())
	}
	sub.buf = append(sub.buf, rows[:]...)
	d.services = append(d.services, serviceDigest{m.Service.Name, sha256.Sum256(sub.buf)})
}

// sum digests the whole snapshot.
func (d *digester) sum() string {
	d.number(d.s.Plan.Inputs.Algorithm)
	d.number(int(d.s.Plan.Inputs.Inventory))
	d.text(d.s.Plan.Inputs.ClassTable)
	slices.SortFunc(d.services, func(a, b serviceDigest) int { return strings.Compare(a.name, b.name) })
	d.number(len(d.services))
	for _, s := range d.services {
		d.buf = append(d.buf, s.sum[:]...)
	}
	d.verdicts()
	d.routes()
	d.number(len(d.s.Backups))
	for _, b := range d.s.Backups {
		d.text(b.Site)
		d.texts(b.Order)
		d.number(int(b.Epoch))
	}
	d.number(len(d.s.Alarms))
	for _, a := range d.s.Alarms {
		d.text(a.Kind)
		d.text(a.Object)
	}
	sum := sha256.Sum256(d.buf)
	return hex.EncodeToString(sum[:])
}

func (d *digester) texts(list []string) {
	d.number(len(list))
	for _, t := range list {
		d.text(t)
	}
}

func (d *digester) verdicts() {
	d.number(len(d.s.Verdicts))
	for _, v := range d.s.Verdicts {
		d.text(v.Object.String())
		d.text(string(v.Force))
		d.text(string(v.Fault))
		d.buf = append(d.buf, byte(v.State), byte(v.Own), byte(v.DownDomains), byte(v.Domains))
		d.flag(v.Capped)
	}
}

func (d *digester) routes() {
	d.number(len(d.s.Announcements))
	for _, a := range d.s.Announcements {
		d.text(a.Prefix.String())
		d.text(a.Site)
		d.text(string(a.Fault))
		d.text(string(a.Mode))
		d.buf = append(d.buf, byte(a.Want))
		d.flag(a.Intent)
	}
	d.number(len(d.s.Anchors))
	for _, a := range d.s.Anchors {
		d.text(a.Prefix.String())
		d.texts(a.Sites)
	}
}
