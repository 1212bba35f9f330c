package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"rhumb/authdns/dnssec"
)

// Keys of zones are files; these commands work on a directory of them, which whoever
// runs the fleet copies to the nodes. No key passes through the store or the API.

// keyFlags are what these commands have in common.
type keyFlags struct {
	dir string
	now func() time.Time
}

// keyCommands are those below `zones`.
func (a *app) keyCommands() []*cobra.Command {
	f := &keyFlags{now: time.Now}
	cmds := []*cobra.Command{a.dsCommand(f), a.dnskeyCommand(f), a.keysCommand(f), a.keygenCommand(f), a.rollCommand(f)}
	for _, c := range cmds {
		c.Flags().StringVar(&f.dir, "keys", "/etc/rhumb/keys", "directory of key files")
	}
	return cmds
}

// load reads the keys of a zone; none at all is "not found", which scripts tell apart.
func (f *keyFlags) load(zone string) ([]*dnssec.Key, error) {
	keys, err := dnssec.Load(f.dir, zone)
	if errors.Is(err, dnssec.ErrNoKeys) || errors.Is(err, os.ErrNotExist) {
		return nil, withCode(exitNotFound, err)
	}
	return keys, err
}

// dsCommand prints what goes to a registrar, in the form in which most want it.
func (a *app) dsCommand(f *keyFlags) *cobra.Command {
	return &cobra.Command{Use: "ds ZONE", Short: "The DS records that the zone's parent must hold, by the key files",
		Example: "  rhumb zones ds demo.test", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			keys, err := f.load(names[0])
			if err != nil {
				return err
			}
			ring, err := dnssec.NewRing(dns.CanonicalName(names[0]), keys, dnssec.HourOf(f.now()))
			if err != nil {
				return err
			}
			records := ring.DS(dnssec.TTL)
			if len(records) == 0 {
				return withCode(exitNotFound, fmt.Errorf("no key of %s is meant for its parent now (SyncPublish)", names[0]))
			}
			return a.showRecords(records)
		}}
}

// dnskeyCommand prints what goes to other providers of the zone.
func (a *app) dnskeyCommand(f *keyFlags) *cobra.Command {
	return &cobra.Command{Use: "dnskey ZONE", Short: "The keys that other providers who sign the zone too must publish beside theirs, by the key files",
		Example: "  rhumb zones dnskey demo.test", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			keys, err := f.load(names[0])
			if err != nil {
				return err
			}
			return a.showRecords(dnssec.Export(keys, dnssec.HourOf(f.now())))
		}}
}

// showRecords prints records, a line each.
func (a *app) showRecords(rrs []dns.RR) error {
	var lines []string
	for _, rr := range rrs {
		lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	raw, err := json.Marshal(map[string][]string{"items": lines})
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: lines, text: func(w io.Writer, _ style) {
		for _, l := range lines {
			fmt.Fprintln(w, l)
		}
	}})
}

// keyRow is one key as it is listed.
type keyRow struct {
	Name      string    `json:"name"`
	Tag       uint16    `json:"tag"`
	Algorithm string    `json:"algorithm"`
	SEP       bool      `json:"sep"`
	Use       string    `json:"use"`
	AtParent  bool      `json:"at_parent"`
	Next      string    `json:"next,omitempty"`
	At        time.Time `json:"at,omitzero"`
}

// keysCommand shows where a roll stands: the times in the files are all there is to it.
func (a *app) keysCommand(f *keyFlags) *cobra.Command {
	return &cobra.Command{Use: "keys ZONE", Short: "Keys of a zone: what each does now, and what comes next",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			keys, err := f.load(names[0])
			if err != nil {
				return err
			}
			return a.showKeys(keys, f.now())
		}}
}

