package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ProbeDNS asks for a record over UDP, and over TCP when the answer is cut; it
// passes on NOERROR with AA and, if the check says so, on the expected data.
func ProbeDNS(ctx context.Context, t Target) Result {
	c := t.Check.DNS
	rtype, ok := dns.StringToType[strings.ToUpper(c.Type)]
	if !ok {
		rtype = dns.TypeSOA
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(c.Name), rtype)
	q.RecursionDesired = false
	resp, err := exchange(ctx, "udp", q, t)
	if err == nil && resp.Truncated {
		resp, err = exchange(ctx, "tcp", q, t)
	}
	if err != nil {
		return failed(dialKind(err), fmt.Sprintf("%s %s at %s: %s", c.Name, dns.TypeToString[rtype], t.Address, reason(err)))
	}
	return judgeAnswer(resp, rtype, c.Expect)
}

// exchange asks once: a repeated question is the business of the next look.
func exchange(ctx context.Context, network string, q *dns.Msg, t Target) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: time.Until(deadline(ctx))}
	resp, _, err := client.ExchangeContext(ctx, q, t.Address.String())
	return resp, err
}

func deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return d
	}
	return time.Now().Add(5 * time.Second)
}

// judgeAnswer wants an authoritative answer: a server that lost its zone and asks
// others, or answers from a cache, is lame (RFC 1912, 2.8).
func judgeAnswer(resp *dns.Msg, rtype uint16, want string) Result {
	r := Result{Bytes: resp.Len()}
	switch {
	case resp.Rcode != dns.RcodeSuccess:
		r.Kind, r.Cause = "rcode", "answer is "+dns.RcodeToString[resp.Rcode]
	case !resp.Authoritative:
		r.Kind, r.Cause = "lame", "answer is not authoritative"
	default:
		if err := hasData(resp, rtype, want); err != nil {
			r.Kind, r.Cause = "data", err.Error()
		} else {
			r.OK, r.Kind = true, "ok"
		}
	}
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
