package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// ProbeDNS asks for a record over UDP and then over TCP, since clients need both
// (RFC 7766, 5); it passes on NOERROR with AA and, if the check says so, on the
// expected data and on a serial that is not too old.
func ProbeDNS(ctx context.Context, t Target) Result {
	c := t.Check.DNS
	rtype, ok := dns.StringToType[strings.ToUpper(c.Type)]
	if !ok {
		rtype = dns.TypeSOA
	}
	watch := startWatch()
	var all Result
	for _, network := range []string{"udp", "tcp"} {
		r := askDNS(ctx, network, rtype, t)
		r.Bytes += all.Bytes
		if all = r; r.State != placement.Up {
			break
		}
		watch.note(func(p *Phases, d time.Duration) {
			if network == "udp" {
				p.First = d
			}
		})
	}
	return watch.stamp(all)
}

// askDNS asks once over one transport: a repeated question is the business of the
// next look. An answer cut short over UDP is well when the whole comes over TCP.
func askDNS(ctx context.Context, network string, rtype uint16, t Target) Result {
	c := t.Check.DNS
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(c.Name), rtype)
	q.RecursionDesired = false
	client := &dns.Client{Net: network, Timeout: time.Until(deadline(ctx))}
	resp, _, err := client.ExchangeContext(ctx, q, t.Address.String())
	var r Result
	switch {
	case err != nil:
		r = failed(dialKind(err), reason(err))
	case resp.Truncated && network == "udp" && resp.Rcode == dns.RcodeSuccess:
		return passed(Result{Bytes: resp.Len()})
	default:
		r = judgeAnswer(resp, rtype, c, time.Now())
	}
	if r.Cause != "" {
		r.Cause = fmt.Sprintf("%s %s over %s: %s", c.Name, dns.TypeToString[rtype], strings.ToUpper(network), r.Cause)
	}
	return r
}

func deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return d
	}
	return time.Now().Add(5 * time.Second)
}

// judgeAnswer wants an authoritative answer: a server that lost its zone and asks
// others, or answers from a cache, is lame (RFC 1912, 2.8).
func judgeAnswer(resp *dns.Msg, rtype uint16, c *placement.DNSCheck, now time.Time) Result {
	var r Result
	switch {
	case resp.Rcode != dns.RcodeSuccess:
		r = failed("rcode", "answer is "+dns.RcodeToString[resp.Rcode])
	case !resp.Authoritative:
		r = failed("lame", "answer is not authoritative")
	default:
		if err := hasData(resp, rtype, c.Expect); err != nil {
			r = failed("data", err.Error())
		} else {
			r = judgeSerial(resp, c.MaxAge.D(), now)
		}
	}
	r.Bytes = resp.Len()
	return r
}

// hasData looks for a record of the type, and for the data if some is wanted.
func hasData(resp *dns.Msg, rtype uint16, want string) error {
	found := false
	for _, rr := range resp.Answer {
		if rr.Header().Rrtype != rtype {
			continue
		}
		found = true
		data := strings.TrimPrefix(rr.String(), rr.Header().String())
		if want == "" || data == want {
			return nil
		}
	}
	if !found {
		return errors.New("no record of type " + dns.TypeToString[rtype])
	}
	return fmt.Errorf("no record is %q", want)
}

// judgeSerial holds the zone to its age: a secondary that lost its primary answers
// well, and from the past, until the zone expires (RFC 1912, 2.2).
func judgeSerial(resp *dns.Msg, limit time.Duration, now time.Time) Result {
	if limit == 0 {
		return passed(Result{})
	}
	for _, rr := range resp.Answer {
		soa, ok := rr.(*dns.SOA)
		if !ok {
			continue
		}
		made, ok := serialTime(soa.Serial, now)
		if !ok {
			return blind("serial", fmt.Sprintf("serial %d is neither a date nor a Unix time: it has no age", soa.Serial))
		}
		if age := now.Sub(made); age > limit {
			return failed("stale", fmt.Sprintf("serial %d is %s old, more than %s", soa.Serial, age.Round(time.Second), limit))
		}
		return passed(Result{})
	}
	return failed("data", "no SOA to judge the age by")
}

// serialTime reads a serial as YYYYMMDDnn (RFC 1912, 2.2) or as a Unix time,
// whichever lies in the past and less than 30 years ago. A date serial tells the
// day: the end of that day is meant, so that nothing looks older than it is.
func serialTime(serial uint32, now time.Time) (time.Time, bool) {
	plausible := func(t time.Time) bool { return !t.After(now.Add(48*time.Hour)) && now.Sub(t) < 30*365*24*time.Hour }
	day, err := time.Parse("20060102", fmt.Sprint(serial/100))
	if end := day.Add(24 * time.Hour); err == nil && plausible(end) {
		return end, true
	}
	t := time.Unix(int64(serial), 0)
	return t, plausible(t)
}
