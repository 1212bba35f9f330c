import { h, set, attr, bar, percent, count, span } from './dom.js';
import { SHAPES } from './model.js';

// routesText names the steps of a site's prefixes: one word when all agree.
export function routesText(routes) {
  const steps = new Map();
  for (const r of routes) if (r.reported) steps.set(r.announced, (steps.get(r.announced) || 0) + 1);
  if (steps.size === 0) return routes.length ? 'not reported' : '–';
  if (steps.size === 1) return [...steps.keys()][0];
  return [...steps].map(([step, n]) => `${n} ${step}`).join(', ');
}

function sessionsText(row) {
  const text = count(row.sessions);
  return row.edge.moving ? `${text} (${row.edge.moving} moving)` : text;
}

const LABELS = ['Status', 'Site', 'DNS share', 'Answers/s', 'Load', 'Routes', 'BGP', 'Sessions', 'Since', 'Reason', ''];
const NUMBERS = new Set([3, 6, 7, 8]);

// Sites draws one row per site, keyed by name: a row that stays is moved, never
// made anew, so that focus stays with its site.
export class Sites {
  constructor(model, table, actions) {
    this.model = model;
    this.body = table.tBodies[0];
    this.actions = actions;
    this.rows = new Map();
  }

  update() {
    const list = this.model.rows();
    for (const [name, row] of this.rows) {
      if (!this.model.sites.has(name)) { row.tr.remove(); this.rows.delete(name); }
    }
    list.forEach((site, i) => {
      let row = this.rows.get(site.name);
      if (!row) { row = this.make(site.name); this.rows.set(site.name, row); }
      const there = this.body.rows[i];
      if (there !== row.tr) {
        const focus = document.activeElement;
        const inside = row.tr.contains(focus);
        this.body.insertBefore(row.tr, there || null);
        if (inside) focus.focus({ preventScroll: true });
      }
      this.fill(row, site);
    });
  }

  make(name) {
    const cells = LABELS.map((label, i) => h('td', { 'data-label': label, class: NUMBERS.has(i) ? 'n' : null }));
    const row = {
      cells,
      share: bar('Share of the demand which answers send here'),
      load: bar('Load of the capacity'),
      button: h('button', { type: 'button', class: 'quiet', onclick: () => this.actions.drain(name) }, 'Drain'),
      open: h('button', { type: 'button', class: 'link', onclick: () => this.actions.show(name) }, name),
      shape: h('span', { class: 'shape', 'aria-hidden': 'true' }),
      word: h('span'),
      city: h('span', { class: 'city' }),
    };
    cells[0].append(row.shape, row.word);
    cells[1].append(row.open, row.city);
    cells[2].append(row.share.node);
    cells[4].append(row.load.node);
    cells[10].append(row.button);
    row.tr = h('tr', { tabindex: '-1', 'data-site': name }, cells);
    return row;
  }

  fill(row, site) {
    attr(row.tr, 'class', `st-${site.status}`);
    set(row.shape, SHAPES[site.status] || SHAPES.unknown);
    set(row.word, site.status);
    set(row.city, site.city || '');
    row.share.update(site.dns.share, percent(site.dns.share));
    set(row.cells[3], count(site.dns.answers_per_second));
    const use = site.load.use;
    row.load.node.hidden = use === undefined;
    if (use !== undefined) {
      row.load.update(use, percent(use));
    }
    const told = site.silent ? '?' : ''; // its last word
    set(row.cells[5], routesText(site.routes) + told);
    set(row.cells[6], `${site.bgp.established}/${site.bgp.configured}${told}`);
    set(row.cells[7], sessionsText(site) + told);
    this.age(row, site);
    set(row.cells[9], site.reason || '');
    const drained = Boolean(site.intents.drain);
    set(row.button, drained ? 'Undrain' : 'Drain');
    attr(row.button, 'aria-label', `${drained ? 'Undrain' : 'Drain'} ${site.name}`);
  }

  age(row, site) {
    const since = Date.parse(site.since || '');
    set(row.cells[8], Number.isNaN(since) ? '' : span((this.model.now() - since) / 1000));
    attr(row.cells[8], 'title', site.since ? new Date(since).toISOString() : null);
  }

  // tick lets ages grow between messages.
  tick() {
    for (const [name, row] of this.rows) {
      const site = this.model.sites.get(name);
      if (site) this.age(row, site);
    }
  }

  // move puts the focus on the next or previous row.
  move(by) {
    const all = [...this.body.rows];
    const at = all.indexOf(document.activeElement.closest?.('tr[data-site]'));
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    next?.focus();
  }

  focused() {
    return document.activeElement.closest?.('tr[data-site]')?.dataset.site;
  }
}
