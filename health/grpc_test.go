package health

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"rhumb/placement"
)

// grpcServer starts a server; with is what it serves, nil for no health service.
func grpcServer(t *testing.T, with *grpchealth.Server, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	if with != nil {
		healthpb.RegisterHealthServer(s, with)
	}
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// TestProbeGRPC: what a server of the real library says of itself.
func TestProbeGRPC(t *testing.T) {
	said := grpchealth.NewServer() // serves as a whole
	said.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
	said.SetServingStatus("shop.Mail", healthpb.HealthCheckResponse_NOT_SERVING)
	said.SetServingStatus("shop.Odd", healthpb.HealthCheckResponse_UNKNOWN)
	addr, mute := grpcServer(t, said), grpcServer(t, nil)
	ca := newAuthority(t, "ours", 900*day, nil)
	cert := ca.leaf(t, 30*day, []string{wwwHost})
	sealed := grpcServer(t, said, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, c := range []struct {
		name, addr string
		check      placement.GRPCCheck
		kind       string
		state      placement.State
	}{
		{"the whole server", addr, placement.GRPCCheck{}, "ok", placement.Up},
		{"a service", addr, placement.GRPCCheck{Service: "shop.Cart"}, "ok", placement.Up},
		{"NOT_SERVING", addr, placement.GRPCCheck{Service: "shop.Mail"}, "not_serving", placement.Down},
		{"UNKNOWN", addr, placement.GRPCCheck{Service: "shop.Odd"}, "not_serving", placement.Down},
		{"a service nobody knows", addr, placement.GRPCCheck{Service: "shop.Kart"}, "unknown_service", placement.Down},
		{"UNIMPLEMENTED", mute, placement.GRPCCheck{}, "unimplemented", placement.Unknown},
		{"TLS", sealed, placement.GRPCCheck{TLS: true, Trust: placement.Trust{CA: ca.pem}}, "ok", placement.Up},
		{"TLS, other name", sealed, placement.GRPCCheck{TLS: true, Host: "x.test", Trust: placement.Trust{CA: ca.pem}}, "name", placement.Down},
		{"TLS, stranger", sealed, placement.GRPCCheck{TLS: true}, "authority", placement.Down},
		{"TLS, pinned", sealed, placement.GRPCCheck{TLS: true, Trust: placement.Trust{Verify: "pin", Pins: []string{pinOf(cert)}}}, "ok", placement.Up},
		{"nobody there", gone.Addr().String(), placement.GRPCCheck{}, "refused", placement.Down},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ProbeGRPC(within(t, 20*time.Second), target(c.addr, placement.Check{GRPC: &c.check}))
			if r.Kind != c.kind || r.State != c.state || (r.Cause == "") != r.OK() {
				t.Errorf("%+v, want %s, %v", r, c.kind, c.state)
			}
			if c.check.TLS && r.OK() && (!r.Expires.Equal(cert.Leaf.NotAfter) || r.Handshake <= r.Connect) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestGRPCHangs: a process that takes connections and says nothing is late, and a
// server of TLS without HTTP/2 is told apart.
func TestGRPCHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if r := ProbeGRPC(within(t, 300*time.Millisecond), target(l.Addr().String(), placement.Check{GRPC: &placement.GRPCCheck{}})); r.Kind != "timeout" {
		t.Errorf("%+v", r)
	}
	ca := newAuthority(t, "ours", 900*day, nil)
	cert := ca.leaf(t, 30*day, []string{wwwHost})
	old, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	go func() {
		if c, err := old.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	if r := ProbeGRPC(within(t, 20*time.Second), target(old.Addr().String(), placement.Check{GRPC: &placement.GRPCCheck{TLS: true, Trust: placement.Trust{CA: ca.pem}}})); r.Kind != "protocol" {
		t.Errorf("%+v", r)
	}
}
