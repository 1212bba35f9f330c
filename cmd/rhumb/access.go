package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

// dress gives a client what a server on another machine asks for. A token is read
// from a file, since a command line is everybody's to read, and never sent in clear
// over a network.
func (g *access) dress(c *client, server *url.URL) error {
	if g.token != "" {
		if server.Scheme != "https" && !onThisMachine(server.Hostname()) {
			return withCode(exitUsage, fmt.Errorf("--token-file: %s is not https, and a token sent in clear is everybody's", c.where))
		}
		data, err := os.ReadFile(g.token)
		if err != nil {
			return withCode(exitUsage, fmt.Errorf("--token-file: %w", err))
		}
		if c.token = strings.TrimSpace(string(data)); c.token == "" || strings.ContainsAny(c.token, " \n\t") {
			return withCode(exitUsage, fmt.Errorf("--token-file: %s does not hold one token", g.token))
		}
	}
	conf, err := g.tls()
	if err != nil {
		return withCode(exitUsage, err)
	}
	c.http.Transport = &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment}
	// A redirect would carry the token to wherever the answer says.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return nil
}

// tls trusts --ca-file, if given, and shows the client certificate.
func (g *access) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if g.ca != "" {
		pem, err := os.ReadFile(g.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca-file: no certificate in %s", g.ca)
		}
	}
	if (g.cert == "") != (g.key == "") {
		return nil, errors.New("--cert-file and --key-file go together")
	}
	if g.cert != "" {
		pair, err := tls.LoadX509KeyPair(g.cert, g.key)
		if err != nil {
			return nil, fmt.Errorf("--cert-file: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func onThisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (a *app) tokenCommand() *cobra.Command {
	var word string
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for the HTTP API",
		Long: `Make a token for the HTTP API. The token goes to standard output, once; its line for the
file of listen.tokens, which holds a hash only, goes to standard error.`,
		Example: "  rhumb token grafana >grafana.token 2>>/etc/rhumb/secrets/tokens -q",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			secret, line, err := api.NewToken(names[0], word)
			if err != nil {
				return withCode(exitUsage, err)
			}
			a.say("# add this line to the file of listen.tokens:")
			fmt.Fprintln(a.err, line)
			_, err = fmt.Fprintln(a.out, secret)
			return err
		},
	}
	cmd.Flags().StringVar(&word, "role", api.WordViewer, "viewer or operator")
	return cmd
}
