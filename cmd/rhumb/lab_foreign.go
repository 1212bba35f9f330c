package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"rhumb/internal/netlab"
)

// labForeign says which nodes of the lab run a stock daemon in place of ours, so
// that what others do with our routes and answers can be seen. By name of node.
type labForeign struct {
	routers   map[string]string // bird or frr
	resolvers map[string]string // unbound or kresd
	origin    string            // nginx; empty: our own
}

// foreignProgram is one process of a stock daemon.
type foreignProgram struct {
	unit string // as its log and `lab kill --unit` name it
	path string
	args []string
}

func (f *labForeign) flags(set *pflag.FlagSet) {
	set.StringToStringVar(&f.routers, "router", nil, "NODE=bird or NODE=frr: a stock router in place of ours")
	set.StringToStringVar(&f.resolvers, "resolver", nil, "NODE=unbound or NODE=kresd: a stock resolver in place of ours")
	set.StringVar(&f.origin, "origin", "", "nginx: a stock web server in place of ours at every site")
	for _, name := range []string{"router", "resolver", "origin"} {
		set.Lookup(name).Hidden = true
	}
}

// args are the flags again, for the inner side of the lab.
func (f *labForeign) args() []string {
	var out []string
	for flag, nodes := range map[string]map[string]string{"--router": f.routers, "--resolver": f.resolvers} {
		for node, kind := range nodes {
			out = append(out, flag+"="+node+"="+kind)
		}
	}
	slices.Sort(out)
	if f.origin != "" {
		out = append(out, "--origin="+f.origin)
	}
	return out
}

// check refuses nodes and daemons that there are not.
func (f *labForeign) check(topo netlab.Topology) error {
	var errs []error
	one := func(node string, role netlab.Role, kind string, known ...string) {
		if !slices.Contains(nodesOf(topo, role), node) {
			errs = append(errs, fmt.Errorf("no %s %q; there are %v", role, node, nodesOf(topo, role)))
		}
		if !slices.Contains(known, kind) {
			errs = append(errs, fmt.Errorf("%s: %q is none of %v", node, kind, known))
		}
	}
	for node, kind := range f.routers {
		one(node, netlab.Router, kind, "bird", "frr")
	}
	for node, kind := range f.resolvers {
		one(node, netlab.Resolve, kind, "unbound", "kresd")
	}
	if f.origin != "" && f.origin != "nginx" {
		errs = append(errs, fmt.Errorf("origin %q is not nginx", f.origin))
	}
	if err := errors.Join(errs...); err != nil {
		return withCode(exitUsage, err)
	}
	return nil
}

// addForeign declares the processes of a node's stock daemons, whose configurations
// are written, unless err tells why not.
func (w *world) addForeign(node string, programs []foreignProgram, err error) error {
	if err != nil {
		return fmt.Errorf("lab: %s: %w", node, err)
	}
	for _, f := range programs {
		path, err := exec.LookPath(f.path)
		if err != nil {
			return fmt.Errorf("lab: %s wants %s, which is not installed: %w", node, f.unit, err)
		}
		p, err := w.addProc(node, f.unit, f.args)
		if err != nil {
			return err
		}
		p.program = path
	}
	return nil
}

