package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// ProbeGRPC asks the health service of a gRPC server and passes on SERVING. A
// server that has no such service is not down: it was never taught to tell.
func ProbeGRPC(ctx context.Context, t Target) Result {
	c := t.Check.GRPC
	host := c.Host
	if host == "" {
		host = t.Host
	}
	watch := startWatch()
	conn, r := connectGRPC(ctx, t, host, watch)
	if conn == nil {
		return watch.stamp(r)
	}
	defer conn.Close()
	ready := make(chan net.Conn, 1)
	ready <- conn
	client, err := grpc.NewClient("passthrough:///"+t.Address.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(host), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithUserAgent("rhumb-health"),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return once(ready) }))
	if err != nil {
		return blind("request", err.Error())
	}
	defer client.Close()
	resp, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service})
	r = judgeHealth(resp, err, c.Service)
	r.Expires = conn.expires
	return watch.stamp(r)
}

// grpcConn is a connection that stands, TLS included. The library would hide why it
// could not be made; so it gets one that was made before.
type grpcConn struct {
	net.Conn
	expires time.Time
}

func once(ready <-chan net.Conn) (net.Conn, error) {
	select {
	case c := <-ready:
		return c, nil
	default:
		return nil, errors.New("the connection has ended")
	}
}

// connectGRPC connects and, if the check says so, shakes hands for HTTP/2
// (RFC 9113, 3.2); without a connection the result says why.
func connectGRPC(ctx context.Context, t Target, host string, watch *stopwatch) (*grpcConn, Result) {
	raw, err := dial(ctx, t)
	if err != nil {
		return nil, failed(dialKind(err), "connect to "+t.Address.String()+": "+reason(err))
	}
	watch.note(func(p *Phases, d time.Duration) { p.Connect = d })
	if !t.Check.GRPC.TLS {
		return &grpcConn{Conn: raw}, Result{}
	}
	config := newVerifier(&t.Check.GRPC.Trust, host).config()
	config.NextProtos = []string{"h2"}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		kind, cause := tlsError(err)
		return nil, failed(kind, "TLS: "+cause)
	}
	watch.note(func(p *Phases, d time.Duration) { p.Handshake = d })
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		conn.Close()
		return nil, failed("protocol", "the server does not speak HTTP/2")
	}
	return &grpcConn{Conn: conn, expires: expiry(&state)}, Result{}
}

// judgeHealth tells a server that says no from one that does not know the service
// and from one that has no health service at all.
func judgeHealth(resp *healthpb.HealthCheckResponse, err error, service string) Result {
	switch s := status.Convert(err); s.Code() {
	case codes.OK:
	case codes.Unimplemented:
		return blind("unimplemented", "the server has no health service (grpc.health.v1)")
	case codes.NotFound:
		return failed("unknown_service", fmt.Sprintf("the server does not know the service %q", service))
	case codes.DeadlineExceeded:
		return failed("timeout", "no answer in time")
	default:
		return failed("rpc", s.Code().String()+": "+s.Message())
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return failed("not_serving", "the server says "+resp.Status.String())
	}
	return passed(Result{})
}
