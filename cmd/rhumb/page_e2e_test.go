//go:build e2e

package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhumb/internal/api"
	"rhumb/internal/dash"
	"rhumb/placement"
)

// browser is a headless Chromium which is spoken to over two pipes: messages in
// JSON, a zero byte after each. Nothing listens on the network.
type browser struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      *os.File
	out     *bufio.Reader
	id      int
	session string
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("the browser test needs chromium: apt-get install chromium")
	}
	readCmd, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, writeCmd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, in: in, out: bufio.NewReader(out)}
	b.cmd = exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	b.cmd.ExtraFiles = []*os.File{readCmd, writeCmd} // 3 and 4
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readCmd.Close()
	writeCmd.Close()
	t.Cleanup(func() {
		b.call("Browser.close", map[string]any{}, nil)
		in.Close()
		kill := time.AfterFunc(5*time.Second, func() { b.cmd.Process.Kill() })
		b.cmd.Wait()
		kill.Stop()
		out.Close()
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	return b
}

// call sends a command and waits for its answer; events in between are passed over.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.id++
	msg := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" && !strings.HasPrefix(method, "Browser.") {
		msg["sessionId"] = b.session
	}
	raw, err := json.Marshal(msg)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(raw, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		raw, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var reply struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(raw[:len(raw)-1], &reply); err != nil {
			b.t.Fatal(err)
		}
		if reply.ID != b.id {
			continue
		}
		if reply.Error != nil {
			b.t.Fatalf("%s: %s", method, reply.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(reply.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// eval returns the value of an expression in the page.
func (b *browser) eval(js string) string {
	b.t.Helper()
	var out struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Text string }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": js, "awaitPromise": true, "returnByValue": true}, &out)
	if out.ExceptionDetails != nil {
		return "exception: " + out.ExceptionDetails.Text
	}
	return fmt.Sprint(out.Result.Value)
}

// until waits in the page itself until an expression is true.
func (b *browser) until(what, js string) time.Duration {
	b.t.Helper()
	start := time.Now()
	wait := `new Promise((ok) => { const end = Date.now() + 15000; const look = () => { let v = false; try { v = (` + js + `); } catch {} if (v) ok(true); else if (Date.now() > end) ok(false); else setTimeout(look, 20); }; look(); })`
	if b.eval(wait) != "true" {
		b.shot("failed")
		b.t.Fatalf("%s: not within 15 s; the page says:\n%s", what, b.eval("document.body.innerText"))
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
	var out struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{}, &out)
	png, err := base64.StdEncoding.DecodeString(out.Data)
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