// foreignDir is where a stock daemon of a node keeps its files.
func (d labDir) foreignDir(node, kind string) (string, error) {
	dir := d.path("foreign", node+"-"+kind)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

// foreignPeer is a neighbour as the stock routers' configurations name it.
type foreignPeer struct {
	Name string // a BIRD symbol
	Addr netip.Addr
	ASN  uint32
	V6   bool
	BFD  bool
}

func foreignPeers(c routerConfig) []foreignPeer {
	var out []foreignPeer
	for i, p := range c.Peers {
		out = append(out, foreignPeer{Name: fmt.Sprintf("p%d", i+1), Addr: p.Addr, ASN: p.ASN, V6: p.Addr.Is6(), BFD: p.BFD})
	}
	return out
}

// foreignRouter prepares a stock router: sessions as ours has them, one family on
// each; everything is accepted and passed on; what asks for graceful shutdown is
// preferred last (RFC 8326); the best routes, several if equal, go to the kernel.
func (w *world) foreignRouter(node, kind string) ([]foreignProgram, error) {
	dir, err := w.dir.foreignDir(node, kind)
	if err != nil {
		return nil, err
	}
	c := labRouterConfig(w.topo, node)
	data := map[string]any{"Config": c, "Peers": foreignPeers(c)}
	if kind == "bird" {
		return []foreignProgram{{"bird", "bird", []string{"-f", "-c", dir + "/bird.conf", "-s", dir + "/bird.ctl"}}},
			render(dir+"/bird.conf", foreignBird, data)
	}
	common := func(name string) []string {
		return []string{"-f", dir + "/" + name + ".conf", "-i", dir + "/" + name + ".pid", "-z", dir + "/zserv.api",
			"--vty_socket", dir, "--log", "stdout"}
	}
	bfdd := append(common("bfdd"), "--bfdctl", dir+"/bfdd.ctl")
	return []foreignProgram{{"zebra", frrDir + "zebra", common("zebra")}, {"bfdd", frrDir + "bfdd", bfdd}, {"bgpd", frrDir + "bgpd", common("bgpd")}},
		errors.Join(writeFile(dir+"/zebra.conf", ""), writeFile(dir+"/bfdd.conf", ""), render(dir+"/bgpd.conf", foreignFRR, data), giveTo("frr", dir),
			w.sitesBesideFRR())
}

// frrBFDPort is where FRR beats to a neighbour with ttl-security, whom it takes for one
// several hops away (RFC 5883).
const frrBFDPort = 4784

// sitesBesideFRR tells the sites at an FRR by which port it beats.
func (w *world) sitesBesideFRR() error {
	var frr []string
	for node, kind := range w.foreign.routers {
		if kind == "frr" {
			frr = append(frr, node)
		}
	}
	for _, site := range labSites(w.topo) {
		if err := w.dir.writeNode(w.topo, site, labMembers(w.topo), frr); err != nil {
			return err
		}
	}
	return nil
}

// giveTo makes a user the owner of a directory: FRR's daemons give up root at
// once, and then write there. Every directory above must let that user pass.
func giveTo(name, dir string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return errors.Join(err1, err2, os.Chown(dir, uid, gid))
}

// frrDir is where Debian's package has the daemons, outside of every PATH.
const frrDir = "/usr/lib/frr/"

const foreignBird = `log stderr all;
debug protocols { states };
router id {{.Config.RouterID}};
protocol device { scan time 5; }
protocol kernel { merge paths on limit 8; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { merge paths on limit 8; ipv6 { import none; export where source = RTS_BGP; }; }
protocol bfd { interface "*" { interval 300 ms; multiplier 3; }; }

filter transit_in
{
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}
{{range .Peers}}
protocol bgp {{.Name}} {
  local as {{$.Config.ASN}};
  neighbor {{.Addr}} as {{.ASN}};
  hold time 3;
  keepalive time 1;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ttl security on;
  graceful restart off;
  bfd {{if .BFD}}on{{else}}off{{end}};
  {{if .V6}}ipv6{{else}}ipv4{{end}} { import filter transit_in; export where source = RTS_BGP; };
}
{{end}}`

const foreignFRR = `route-map IN permit 10
 match community GSHUT
 set local-preference 0
exit
route-map IN permit 20
exit
bgp community-list standard GSHUT permit 65535:0
router bgp {{.Config.ASN}}
 bgp router-id {{.Config.RouterID}}
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 bgp graceful-restart-disable
{{- range .Peers}}
 neighbor {{.Addr}} remote-as {{.ASN}}
 neighbor {{.Addr}} timers 1 3
 neighbor {{.Addr}} timers connect 1
 neighbor {{.Addr}} advertisement-interval 0
 neighbor {{.Addr}} ttl-security hops 1
{{- if .BFD}}
 neighbor {{.Addr}} bfd 3 300 300
{{- end}}
{{- end}}
 address-family ipv4 unicast
  maximum-paths 8
{{- range .Peers}}{{if not .V6}}
  neighbor {{.Addr}} activate
  neighbor {{.Addr}} route-map IN in
{{- end}}{{end}}
 exit-address-family
 address-family ipv6 unicast
  maximum-paths 8
{{- range .Peers}}{{if .V6}}
  neighbor {{.Addr}} activate
  neighbor {{.Addr}} route-map IN in
{{- end}}{{end}}
 exit-address-family
`

// foreignResolver prepares a stock resolver which knows the lab's root alone. Its
// comforts are off: what it answers, it was told by a name server, and when.
func (w *world) foreignResolver(node, kind string) ([]foreignProgram, error) {
	dir, err := w.dir.foreignDir(node, kind)
	if err != nil {
		return nil, err
	}
	data := map[string]any{"Dir": dir, "Addrs": w.topo.Addresses(node), "Root": ownAddresses(w.topo, netlab.OpsName)}
	if kind == "unbound" {
		return []foreignProgram{{"unbound", "unbound", []string{"-d", "-p", "-c", dir + "/unbound.conf"}}},
			errors.Join(render(dir+"/unbound.conf", foreignUnbound, data), render(dir+"/root.hints", foreignHints, data))
	}
	return []foreignProgram{{"kresd", "kresd", []string{"-n", "-c", dir + "/kresd.conf", dir}}},
		render(dir+"/kresd.conf", foreignKresd, data)
}

// test. is a name of special use (RFC 6761), which both resolvers keep to
// themselves unless they are told otherwise.
const foreignUnbound = `server:
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{{.Dir}}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  num-threads: 1
{{- range .Addrs}}
  interface: {{.}}
{{- end}}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  module-config: "iterator"
  root-hints: "{{.Dir}}/root.hints"
  local-zone: "test." nodefault
  do-not-query-localhost: no
  use-caps-for-id: no
  prefetch: no
  serve-expired: no
remote-control:
  control-enable: no
`

const foreignHints = `. 3600000 NS root-servers.test.
{{range .Root}}root-servers.test. 3600000 {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}`

const foreignKresd = `log_level('notice')
cache.size = 20 * MB
{{- range .Addrs}}
net.listen('{{.}}', 53, { kind = 'dns' })
{{- end}}
modules.unload('priming')
modules.unload('ta_signal_query')
modules.unload('ta_sentinel')
modules.unload('detect_time_skew')
modules.unload('detect_time_jump')
trust_anchors.remove('.')
modules = { 'hints > iterate' }
hints.root({ ['root-servers.test.'] = { {{range $i, $a := .Root}}{{if $i}}, {{end}}'{{$a}}'{{end}} } })
policy.special_names = {}
`

// foreignOrigin prepares the stock web server of a site, on the wildcard address
// as packages configure it.
func (w *world) foreignOrigin(site string) ([]foreignProgram, error) {
	dir, err := w.dir.foreignDir(site, "nginx")
	if err != nil {
		return nil, err
	}
	data := map[string]any{"Dir": dir, "Root": w.dir.content(), "Name": site}
	return []foreignProgram{{"origin", "nginx", []string{"-e", "stderr", "-p", dir, "-c", dir + "/nginx.conf"}}},
		render(dir+"/nginx.conf", foreignNginx, data)
}

const foreignNginx = `daemon off;
user root;
worker_processes 1;
pid {{.Dir}}/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/body;
  proxy_temp_path {{.Dir}}/proxy;
  fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi;
  scgi_temp_path {{.Dir}}/scgi;
  server {
    listen 8080 default_server;
    listen [::]:8080 default_server;
    root {{.Root}};
    add_header X-Served-By {{.Name}} always;
  }
}
`

// foreignUnits are the units of the stock routers and resolvers, in order of start.
func foreignUnits() []string { return []string{"bird", "zebra", "bfdd", "bgpd", "unbound", "kresd"} }

// addRouter declares a transit router's processes.
func (w *world) addRouter(node string) error {
	if kind := w.foreign.routers[node]; kind != "" {
		programs, err := w.foreignRouter(node, kind)
		return w.addForeign(node, programs, err)
	}
	_, err := w.addProc(node, "router", []string{"lab", "router", "--config", w.dir.routerFile(node)})
	return err
}

// addResolver declares a resolver's process, if it is not of our own kind.
func (w *world) addResolver(node string) error {
	kind := w.foreign.resolvers[node]
	if kind == "" {
		return nil
	}
	programs, err := w.foreignResolver(node, kind)
	return w.addForeign(node, programs, err)
}

// addUnit declares a process of a site.
func (w *world) addUnit(site, unit string) error {
	if unit == "origin" && w.foreign.origin != "" {
		programs, err := w.foreignOrigin(site)
		return w.addForeign(site, programs, err)
	}
	_, err := w.addProc(site, unit, w.unitArgs(site, unit))
	return err
}

// describe names the stock daemons for the line of the start; empty without any.
func (f *labForeign) describe() string {
	var out []string
	for _, nodes := range []map[string]string{f.routers, f.resolvers} {
		for node, kind := range nodes {
			out = append(out, node+" "+kind)
		}
	}
	slices.Sort(out)
	if f.origin != "" {
		out = append(out, "origins "+f.origin)
	}
	return strings.Join(out, "  ")
}
