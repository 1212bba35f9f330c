import { h, percent } from './dom.js';
import { ask } from './ask.js';

const SIGN = { down: '✖', forced: '✖', drained: '◆' };

// wireExplain answers the form with the chain of the server's own choice.
export function wireExplain(form, out) {
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    const data = new FormData(form);
    try {
      const doc = await ask('POST', '/explain', { name: data.get('name').trim(), type: data.get('type'), client: data.get('client').trim() });
      out.replaceChildren(...draw(doc));
    } catch (err) {
      out.replaceChildren(h('p', { class: 'error', role: 'alert' }, err.message));
    }
  });
}

function draw(e) {
  const answer = h('p', { class: 'answer' }, '→ ', e.text, ' ', (e.answer?.addresses || []).join(', '), e.answer ? `  TTL ${e.answer.ttl_seconds} s` : '', e.answer?.scope ? `  scope ${e.answer.scope}` : '');
  if (!e.trace) return [answer];
  const t = e.trace;
  const where = [t.location.region, t.location.country, t.location.continent].filter(Boolean).join(', ') || 'unknown';
  return [
    answer,
    h('p', { class: 'hint' }, `client ${e.client.subnet}, class ${t.class} (${where}), policy ${t.policy}, mode ${e.mode}, snapshot ${e.snapshot}, decided in ${e.took_us.toFixed(1)} µs`),
    e.demand ? h('p', { class: 'hint' }, `demand: this class asks ${e.demand.asked_qps.toPrecision(3)} queries/s, ${e.demand.planned_rps ? `the plan counts ${e.demand.planned_rps} requests/s` : 'plans go by the expected demand'}`) : '',
    t.fail_open ? h('p', { class: 'error' }, 'FAIL-OPEN: what measures down is answered as if it were up.') : '',
    h('table', { class: 'small' },
      h('thead', null, h('tr', null, ['', 'Cluster', 'Tier', 'RTT ms', 'Share', 'Why'].map((c) => h('th', { scope: 'col' }, c)))),
      h('tbody', null, (t.candidates || []).map((c) => h('tr', { class: c.cluster === t.chosen ? 'chosen' : null },
        h('td', null, c.cluster === t.chosen ? '→' : SIGN[c.out] || '·'), h('td', null, c.cluster), h('td', { class: 'n' }, String(c.tier)),
        h('td', { class: 'n' }, c.cost_ms.toFixed(1)), h('td', { class: 'n' }, c.per_mille ? percent(c.per_mille / 1000) : ''), h('td', null, c.reason))))),
    (e.anycast || []).length ? h('p', { class: 'hint' }, `The address is anycast: routes choose the site. ${e.anycast.map((a) => `${a.site} ${a.step}`).join(', ')}`) : '',
  ].filter(Boolean);
}
