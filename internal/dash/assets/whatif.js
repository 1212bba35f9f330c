import { h, bar, percent } from './dom.js';
import { ask } from './ask.js';
import { forecast } from './drain.js';

// wireWhatIf answers what the loss of a site would do, by the same decision
// code that would meet it. Nothing is changed.
export function wireWhatIf(model, form, out) {
  const pick = form.elements.site;
  model.listen(() => {
    const names = [...model.sites.keys()].sort();
    if ([...pick.options].slice(1).map((o) => o.value).join() === names.join()) return;
    const chosen = pick.value;
    pick.replaceChildren(h('option', { value: '' }, 'each in turn'), ...names.map((n) => h('option', { value: n }, n)));
    pick.value = names.includes(chosen) ? chosen : '';
  });
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    try {
      const f = await ask('POST', '/simulate', pick.value ? { down: [pick.value] } : { alone: true });
      out.replaceChildren(...(pick.value ? one(f, pick.value) : each(f)),
        h('p', { class: 'hint' }, `DNS-steered: computed; anycast: ${f.anycast || 'unknown'}. Snapshot ${f.snapshot || ''}`));
    } catch (err) {
      out.replaceChildren(h('p', { class: 'error', role: 'alert' }, err.message));
    }
  });
}

function one(f, site) {
  return [h('p', { class: 'answer' }, `Without ${site}: ${percent(f.moved)} of the demand moves, ${percent(f.unserved)} finds no room`), forecast(f)];
}

// each draws the failure of every single site, worst first.
function each(f) {
  return [h('table', { class: 'small' },
    h('thead', null, h('tr', null, ['Lost', 'Fullest then', 'Its load', 'No room for'].map((t) => h('th', { scope: 'col' }, t)))),
    h('tbody', null, (f.alone || []).map((l) => {
      const load = bar('Load of the fullest site');
      load.update(l.load, percent(l.load) + (l.load > 1 ? ' OVER' : ''));
      return h('tr', null, h('td', null, l.site), h('td', null, l.fullest), h('td', null, load.node), h('td', null, percent(l.unserved)));
    })))];
}
