package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// tale is a known outage, and how it is played in the lab.
type tale struct {
	name  string
	title string
	url   string // the account of those who had it
	// then says what happened, here how the lab plays it.
	then, here []string
	// watch is the least time for which a guarded fleet is watched after the blow.
	watch  time.Duration
	judged func(*placement.Fleet) []netip.Prefix
	ask    func(*placement.Fleet) asker
	stage  func(*placement.Fleet) // what the fleet has besides; nil: nothing
	brings bool                   // the stage has prefixes of its own
	blow   func(context.Context, *replayRun, *placement.Fleet) error
}

// tales are all of them, in order of time.
func tales() []*tale {
	return []*tale{facebook2021(), cloudflare2025(), cloudflare2026(), probersAllFail()}
}

// lasting is longer than the hold after which a witness may stand for a Slot, so that
// what a site would do without the store is seen too.
const lasting = 13 * time.Second

// anycastOf are the prefixes that the lab's fleet always has.
func anycastOf(*placement.Fleet) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(netlab.AnycastV4), netip.MustParsePrefix(netlab.AnycastV6)}
}

func anycastAsker(*placement.Fleet) asker { return askAnycast }

// eachPrefix changes the lab's own prefixes.
func eachPrefix(f *placement.Fleet, change func(*placement.Prefix)) {
	for i := range f.Prefixes {
		if slices.Contains(anycastOf(f), f.Prefixes[i].Prefix) {
			change(&f.Prefixes[i])
		}
	}
}

// facebook2021: what all sites share is gone, and each of them blames itself.
func facebook2021() *tale {
	return &tale{
		name: "facebook-2021", title: "Facebook, 4 October 2021: about six hours, everywhere",
		url: "https://engineering.fb.com/2021/10/05/networking-traffic/outage-details/",
		then: []string{
			"a maintenance command, meant to measure the backbone's capacity, cut every data centre off; the tool which should have stopped it had a bug",
			"the name servers at the edge withdraw their routes when they cannot reach the data centres: each of them, by itself, and rightly as far as it could see",
			"so no name server had a route any more, although all of them ran; the tools to repair it shared the fate",
		},
		here: []string{
			"every site's prefixes depend on a check of the data centre: the operator's node, reached over the backbone",
			"the backbone is what the sites' own addresses use among each other and to the operator: it goes, with store, heartbeats and console; links to the Internet and BGP stay",
		},
		watch: lasting, judged: anycastOf, ask: anycastAsker, stage: stageDataCentre,
		blow: func(_ context.Context, r *replayRun, _ *placement.Fleet) error {
			r.step("mark", "the backbone is cut at all sites at once")
			return r.cutBackbone()
		},
	}
}

// stageDataCentre adds a cluster which stands for the data centre: at another node,
// the same one for all sites, so that its loss proves nothing about a site. A look takes
// two round trips over TCP, half a second from the far side of the world.
func stageDataCentre(f *placement.Fleet) {
	f.Checks = append(f.Checks, placement.Check{Name: "datacentre", DNS: &placement.DNSCheck{Name: "root-servers.test", Type: "A"}, Fault: placement.SharedFault,
		Every: placement.Duration(time.Second), Timeout: placement.Duration(900 * time.Millisecond), Rise: 2, Fall: 2})
	at := netip.AddrPortFrom(ownAddresses(netlab.Lab(netlab.LabOptions{}), netlab.OpsName)[0], 53)
	for i := range f.Sites {
		f.Sites[i].Clusters = append(f.Sites[i].Clusters, placement.Cluster{Name: "datacentre", Addresses: []netip.AddrPort{at}, Check: "datacentre"})
	}
	eachPrefix(f, func(p *placement.Prefix) { p.Clusters = append(p.Clusters, "datacentre") })
}

