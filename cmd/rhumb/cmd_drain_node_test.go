package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestWaitNode counts a node's sessions down, and ends when it has none.
func TestWaitNode(t *testing.T) {
	var asked atomic.Int64
	unit := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := max(0, 2-asked.Add(1))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"items":[{"site":"ams1","node":"n2","own":7},{"site":"ams1","node":"n1","own":%d}]}`, own)
	}))
	defer unit.Close()
	var said strings.Builder
	a := &app{out: io.Discard, err: &said}
	a.global.timeout = time.Minute
	c, err := a.dial(unit.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.waitNode(t.Context(), c, "ams1/n1", time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := said.String(); !strings.Contains(got, "ams1/n1: 1 sessions left") || !strings.Contains(got, "ams1/n1 has no sessions left") {
		t.Errorf("said %q", got)
	}
	if err := a.waitNode(t.Context(), c, "ams1/n9", time.Minute); err == nil || !strings.Contains(err.Error(), "reports no sessions") {
		t.Errorf("of a node that is not there: %v", err)
	}
}

// TestWaitNodeUnheard: who is told nothing for as long as he waits hears why, and no number.
func TestWaitNodeUnheard(t *testing.T) {
	unit := httptest.NewServer(http.NotFoundHandler())
	a := &app{out: io.Discard, err: io.Discard}
	a.global.timeout = time.Minute
	c, err := a.dial(unit.URL)
	if err != nil {
		t.Fatal(err)
	}
	unit.Close()
	err = a.waitNode(t.Context(), c, "ams1/n1", time.Millisecond)
	if err == nil || codeOf(err) != exitTimeout || !strings.Contains(err.Error(), "told nothing of its sessions (") || strings.Contains(err.Error(), "-1") {
		t.Errorf("%v", err)
	}
}
