// The stream comes back by itself: the browser sends the last ID it saw, and
// the server sends what was missed, or everything anew.

const TOPICS = ['state', 'reset', 'snapshot', 'site', 'bgp', 'event', 'transfer'];

// The server tells its status at least each ten seconds; after this long
// without a word what we show is old.
const STALE_MS = 13000;

export function connect(model, onConnection) {
  let source = null;
  let open = false;
  const dial = () => {
    source = new EventSource('/api/v1/stream');
    source.onopen = () => { open = true; look(); };
    source.onerror = () => {
      open = false;
      look();
      // A browser gives up after some answers (503, say); then we begin anew.
      if (source.readyState === EventSource.CLOSED) setTimeout(dial, 2000);
    };
    for (const topic of TOPICS) {
      source.addEventListener(topic, (e) => model.take(topic, JSON.parse(e.data)));
    }
  };
  const look = () => {
    const age = model.heard ? (Date.now() - model.heard) / 1000 : null;
    onConnection({ open, age, stale: age !== null && (age * 1000 > STALE_MS || (!open && age > 2)) });
  };
  dial();
  setInterval(look, 1000);
}