// cutBackbone makes vanish what sites send each other and the operator.
func (r *replayRun) cutBackbone() error {
	inside := append(labSites(r.w.topo), netlab.OpsName)
	for _, site := range labSites(r.w.topo) {
		var far []netip.Prefix
		for _, n := range inside {
			if n == site {
				continue
			}
			for _, a := range ownAddresses(r.w.topo, n) {
				far = append(far, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		if err := r.w.net.Break(netlab.Fault{Kind: netlab.Blackhole, Node: site, Prefixes: far}); err != nil {
			return err
		}
	}
	return nil
}

// offline is the place of the second tale: declared, without a machine.
const offline = "dls1"

// cloudflare2025: a configuration ties the prefixes to a place which is not there.
func cloudflare2025() *tale {
	return &tale{
		name: "cloudflare-2025-07", title: "Cloudflare, 14 July 2025: 1.1.1.1 gone for 62 minutes",
		url: "https://blog.cloudflare.com/cloudflare-1-1-1-1-incident-on-july-14-2025/",
		then: []string{
			"on 6 June a configuration for a service not in use yet named the resolver's prefixes by mistake; nothing happened",
			"on 14 July at 21:48 UTC an offline test place was added to that service: the refresh tied 1.1.1.1 to that place alone, and all others withdrew",
			"the alarm came at 22:01, the change was taken back at 22:20, and all was well at 22:54: part of the servers had lost the addresses too",
		},
		here: []string{
			"the fleet has a fourth place, " + offline + ", which is declared and has no machine; nothing happens",
			"then a change says that both anycast prefixes belong to " + offline + " alone",
		},
		watch: 6 * time.Second, judged: anycastOf, ask: anycastAsker,
		stage: func(f *placement.Fleet) {
			f.Sites = append(f.Sites, placement.Site{Name: offline, City: "nowhere yet", At: placement.Position{50.11, 8.68}, Region: netlab.Europe, Number: 9})
			eachPrefix(f, func(p *placement.Prefix) { p.Sites = labSites(netlab.Lab(netlab.LabOptions{})) })
		},
		blow: func(ctx context.Context, r *replayRun, staged *placement.Fleet) error {
			next, err := copyFleet(staged)
			if err != nil {
				return err
			}
			eachPrefix(next, func(p *placement.Prefix) { p.Sites = []string{offline} })
			return r.change(ctx, "the new configuration: both prefixes at "+offline+", and nowhere else", next)
		},
	}
}

// customers is how many prefixes of others the fleet announces in the third tale.
const customers = 6

// customer is number i's prefix, and the address which is served in it.
func customer(i int) (netip.Prefix, netip.AddrPort) {
	a := netip.MustParseAddr("2001:db8:b000::1").As16()
	a[5] = byte(i + 1)
	addr := netip.AddrFrom16(a)
	return netip.PrefixFrom(addr, 48).Masked(), netip.AddrPortFrom(addr, 8080)
}

// cloudflare2026: a job means "those marked for deletion" and says "all".
func cloudflare2026() *tale {
	return &tale{
		name: "cloudflare-2026-02", title: "Cloudflare, 20 February 2026: 1,100 prefixes of customers withdrawn, six hours until the last was back",
		url: "https://blog.cloudflare.com/cloudflare-outage-february-20-2026/",
		then: []string{
			"a new clean-up job asked for the prefixes to be deleted, with a filter that had no value; the server read that as no filter, and returned all",
			"the job deleted what it was given: from 17:56 to 18:46 UTC about 1,100 of 6,500 prefixes were withdrawn, until somebody stopped it",
			"some came back by a switch, some hundreds only after their bindings to services were written anew",
		},
		here: []string{
			fmt.Sprintf("the fleet announces prefixes of %d customers at every site; none is to be deleted", customers),
			"then a clean-up deletes whatever its empty filter matches: all of them",
		},
		watch: 6 * time.Second, judged: func(*placement.Fleet) []netip.Prefix {
			var out []netip.Prefix
			for i := range customers {
				p, _ := customer(i)
				out = append(out, p)
			}
			return out
		},
		ask: func(*placement.Fleet) asker {
			var servers []netip.AddrPort
			for i := range customers {
				_, a := customer(i)
				servers = append(servers, a)
			}
			return askServers(servers)
		},
		stage: stageCustomers, brings: true,
		blow: func(ctx context.Context, r *replayRun, staged *placement.Fleet) error {
			next, err := copyFleet(staged)
			if err != nil {
				return err
			}
			next.Prefixes = slices.DeleteFunc(next.Prefixes, func(p placement.Prefix) bool { return slices.Contains(r.look.prefixes, p.Prefix) })
			return r.change(ctx, fmt.Sprintf("the clean-up deletes %d prefixes", customers), next)
		},
	}
}

// stageCustomers gives every site the customers' addresses and their prefixes.
func stageCustomers(f *placement.Fleet) {
	var addrs []netip.AddrPort
	for i := range customers {
		p, a := customer(i)
		addrs = append(addrs, a)
		f.Prefixes = append(f.Prefixes, placement.Prefix{Prefix: p, Reach: placement.Global, Clusters: []string{"customers"},
			Slots: 1, MinAnnouncing: 2, Prepend: 3, MED: 500, Witness: placement.WitnessAdvisory})
	}
	for i := range f.Sites {
		f.Sites[i].Clusters = append(f.Sites[i].Clusters, placement.Cluster{Name: "customers", Addresses: addrs, Check: "web"})
	}
}

// probersAllFail: every prober of the fleet is wrong in the same way.
func probersAllFail() *tale {
	return &tale{
		name: "probers-all-fail", title: "Every prober fails at once, every server is well",
		url: "https://aws.amazon.com/message/101925/",
		then: []string{
			"no single event, but a part of many: on 20 October 2025 load balancers of AWS in us-east-1 took healthy capacity out of DNS, since their health checks failed for a reason of their own",
			"it ended when engineers switched the automatic failover off",
		},
		here: []string{
			"a new version of every check looks for something that no server has; it is a configuration like any other, and no rule can know",
			"every site finds all of its own servers dead, as its own fault",
		},
		watch: lasting, judged: anycastOf, ask: anycastAsker,
		blow: func(ctx context.Context, r *replayRun, staged *placement.Fleet) error {
			next, err := copyFleet(staged)
			if err != nil {
				return err
			}
			for i := range next.Checks {
				switch c := &next.Checks[i]; {
				case c.HTTP != nil:
					c.HTTP.Path = "/healthz-of-the-next-release"
				case c.DNS != nil:
					c.DNS.Name = "next-release.test"
				}
			}
			return r.change(ctx, "the new checks: all of them look for what is not there", next)
		},
	}
}

// taleNames are the replays there are.
func taleNames() string {
	var out []string
	for _, t := range tales() {
		out = append(out, t.name)
	}
	return strings.Join(out, ", ")
}

// findTale finds one by its name.
func findTale(name string) *tale {
	all := tales()
	i := slices.IndexFunc(all, func(t *tale) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return all[i]
}
