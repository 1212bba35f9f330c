package browser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// patience bounds every answer of the browser, however busy the machine is.
const patience = 60 * time.Second

// Options say where and how the Browser runs.
type Options struct {
	// Start starts the command, in a namespace say; nil is its Start method. The
	// command needs no files but its standard ones.
	Start func(*exec.Cmd) error
	// Args are more arguments of Chromium.
	Args []string
}

// Browser is a headless Chromium with one page. Its methods may be called from any
// goroutine. It ends by Close alone.
type Browser struct {
	cmd     *exec.Cmd
	dir     string // for its profile and its log
	session string // of the page; empty while there is none

	mu      sync.Mutex
	in      *os.File
	id      int
	waiting map[int]chan reply // by id of the call
	broken  error              // why nothing is read any more
	net     netLog

	out  *os.File
	done chan struct{} // the reader has ended
}

// reply is a message of the browser: an answer to a call, or an event.
type reply struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
	Method string
	Params json.RawMessage
}

// Start starts Chromium and opens an empty page. That chromium is not installed is an
// error, as everything else is.
func Start(o Options) (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, errors.New("browser: chromium is missing: apt-get install chromium")
	}
	dir, err := os.MkdirTemp("", "rhumb-browser-")
	if err != nil {
		return nil, fmt.Errorf("browser: %w", err)
	}
	b := &Browser{dir: dir, waiting: map[int]chan reply{}, done: make(chan struct{})}
	// It reads messages from descriptor 3 and writes to 4. Here these are its standard
	// input and output, which pass through whatever starts it.
	args := append([]string{"-c", `exec "$@" 3<&0 4>&1 >&2 </dev/null`, "sh", path, "--headless=new", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--autoplay-policy=no-user-gesture-required",
		"--remote-debugging-pipe", "--user-data-dir=" + filepath.Join(dir, "profile")}, o.Args...)
	b.cmd = exec.Command("/bin/sh", append(args, "about:blank")...)
	start := o.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := b.launch(start); err != nil {
		return nil, errors.Join(fmt.Errorf("browser: start chromium: %w", err), os.RemoveAll(dir))
	}
	go b.read()
	if err := b.attach(); err != nil {
		err = fmt.Errorf("browser: open a page: %w; chromium says: %s", err, b.log())
		b.Close()
		return nil, err
	}
	return b, nil
}

// launch starts the command with its ends of the pipes and of the log.
func (b *Browser) launch(start func(*exec.Cmd) error) error {
	log, err := os.Create(filepath.Join(b.dir, "chromium.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	theirIn, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer theirOut.Close()
	b.in, b.out = in, out
	b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = theirIn, theirOut, log
	if err := start(b.cmd); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	return nil
}

// attach makes the page and asks for what its network does.
func (b *Browser) attach() error {
	var target struct{ TargetID string }
	if err := b.Call("Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	var attached struct{ SessionID string }
	if err := b.Call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return err
	}
	b.mu.Lock()
	b.session = attached.SessionID
	b.mu.Unlock()
	return errors.Join(b.Call("Network.enable", map[string]any{}, nil), b.Call("Page.enable", map[string]any{}, nil))
}

// read takes messages until the browser ends; each ends in a zero byte.
func (b *Browser) read() {
	defer close(b.done)
	in := bufio.NewReader(b.out)
	for {
		raw, err := in.ReadBytes(0)
		var r reply
		if err == nil {
			err = json.Unmarshal(raw[:len(raw)-1], &r)
		}
		b.mu.Lock()
		if err != nil {
			b.broken = fmt.Errorf("chromium is gone: %w", err)
			for _, w := range b.waiting {
				close(w)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		if w := b.waiting[r.ID]; w != nil {
			delete(b.waiting, r.ID)
			w <- r
		} else if r.Method != "" {
			b.net.take(r.Method, r.Params)
		}
		b.mu.Unlock()
	}
}

// send writes a call and returns where its answer will come.
func (b *Browser) send(method string, params any) (<-chan reply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return nil, b.broken
	}
	b.id++
	msg := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" && method != "Browser.close" {
		msg["sessionId"] = b.session
	}
	raw, err := json.Marshal(msg)
	if err != nil {
		return nil, err
	}
	answer := make(chan reply, 1)
	b.waiting[b.id] = answer
	_, err = b.in.Write(append(raw, 0))
	return answer, err
}

// Call sends a command of the DevTools protocol and waits for its answer.
func (b *Browser) Call(method string, params, result any) error {
	answer, err := b.send(method, params)
	if err != nil {
		return fmt.Errorf("browser: %s: %w", method, err)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case r, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("browser: %s: chromium is gone; it says: %s", method, b.log())
		case r.Error != nil:
			return fmt.Errorf("browser: %s: %s", method, r.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(r.Result, result)
	case <-late.C:
		return fmt.Errorf("browser: %s: no answer in %s; chromium says: %s", method, patience, b.log())
	}
}

// log is the end of what Chromium wrote.
func (b *Browser) log() string {
	text, err := os.ReadFile(filepath.Join(b.dir, "chromium.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// Open loads an address in the page and waits for its end.
func (b *Browser) Open(url string) error {
	var r struct{ ErrorText string }
	if err := b.Call("Page.navigate", map[string]any{"url": url}, &r); err != nil {
		return err
	}
	if r.ErrorText != "" {
		return fmt.Errorf("browser: open %s: %s", url, r.ErrorText)
	}
	return b.Until(patience, fmt.Sprintf(`document.readyState === "complete" && location.href.startsWith(%q)`, url))
}

// Eval stores the value of an expression of the page, and of a promise what it
// becomes, in result.
func (b *Browser) Eval(js string, result any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := b.Call("Runtime.evaluate", map[string]any{"expression": js, "awaitPromise": true, "returnByValue": true}, &r); err != nil {
		return err
	}
	if e := r.ExceptionDetails; e != nil {
		return fmt.Errorf("browser: %s: %s %s", js, e.Text, e.Exception.Description)
	}
	if result == nil || r.Result.Value == nil { // undefined has none
		return nil
	}
	if err := json.Unmarshal(r.Result.Value, result); err != nil {
		return fmt.Errorf("browser: %s: %w", js, err)
	}
	return nil
}

// Until waits until an expression of the page is true.
func (b *Browser) Until(limit time.Duration, js string) error {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		var v bool
		err := b.Eval("!!("+js+")", &v)
		switch {
		case v:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("browser: not within %s: %s (%v)", limit, js, err)
		}
	}
}

// Screenshot is the page as a PNG.
func (b *Browser) Screenshot() ([]byte, error) {
	var r struct{ Data string }
	if err := b.Call("Page.captureScreenshot", map[string]any{}, &r); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(r.Data)
}

// Close ends Chromium and removes what it wrote. What doesn't end when it is asked is
// killed: how a browser ends is not what anybody tests.
func (b *Browser) Close() {
	_, _ = b.send("Browser.close", map[string]any{})
	kill := time.AfterFunc(10*time.Second, func() { _ = b.cmd.Process.Kill() })
	defer kill.Stop()
	_ = b.cmd.Wait()
	late := time.AfterFunc(5*time.Second, func() { _ = b.out.Close() }) // a child of its may hold the pipe
	defer late.Stop()
	<-b.done
	_, _ = b.in.Close(), b.out.Close()
	for range 20 { // its last children may still write
		if os.RemoveAll(b.dir) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}