// showKeys prints keys in the order of the ring, with the next thing that happens to each.
func (a *app) showKeys(keys []*dnssec.Key, now time.Time) error {
	var rows []keyRow
	var names []string
	for _, k := range keys {
		r := keyRow{Name: k.Name(), Tag: k.Tag(), Algorithm: dns.AlgorithmToString[k.Public.Algorithm], SEP: k.SEP(), Use: k.Use(now), AtParent: k.SEP() && k.Times.Synced(now)}
		r.Next, r.At = k.Next(now)
		rows, names = append(rows, r), append(names, r.Name)
	}
	raw, err := json.Marshal(map[string][]keyRow{"items": rows})
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: names, text: func(w io.Writer, s style) {
		t := newTable(s, ">TAG", "ALGORITHM", "ROLE", "NOW", "AT PARENT", "NEXT", "AT")
		for _, r := range rows {
			role, at := "ZSK", ""
			if r.SEP {
				role = "KSK"
			}
			if r.Next != "" {
				at = r.At.UTC().Format(time.RFC3339)
			}
			t.add(r.Tag, r.Algorithm, role, r.Use, yes(r.AtParent, "wanted"), r.Next, at)
		}
		t.write(w)
	}})
}

// keygenCommand makes the first keys of a zone. It never adds to keys that are there: two
// of a kind which both sign are a roll, and that has times of its own.
func (a *app) keygenCommand(f *keyFlags) *cobra.Command {
	var algorithm string
	var single bool
	var after time.Duration
	cmd := &cobra.Command{Use: "keygen ZONE", Short: "Make the first keys of a zone: a KSK and a ZSK, or one key for both",
		Example: "  rhumb zones keygen demo.test --keys /etc/rhumb/keys", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			alg, ok := map[string]uint8{"ecdsap256sha256": dnssec.P256, "ed25519": dnssec.Ed25519}[strings.ToLower(algorithm)]
			if _, valid := dns.IsDomainName(names[0]); !ok || !valid {
				return withCode(exitUsage, fmt.Errorf("want the name of a zone, and --algorithm ecdsap256sha256 or ed25519"))
			}
			if old, err := dnssec.Load(f.dir, names[0]); !errors.Is(err, dnssec.ErrNoKeys) {
				if err != nil {
					return err
				}
				return withCode(exitRefused, fmt.Errorf("%s holds %d keys of %s already; to change one: rhumb zones roll", f.dir, len(old), names[0]))
			}
			now := f.now().UTC().Truncate(time.Second)
			t := dnssec.Times{Created: now, Publish: now, Activate: now}
			ksk := t
			ksk.SyncPublish = now.Add(after)
			keys := make([]*dnssec.Key, 0, 2)
			k, err := dnssec.Generate(names[0], alg, true, ksk)
			if err == nil && !single {
				keys = append(keys, k)
				k, err = dnssec.Generate(names[0], alg, false, t)
			}
			if err != nil {
				return err
			}
			if err := save(f.dir, append(keys, k)); err != nil {
				return err
			}
			a.say("Copy the files to every node, mode 0600, and say dnssec: on for the zone. The parent is asked for its DS from %s on.", ksk.SyncPublish.Format(time.RFC3339))
			return a.showKeys(append(keys, k), now)
		}}
	cmd.Flags().StringVar(&algorithm, "algorithm", "ecdsap256sha256", "or ed25519")
	cmd.Flags().BoolVar(&single, "csk", false, "one key that signs everything")
	cmd.Flags().DurationVar(&after, "ds-after", 24*time.Hour, "from when on the parent is to have the DS: when no cache holds the zone unsigned")
	return cmd
}

// save writes keys; one that is there already is replaced with its new times.
func save(dir string, keys []*dnssec.Key) error {
	for _, k := range keys {
		if _, err := k.Save(dir); err != nil {
			return err
		}
	}
	return nil
}

