package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"rhumb/etc"
	"rhumb/internal/config"
	"rhumb/internal/netlab"
)

// labDir is the state of a lab on disk: what a fleet of real machines would have
// in /etc/rhumb and /var/lib/rhumb, side by side in one directory.
type labDir string

func (d labDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d labDir) control() string             { return d.path("control.sock") }
func (d labDir) log() string                 { return d.path("rhumb.log") }
func (d labDir) nodeFile(site string) string { return d.path("sites", site, "node.yaml") }
func (d labDir) fleetFile() string           { return d.path("fleet", "fleet.yaml") }
func (d labDir) content() string             { return d.path("srv", "vod") }
func (d labDir) console() string             { return d.path("console", "node.yaml") }
func (d labDir) routerFile(n string) string  { return d.path("routers", n+".json") }

// bigFile is the size of the lab's download; at 1 MB/s it lasts a minute.
const bigFile = 64 << 20

// write lays down every file that the lab's processes read. Identities, content
// and an edited fleet are kept from the last run; the etcd data is not, because
// its members' clocks and leases mean nothing after a pause.
func (d labDir) write(topo netlab.Topology) error {
	for _, site := range labSites(topo) {
		if err := errors.Join(os.RemoveAll(d.path("sites", site, "data")), os.RemoveAll(d.path("sites", site, "run"))); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	steps := []func(netlab.Topology) error{d.writeIdentities, d.writeFleet, d.writeContent, d.writeNodes, d.writeRouters}
	for _, step := range steps {
		if err := step(topo); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// writeIdentities makes a group and an identity for each site, once: the fleet file,
// which the operator may have changed, names their certificates.
func (d labDir) writeIdentities(topo netlab.Topology) error {
	if _, err := os.Stat(d.path("group", "group.key")); err == nil {
		return d.writeStorePairs(topo)
	}
	if err := config.InitGroup(d.path("group"), time.Now()); err != nil {
		return err
	}
	for _, site := range append(labSites(topo), netlab.OpsName) {
		if err := config.JoinGroup(d.path("group"), site, d.path("sites", site, "identity"), time.Now()); err != nil {
			return err
		}
	}
	return d.writeStorePairs(topo)
}

// writeStorePairs makes the pairs by which the members of the store meet, where an
// identity holds none yet.
func (d labDir) writeStorePairs(topo netlab.Topology) error {
	for _, site := range labSites(topo) {
		dir := d.path("sites", site, "identity")
		if _, err := os.Stat(filepath.Join(dir, "store.crt")); err == nil {
			continue
		}
		if err := config.JoinStore(d.path("group"), site, dir, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// writeFleet copies the fleet once, so that a newcomer can change it; what is
// local to this machine (paths) is filled in.
func (d labDir) writeFleet(topo netlab.Topology) error {
	if _, err := os.Stat(d.fleetFile()); err == nil {
		return nil
	}
	err := fs.WalkDir(etc.Lab, "lab", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := etc.Lab.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(b), "/srv/vod", strconv.Quote(d.content())) // a path may hold a comma
		for _, site := range labSites(topo) {
			text = strings.Replace(text, "\n  "+site+":\n", "\n  "+site+":\n    identity: "+strconv.Quote(d.path("sites", site, "identity", "site.crt"))+"\n", 1)
		}
		return writeFile(d.path(strings.TrimPrefix(path, "lab/")), text)
	})
	return err
}

// writeContent makes the files that the lab's clients download, the same bytes
// in every lab, with their digests beside them.
func (d labDir) writeContent(netlab.Topology) error {
	big := d.path("srv", "vod", "big.bin")
	if st, err := os.Stat(big); err == nil && st.Size() == bigFile {
		return nil
	}
	data := make([]byte, bigFile)
	seed := [32]byte{'r', 'h', 'u', 'm', 'b'}
	rand.NewChaCha8(seed).Read(data)
	sum := sha256.Sum256(data)
	return errors.Join(writeFile(big, string(data)),
		writeFile(d.path("srv", "vod", "healthz"), "ok\n"),
		writeFile(d.path("srv", "vod", "index.html"), "<!doctype html><title>lab</title><p>A site of the lab.\n"),
		writeFile(d.path("srv", "vod", "SHA256SUMS"), hex.EncodeToString(sum[:])+"  big.bin\n"))
}

// labNode is what a node file needs to know of its place in the topology.
type labNode struct {
	Name, Site, Router string
	Own                []netip.Addr
	Members            []labMember
	Peers              []labPeer
	ASN, MarkerASN     uint32
	Identity           string // of the console
}

// labMember is a node that carries a member of the embedded etcd.
type labMember struct {
	Name string
	Addr netip.Addr
}

// labPeer is a BGP neighbour, in node files and in those of the routers.
type labPeer struct {
	Addr netip.Addr
	ASN  uint32
	BFD  bool // one end is a site
	// BFDPort is another port than that of BFD for neighbours on a link; FRR beside
	// ttl-security speaks RFC 5883's.
	BFDPort uint16 `json:",omitempty"`
}

const labNodeFile = `# One site of the lab; made anew at every start.
version: 1
node: {name: {{.Name}}, site: {{.Site}}, roles: [placement, authdns, bgp, health, edge], data_dir: data}
listen:
  top: ["192.0.2.1:53", "192.0.2.2:53", "[2001:db8:53::1]:53", "[2001:db8:53::2]:53"]
  low: [{{range $i, $a := .Own}}{{if $i}}, {{end}}"{{port $a 53}}"{{end}}]
  admin: run
store:
  etcd: {tls: require, embedded: { {{- range $i, $m := .Members}}{{if $i}}, {{end}}{{$m.Name}}: {{$m.Addr}}{{end -}} }}
identity: identity
bgp:
  asn: {{.ASN}}
  marker_asn: {{.MarkerASN}}
  router_id: {{index .Own 0}}
  hold: 3s
  peers:
{{- range .Peers}}
    - {addr: "{{.Addr}}", asn: {{.ASN}}, gtsm: true, bfd: {{if .BFDPort}}{port: {{.BFDPort}}}{{else if .BFD}}on{{else}}off{{end}}}
{{- end}}
`

const labConsoleFile = `# The operator's place in the lab: no role, a view of the whole fleet.
version: 1
node: {name: {{.Name}}, site: {{.Site}}, roles: [console], data_dir: data}
listen: {admin: run}
store:
  etcd: {tls: require, endpoints: [{{range $i, $m := .Members}}{{if $i}}, {{end}}"https://{{$m.Addr}}:2379"{{end}}]}
identity: {{.Identity}}
`

const labRootFile = `# The lab's root name server: a role alone, without etcd.
version: 1
node: {name: root, site: ops, roles: [authdns], data_dir: data}
listen: {low: [{{range $i, $a := .Own}}{{if $i}}, {{end}}"{{port $a 53}}"{{end}}], admin: run}
store: file
`

// writeNodes writes the node files. What console and root have kept goes: the
// console's cache belongs to an etcd that is gone, the root's fleet is applied anew.
func (d labDir) writeNodes(topo netlab.Topology) error {
	members := labMembers(topo)
	for _, site := range labSites(topo) {
		if err := d.writeNode(topo, site, members, nil); err != nil {
			return err
		}
	}
	ops := labNode{Name: netlab.OpsName, Site: netlab.OpsName, Own: ownAddresses(topo, netlab.OpsName), Members: members,
		Identity: strconv.Quote(d.path("sites", netlab.OpsName, "identity"))}
	return errors.Join(os.RemoveAll(d.path("console", "data")), os.RemoveAll(d.path("root", "data")),
		render(d.console(), labConsoleFile, ops), render(d.path("root", "node.yaml"), labRootFile, ops))
}

// writeNode writes a site's node file; frr are the routers which an FRR plays.
func (d labDir) writeNode(topo netlab.Topology, site string, members []labMember, frr []string) error {
	n := labNode{Name: site + "-a", Site: site, Own: ownAddresses(topo, site), Members: members, Peers: sitePeers(topo, site, frr),
		ASN: labASN(topo, site), MarkerASN: labMarkerASN}
	return render(d.nodeFile(site), labNodeFile, n)
}

// labMembers are the lab's embedded etcd.
func labMembers(topo netlab.Topology) (out []labMember) {
	for _, site := range labSites(topo) {
		out = append(out, labMember{site + "-a", ownAddresses(topo, site)[0]})
	}
	return out
}

// writeRouters writes the files of the transit routers.
func (d labDir) writeRouters(topo netlab.Topology) error {
	for _, n := range topo.Nodes {
		if n.Role != netlab.Router {
			continue
		}
		b, err := json.MarshalIndent(labRouterConfig(topo, n.Name), "", "  ")
		if err != nil {
			return err
		}
		if err := writeFile(d.routerFile(n.Name), string(b)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// render writes a file from a template; port joins an address and a port, with
// the brackets that an IPv6 address needs.
func render(file, text string, data any) error {
	port := func(a netip.Addr, p uint16) string { return netip.AddrPortFrom(a, p).String() }
	t, err := template.New(filepath.Base(file)).Funcs(template.FuncMap{"port": port}).Parse(text)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return err
	}
	return writeFile(file, b.String())
}

// writeFile writes a file and the directories above it.
func writeFile(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
