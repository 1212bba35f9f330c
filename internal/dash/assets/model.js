// The model is what the page knows. The stream fills it; views read it.

export const WORST_FIRST = ['down', 'unknown', 'degraded', 'draining', 'up'];
export const SHAPES = { up: '●', degraded: '▲', draining: '◆', down: '✖', unknown: '■' };

const KEPT_EVENTS = 50;

export class Model {
  constructor() {
    this.listeners = [];
    this.clear();
  }

  clear() {
    this.status = null;
    this.sites = new Map();
    this.peers = new Map();
    this.sessions = new Map();
    this.events = [];
    this.skew = 0; // server's clock minus ours, in ms
    this.heard = 0; // our clock, when the last message came
  }

  listen(f) { this.listeners.push(f); }
  tell(topic) { for (const f of this.listeners) f(topic); }

  // now is the server's clock, by which all ages are counted.
  now() { return Date.now() + this.skew; }

  rows() {
    return [...this.sites.values()].sort((a, b) =>
      WORST_FIRST.indexOf(a.status) - WORST_FIRST.indexOf(b.status) || a.name.localeCompare(b.name));
  }

  // take applies one message of the stream.
  take(topic, data) {
    this.heard = Date.now();
    switch (topic) {
      case 'reset': this.clear(); this.heard = Date.now(); break;
      case 'state':
        this.setStatus(data.status);
        this.sites = new Map(data.sites.map((r) => [r.name, r]));
        this.peers = new Map(data.peers.map((r) => [r.name, r]));
        this.sessions = new Map(data.sessions.map((r) => [`${r.site}/${r.node}`, r]));
        this.events = data.events.slice(-KEPT_EVENTS).reverse();
        break;
      case 'snapshot': this.setStatus(data); break;
      case 'site': keep(this.sites, data, data.name); break;
      case 'bgp': keep(this.peers, data, data.name); break;
      case 'transfer': keep(this.sessions, data, `${data.site}/${data.node}`); break;
      case 'event':
        if (!this.events.some((e) => e.at === data.at && e.text === data.text)) this.events.unshift(data);
        this.events.length = Math.min(this.events.length, KEPT_EVENTS);
        break;
    }
    this.tell(topic);
  }

  setStatus(status) {
    this.status = status;
    this.skew = Date.parse(status.now) - Date.now();
  }
}

function keep(map, row, key) {
  if (row.gone) map.delete(row.key);
  else map.set(key, row);
}
