import { h, count, span } from './dom.js';

function table(heads, rows) {
  return h('table', { class: 'small' },
    h('thead', null, h('tr', null, heads.map((t) => h('th', { scope: 'col' }, t)))),
    h('tbody', null, rows.map((cells) => h('tr', null, cells.map((c, i) => h('td', { 'data-label': heads[i] }, c))))));
}

// Detail shows one site: routes, clusters, neighbours, sessions.
export class Detail {
  constructor(model, node) {
    this.model = model;
    this.node = node;
    this.site = null;
    this.drawn = '';
  }

  show(name) {
    this.site = this.site === name ? null : name;
    this.drawn = '';
    this.update();
    if (this.site) this.node.querySelector('h2').focus();
  }

  update() {
    const site = this.model.sites.get(this.site);
    this.node.hidden = !site;
    if (!site) return;
    const peers = [...this.model.peers.values()].filter((p) => p.site === this.site);
    const key = JSON.stringify([site, peers]);
    if (key === this.drawn) return; // nothing to disturb a reader with
    this.drawn = key;
    const ago = (t) => (t && !t.startsWith('0001') ? span((this.model.now() - Date.parse(t)) / 1000) : '');
    const e = site.edge;
    this.node.replaceChildren(
      h('h2', { id: 'detail-title', tabindex: '-1' }, `${site.name} ${site.city || ''}`),
      h('p', null, `${site.status}${site.phase ? `, drain phase ${site.phase}` : ''}${site.reason ? `: ${site.reason}` : ''}`),
      h('p', null, `Sessions: ${e.own} own, ${e.foreign} foreign, ${e.forwarded} forwarded, ${e.moving} moving; moved ${e.moved_out} out, ${e.moved_in} in, ${e.failed} failed`),
      (e.relays || []).map(r => h('p', null, `Packets to ${r.to} go by ${r.via}: the path is broken`)),
      (e.prepared || []).map(p => h('p', null, `Suspects ${p.site}: ${p.ready} of ${p.sessions} sessions prepared`)),
      h('div', { class: 'three' },
        h('div', null, h('h3', null, 'Routes'), table(['Prefix', 'Announced', 'Wanted', 'Holds', 'For', 'Why'],
          site.routes.map((r) => [r.prefix, r.reported ? r.announced : 'not reported', r.want,
            [r.anchor && 'anchor', r.slot && `slot ${r.slot}`].filter(Boolean).join(', '), ago(r.since),
            r.refusal ? `refused: ${r.refusal.rule}, have ${r.refusal.have}, limit ${r.refusal.limit}` : r.cause || '']))),
        h('div', null, h('h3', null, 'Clusters'), table(['Cluster', 'State', 'Down', 'Answers/s', 'For', 'Why'],
          site.clusters.map((c) => [c.name, c.verdict.state + (c.verdict.capped ? ' (kept by the cap)' : '') + (c.verdict.force ? ` (forced ${c.verdict.force})` : ''),
            `${c.verdict.down_domains}/${c.verdict.domains}`, count(c.qps), ago(c.verdict.since), c.verdict.cause || '']))),
        h('div', null, h('h3', null, 'BGP neighbours'), table(['Neighbour', 'AS', 'State', 'For', 'BFD'],
          peers.map((p) => [p.address, String(p.asn), p.state, ago(p.since), p.bfd || 'off'])))));
  }
}
