import { h } from './dom.js';

const SHAPE = { page: '✖', warn: '▲', info: '·' };

// banners draws what is loud, worst first, on every page.
export function banners(model, node) {
  const status = model.status;
  const list = status ? [...status.notices] : [];
  if (status?.lab) list.push({ level: 'info', kind: 'Lab', text: 'This is a small internet on one machine; everybody on it may read and operate.' });
  const key = JSON.stringify(list);
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...list.map((n) => h('p', { class: `banner ${n.level}`, role: n.level === 'page' ? 'alert' : null },
    h('span', { class: 'shape', 'aria-hidden': 'true' }, SHAPE[n.level]), h('strong', null, n.kind), ` ${n.text}`, n.unit ? ` (${n.unit})` : '')));
}

// events puts new ones on top and leaves the others alone.
export function events(model, node) {
  if (model.events.length === 0) {
    node.replaceChildren(h('li', { class: 'hint' }, 'Nothing has happened yet.'));
    return;
  }
  const have = new Map([...node.children].map((li) => [li.dataset.key, li]));
  const want = model.events.map((e) => {
    const key = `${e.at} ${e.kind} ${e.text}`;
    return have.get(key) || h('li', { 'data-key': key },
      h('time', { datetime: e.at, title: e.at }, e.at.slice(11, 19)), h('span', { class: `kind k-${e.kind}` }, e.kind),
      h('span', null, [e.site, e.text].filter(Boolean).join(' '), e.who ? ` (${e.who})` : ''));
  });
  want.forEach((li, i) => { if (node.children[i] !== li) node.insertBefore(li, node.children[i] || null); });
  while (node.children.length > want.length) node.lastChild.remove();
}
