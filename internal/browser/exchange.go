package browser

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Exchange is a request of the page as the network stack of the browser saw it.
type Exchange struct {
	URL        string
	Status     int
	Protocol   string // http/1.1, h2
	Connection int    // as the browser numbers its connections
	Reused     bool   // the connection was there before
	Err        string // why it failed
}

func (e Exchange) String() string {
	return fmt.Sprintf("%s: %d in %s over connection %d, reused %v %s", e.URL, e.Status, e.Protocol, e.Connection, e.Reused, e.Err)
}

// netLog gathers the Exchanges from the browser's events.
type netLog struct {
	order []string // ids of requests
	byID  map[string]*Exchange
}

// netEvent is what is read of any event of the network.
type netEvent struct {
	RequestID string
	Request   struct{ URL string }
	Response  struct {
		Status           int
		Protocol         string
		ConnectionID     int
		ConnectionReused bool
	}
	ErrorText string
}

// take reads an event; those of other kinds change nothing.
func (n *netLog) take(method string, params json.RawMessage) {
	if method != "Network.requestWillBeSent" && method != "Network.responseReceived" && method != "Network.loadingFailed" {
		return
	}
	var e netEvent
	if json.Unmarshal(params, &e) != nil || e.RequestID == "" {
		return
	}
	if n.byID == nil {
		n.byID = map[string]*Exchange{}
	}
	x := n.byID[e.RequestID]
	if x == nil {
		x = &Exchange{}
		n.byID[e.RequestID] = x
		n.order = append(n.order, e.RequestID)
	}
	switch method {
	case "Network.requestWillBeSent":
		x.URL = e.Request.URL
	case "Network.responseReceived":
		r := e.Response
		x.Status, x.Protocol, x.Connection, x.Reused = r.Status, r.Protocol, r.ConnectionID, r.ConnectionReused
	case "Network.loadingFailed":
		x.Err = e.ErrorText
	}
}

// Exchanges are all requests up to now, in order.
func (b *Browser) Exchanges() []Exchange {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Exchange
	for _, id := range b.net.order {
		out = append(out, *b.net.byID[id])
	}
	return out
}

// Connections are those over which the exchanges went, each once, in order of use.
func Connections(all []Exchange) []int {
	var out []int
	for _, x := range all {
		if x.Connection != 0 && !slices.Contains(out, x.Connection) {
			out = append(out, x.Connection)
		}
	}
	return out
}
