package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"rhumb/placement"
)

// ProbeTLS asks for the certificate of every name and judges by dates alone: down
// when one has passed, and up before, however near it is; who shall know earlier
// reads the metric. A server that cannot be reached, or that has a certificate for
// another name, is the business of other checks: here nothing is known of it. What
// was seen of one name counts whether or not the next could be asked.
func ProbeTLS(ctx context.Context, t Target) Result {
	watch := startWatch()
	var r Result
	hosts := t.Hosts
	if len(hosts) == 0 {
		hosts = []string{t.Host}
	}
	var missed *Result
	for _, host := range hosts {
		chain, err := certificates(ctx, t, host)
		if err != nil {
			b := blind(dialKind(err), fmt.Sprintf("TLS for %s: %s", host, reason(err)))
			missed = &b
			continue
		}
		ends := chainEnd(chain, t.Check.TLS.CA, time.Now())
		if r.Expires.IsZero() || ends.Before(r.Expires) {
			r.Expires = ends
			r = judgeDate(r, t.Check.TLS, host, time.Until(ends))
		}
	}
	if missed != nil && r.State != placement.Down {
		missed.Expires = r.Expires
		r = *missed
	}
	return watch.stamp(r)
}

// certificates shakes hands and returns what the server shows, without a judgement.
func certificates(ctx context.Context, t Target, host string) ([]*x509.Certificate, error) {
	raw, err := dial(ctx, t)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: host, InsecureSkipVerify: true}) // dates are judged below, names and authorities elsewhere
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates, nil
}

// chainEnd is the earliest date of the chain that verifies now, else of what the
// server sent: with an authority that we do not know, its word is all there is.
func chainEnd(sent []*x509.Certificate, ca string, now time.Time) time.Time {
	between := x509.NewCertPool()
	for _, c := range sent[1:] {
		between.AddCert(c)
	}
	chains, err := sent[0].Verify(x509.VerifyOptions{Roots: roots(ca), Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		chains = nil
	}
	return expiry(&tls.ConnectionState{VerifiedChains: chains, PeerCertificates: sent})
}

// judgeDate says how long a certificate lasts. Its kind is what metrics and events
// show: ok, warn, alarm or expired.
func judgeDate(r Result, c *placement.TLSCheck, host string, left time.Duration) Result {
	words := fmt.Sprintf("certificate of %s ends in %s", host, days(left))
	switch {
	case left <= 0:
		r.State, r.Kind, r.Cause = placement.Down, "expired", fmt.Sprintf("certificate of %s ended %s ago", host, days(-left))
	case left <= c.Alarm.Or(placement.DefaultTLSAlarm):
		r.State, r.Kind, r.Cause = placement.Up, "alarm", words
	case left <= c.Warn.Or(placement.DefaultTLSWarn):
		r.State, r.Kind, r.Cause = placement.Up, "warn", words
	default:
		r = passed(r)
	}
	return r
}

// days says a span as people count it.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
