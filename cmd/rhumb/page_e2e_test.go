//go:build e2e

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rhumb/internal/api"
	chromium "rhumb/internal/browser"
	"rhumb/internal/dash"
	"rhumb/placement"
)

// browser is a headless Chromium in a test: what fails ends it.
type browser struct {
	t *testing.T
	*chromium.Browser
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	b, err := chromium.Start(chromium.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return &browser{t, b}
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	if err := b.Call(method, params, result); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns the value of an expression in the page, or what it threw.
func (b *browser) eval(js string) string {
	b.t.Helper()
	var v any
	if err := b.Eval(js, &v); err != nil {
		return "exception: " + err.Error()
	}
	return fmt.Sprint(v)
}

// until waits in the page itself until an expression is true.
func (b *browser) until(what, js string) time.Duration {
	b.t.Helper()
	start := time.Now()
	wait := `new Promise((ok) => { const end = Date.now() + 40000; const look = () => { let v = false; try { v = (` + js + `); } catch {} if (v) ok(true); else if (Date.now() > end) ok(false); else setTimeout(look, 20); }; look(); })`
	if b.eval(wait) != "true" {
		b.shot("failed")
		b.t.Fatalf("%s: not within 40 s; the page says:\n%s", what, b.eval("document.body.innerText"))
	}
	return time.Since(start)
}

func (b *browser) key(key string) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": kind, "key": key}
		if kind == "keyDown" && len(key) == 1 {
			p["text"] = key
		}
		if code := map[string]int{"Enter": 13, "Escape": 27, "Tab": 9}[key]; code != 0 {
			p["windowsVirtualKeyCode"] = code
			if key == "Enter" && kind == "keyDown" {
				p["text"] = "\r"
			}
		}
		b.call("Input.dispatchKeyEvent", p, nil)
	}
}

func (b *browser) size(width, height int) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// shot keeps a picture where RHUMB_SHOTS names a directory.
func (b *browser) shot(name string) {
	dir := os.Getenv("RHUMB_SHOTS")
	if dir == "" {
		return
	}
	png, err := b.Screenshot()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// pageUnit serves a page whose state changes as a unit's would: a drain that is
// asked for stands in the next state.
type pageUnit struct {
	fakeUnit
	server *api.Server
	stop   func()
}

func (u *pageUnit) Drain(ctx context.Context, d placement.Drain, dry bool) (api.Outcome, error) {
	out, err := u.fakeUnit.Drain(ctx, d, dry)
	if !dry && err == nil {
		st := unitState()
		st.Inventory.Drains = append(st.Inventory.Drains, d)
		u.state.Store(st)
	}
	return out, err
}

func startPage(t *testing.T, address string) (*pageUnit, string) {
	t.Helper()
	u := &pageUnit{}
	u.state.Store(unitState())
	s, err := api.New(api.Config{State: u.now, Events: u, Assets: dash.Handler(), Ops: api.Ops{Drainer: u, Simulator: u},
		Identity: api.Identity{Node: "ams1-a", Unit: "rhumb", Lab: true}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	ended := false
	u.server, u.stop = s, func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(u.stop)
	return u, l.Addr().String()
}

// TestPageInABrowser is the operator's minute: look, drain by keyboard alone,
// lose the server, get it back, on a desk and on a phone, without any error in
// the console.
func TestPageInABrowser(t *testing.T) {
	unit, address := startPage(t, "127.0.0.1:0")
	b := startBrowser(t)
	b.size(1280, 900)
	// Every error that the page meets from here on is kept, policy breaches too.
	b.call("Page.enable", map[string]any{}, nil)
	b.call("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `window.bad = []; addEventListener('error', (e) => bad.push(e.message)); addEventListener('unhandledrejection', (e) => bad.push(String(e.reason))); document.addEventListener('securitypolicyviolation', (e) => bad.push('policy: ' + e.violatedDirective));`}, nil)
	b.call("Page.navigate", map[string]any{"url": "http://" + address + "/"}, nil)

	took := b.until("first live row", `document.querySelectorAll('#sites tbody tr').length === 2 && document.querySelector('#connection').textContent === 'Live'`)
	t.Logf("first live row after %s", took)
	if got := b.eval(`document.querySelector('#sites tbody tr').dataset.site`); got != "nyc1" {
		t.Errorf("the first row is %s; the worst belongs there", got)
	}
	b.until("the events", `document.querySelector('#events').innerText.includes('dns down')`)
	b.eval(`(() => { const f = document.querySelector('#explain'); f.elements.name.value = 'www.cdn.demo.test'; f.elements.client.value = '203.0.113.9'; f.requestSubmit(); const w = document.querySelector('#whatif'); w.elements.site.value = 'ams1'; w.requestSubmit(); })()`)
	b.until("explain names the cluster, and each other's reason", `document.querySelector('#explained .chosen').innerText.includes('ams1/web') && document.querySelector('#explained').innerText.includes('drained by ops: CHG-1')`)
	b.until("the forecast says who is full", `document.querySelector('#forecast').innerText.includes('OVER')`)
	b.shot("desk")

	for _, k := range []string{"j", "j", "d"} {
		b.key(k)
	}
	b.until("the dialog says what happens", `document.querySelector('dialog').open && document.activeElement.name === 'reason' && document.querySelector('.consequence').innerText.includes('answers move away from ams1')`)
	b.shot("dialog")
	b.key("Escape")
	b.until("Escape closes, and the focus goes back", `!document.querySelector('dialog').open && document.activeElement.dataset.site === 'ams1'`)
	b.key("d")
	b.until("open again", `document.activeElement.name === 'reason'`)
	for _, c := range "fibre" {
		b.key(string(c))
	}
	b.key("Enter")
	took = b.until("the row drains", `document.querySelector('tr[data-site=ams1]').className === 'st-draining'`)
	t.Logf("drained row after %s", took)
	if n := len(unit.drains); n == 0 || unit.drains[n-1].Reason != "fibre" || unit.dry[n-1] {
		t.Errorf("drains: %+v", unit.drains)
	}

	unit.stop()
	took = b.until("the loss is told", `document.querySelector('#connection').textContent.startsWith('Reconnecting…')`)
	t.Logf("loss told after %s", took)
	b.until("old data is grey and says its age", `document.body.classList.contains('stale') && /last update \d+ s ago/.test(document.querySelector('#connection').textContent)`)
	b.shot("lost")
	startPage(t, address)
	took = b.until("live again", `document.querySelector('#connection').textContent === 'Live' && document.querySelector('tr[data-site=ams1]').className === 'st-up'`)
	t.Logf("live again after %s", took)

	b.size(390, 800)
	if got := b.eval(`document.documentElement.scrollWidth <= 390`); got != "true" {
		t.Errorf("a phone scrolls sideways: %s px", b.eval(`document.documentElement.scrollWidth`))
	}
	b.key("t")
	if got := b.eval(`document.documentElement.dataset.theme`); got != "dark" {
		t.Errorf("theme %s", got)
	}
	b.shot("phone-dark")
	if got := b.eval(`bad.join('\n')`); got != "" {
		t.Errorf("errors in the page:\n%s", got)
	}
}
