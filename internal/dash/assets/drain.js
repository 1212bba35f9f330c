import { h, bar, percent, count } from './dom.js';
import { ask } from './ask.js';

// DrainDialog shows the consequence before anybody confirms, and looks again
// whenever the state has moved on.
export class DrainDialog {
  constructor(model, dialog) {
    this.model = model;
    this.dialog = dialog;
    this.site = null;
    this.seen = '';
    dialog.addEventListener('close', () => this.closed());
  }

  open(name) {
    const site = this.model.sites.get(name);
    if (!site) return;
    this.site = name;
    this.undo = Boolean(site.intents.drain);
    this.back = document.activeElement;
    const verb = this.undo ? 'Undrain' : 'Drain';
    this.reason = h('input', { name: 'reason', required: !this.undo, autocomplete: 'off', placeholder: 'CHG-2231 fibre work' });
    this.minutes = h('input', { name: 'minutes', type: 'number', min: '1', max: '10080', placeholder: 'no end' });
    this.result = h('div', { class: 'consequence', 'aria-live': 'polite' });
    this.go = h('button', { type: 'submit', class: this.undo ? '' : 'danger' }, `${verb} ${name}`);
    this.dialog.replaceChildren(h('form', { onsubmit: (e) => { e.preventDefault(); this.submit(); } },
      h('h2', { id: 'drain-title' }, `${verb} ${name}?`),
      h('label', null, 'Reason, for the next shift ', this.reason),
      this.undo ? null : h('label', null, 'Minutes, then it pages ', this.minutes),
      this.result,
      h('p', { class: 'buttons' }, this.go, h('button', { type: 'button', onclick: () => this.dialog.close() }, 'Cancel'))));
    this.dialog.showModal();
    this.reason.focus();
    this.look();
  }

  closed() {
    if (this.dialog.open) return; // the event comes late: it was opened again meanwhile
    this.site = null;
    this.back?.focus?.();
  }

  // refresh looks again when the snapshot has changed under an open dialog.
  refresh() {
    if (this.site && this.seen !== this.model.status?.snapshot.name) this.look();
  }

  async look() {
    const site = this.site;
    this.seen = this.model.status?.snapshot.name;
    if (!this.model.status?.lab) {
      this.go.disabled = true;
      this.result.replaceChildren(h('p', null, 'This page may only read. On the machine of a unit, say:'),
        h('pre', null, `rhumb ${this.undo ? 'undrain' : 'drain'} ${site}${this.undo ? '' : ' --reason "…"'}`));
      return;
    }
    if (this.undo) {
      this.result.replaceChildren(h('p', null, 'The site is announced again and its share grows step by step.'));
      return;
    }
    try {
      const out = await ask('POST', `/sites/${encodeURIComponent(site)}/drain`, { reason: this.reason.value || 'a look', dry_run: true });
      if (this.site === site) this.result.replaceChildren(h('p', null, out.text), forecast(out.forecast));
    } catch (e) {
      if (this.site === site) this.result.replaceChildren(h('p', { class: 'error' }, e.message), h('p', null, howOn(e, site)));
    }
  }

  async submit() {
    const site = this.site;
    this.go.disabled = true;
    try {
      if (this.undo) {
        await ask('POST', `/sites/${encodeURIComponent(site)}/undrain`, { reason: this.reason.value });
      } else {
        const body = { reason: this.reason.value };
        if (this.minutes.value) body.for = `${Number(this.minutes.value)}m`;
        await ask('POST', `/sites/${encodeURIComponent(site)}/drain`, body);
      }
      this.dialog.close();
    } catch (e) {
      this.result.replaceChildren(h('p', { class: 'error', role: 'alert' }, e.message), h('p', null, howOn(e, site)));
      this.go.disabled = false;
    }
  }
}

// howOn says the next step after a refusal.
function howOn(e, site) {
  if (!e.rule) return '';
  return `To do it all the same: rhumb drain ${site} --reason "…" --override ${e.rule}`;
}

// forecast draws the load of each site after the change.
export function forecast(f) {
  if (!f) return '';
  return h('table', { class: 'small' },
    h('thead', null, h('tr', null, ['Site', 'Before', 'After', 'Load after'].map((t) => h('th', { scope: 'col' }, t)))),
    h('tbody', null, f.sites.map((site) => {
      const load = bar('Load after');
      const part = site.capacity_qps > 0 ? site.after_qps / site.capacity_qps : 0;
      load.update(part, site.capacity_qps > 0 ? percent(part) + (part > 1 ? ' OVER' : '') : 'no limit');
      return h('tr', null, h('td', null, site.site), h('td', { class: 'n' }, count(site.before_qps)), h('td', { class: 'n' }, count(site.after_qps)), h('td', null, load.node));
    })));
}