// rollCommand changes a key by setting times. For a KSK it is said twice, and the files
// tell which of the two it is: a key that waits for its DS can be in one place only.
func (a *app) rollCommand(f *keyFlags) *cobra.Command {
	var parents []string
	r := dnssec.Roll{}
	cmd := &cobra.Command{Use: "roll ZONE zsk|ksk", Short: "Change a key without a gap, as times in the key files; a KSK in two steps",
		Example: "  rhumb zones roll demo.test zsk\n  rhumb zones roll demo.test ksk\n  rhumb zones roll demo.test ksk --parent 192.0.2.53   # once it has the new DS",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			keys, err := f.load(given[0])
			if err != nil {
				return err
			}
			now := f.now().UTC().Truncate(time.Second)
			waits := dnssec.Waiting(keys)
			switch {
			case given[1] == "zsk":
				keys, err = r.ZSK(keys, now)
			case given[1] != "ksk":
				return withCode(exitUsage, fmt.Errorf("%q is neither zsk nor ksk", given[1]))
			case waits == nil:
				keys, err = r.KSK(keys, now)
				a.say("Copy the files to every node. The parent is asked, by CDS, to have both DS records; then say this again with --parent.")
			default:
				if err := a.parentKnows(cmd, f, given[0], keys, parents); err != nil {
					return err
				}
				keys, err = r.Switch(keys, now)
			}
			if err != nil {
				return withCode(exitRefused, err)
			}
			if err := save(f.dir, keys); err != nil {
				return err
			}
			a.say("Every node must have these files within %s.", r.Spread-dnssec.Tick)
			return a.showKeys(keys, now)
		}}
	cmd.Flags().StringArrayVar(&parents, "parent", nil, "ADDRESS[:PORT] of a name server of the parent, each one; asked for the DS before a new KSK is used")
	cmd.Flags().DurationVar(&r.Spread, "spread", 3*time.Hour, "how long until every node has the files, and one hour more")
	cmd.Flags().DurationVar(&r.ZoneTTL, "zone-ttl", 24*time.Hour, "the longest TTL in the zone")
	cmd.Flags().DurationVar(&r.ParentTTL, "parent-ttl", 48*time.Hour, "TTL of the DS records at the parent, and until all its servers have them")
	return cmd
}

// parentKnows asks the parent's name servers whether they have the DS of every key that
// is meant for them. A key that is used before ends the zone for whoever validates.
func (a *app) parentKnows(cmd *cobra.Command, f *keyFlags, zone string, keys []*dnssec.Key, parents []string) error {
	if len(parents) == 0 {
		return withCode(exitUsage, fmt.Errorf("%w: name the parent's servers with --parent", dnssec.ErrWaiting))
	}
	ring, err := dnssec.NewRing(dns.CanonicalName(zone), keys, dnssec.HourOf(f.now()))
	if err != nil {
		return err
	}
	for _, p := range parents {
		if !strings.Contains(p, ":") || strings.Contains(p, "::") && !strings.HasPrefix(p, "[") {
			p = "[" + strings.Trim(p, "[]") + "]:53"
		}
		// Without recursion and from the authority itself: a cache would show what was.
		m := new(dns.Msg)
		m.SetQuestion(dns.CanonicalName(zone), dns.TypeDS)
		m.RecursionDesired = false
		c := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
		reply, _, err := c.ExchangeContext(cmd.Context(), m, p)
		if err != nil {
			return withCode(exitUnreachable, fmt.Errorf("ask %s for the DS of %s: %w", p, zone, err))
		}
		for _, want := range ring.DS(dnssec.TTL) {
			if !reply.Authoritative || !contains(reply.Answer, want) {
				return withCode(exitRefused, fmt.Errorf("%w: %s does not answer with %s", dnssec.ErrWaiting, p, strings.ReplaceAll(want.String(), "\t", " ")))
			}
		}
	}
	return nil
}

// contains tells whether a record is among others, whatever its TTL.
func contains(rrs []dns.RR, want dns.RR) bool {
	for _, rr := range rrs {
		if dns.IsDuplicate(rr, want) {
			return true
		}
	}
	return false
}
