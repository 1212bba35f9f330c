import { set, attr, span } from './dom.js';
import { Model } from './model.js';
import { connect } from './stream.js';
import { Sites } from './sites.js';
import { Detail } from './detail.js';
import { DrainDialog } from './drain.js';
import { banners, events } from './notices.js';
import { wireExplain } from './explain.js';
import { wireWhatIf } from './whatif.js';

const $ = (id) => document.getElementById(id);

const model = new Model();
const detail = new Detail(model, $('detail'));
const drain = new DrainDialog(model, $('drain'));
const sites = new Sites(model, $('sites'), { drain: (name) => drain.open(name), show: (name) => detail.show(name) });

function summary() {
  const st = model.status;
  if (!st) return;
  const n = (word) => (st.sites[word] ? `${st.sites[word]} ${word}` : '');
  const words = ['down', 'unknown', 'degraded', 'draining', 'up'].map(n).filter(Boolean).join(', ');
  set($('summary'), `${words || 'no sites'} · snapshot ${st.snapshot.name || 'none'} · mode ${st.mode} · ${st.units} units · ${st.zones} zones · BGP ${st.peers.established}/${st.peers.configured}`);
  document.title = st.healthy ? 'Rhumb' : '(!) Rhumb';
}

// Messages of one moment are drawn together.
let due = false;
function draw() {
  due = false;
  summary();
  sites.update();
  detail.update();
  drain.refresh();
  banners(model, $('banners'));
  events(model, $('events'));
  $('empty').hidden = model.sites.size > 0 || !model.status;
}
model.listen(() => {
  if (!due) { due = true; requestAnimationFrame(draw); }
});

connect(model, ({ open, age, stale }) => {
  const node = $('connection');
  attr(node, 'class', open && !stale ? 'live' : 'lost');
  const old = age !== null ? ` last update ${span(age)} ago` : '';
  set(node, open ? (stale ? `Stale:${old}` : 'Live') : `${age === null ? 'Connecting…' : 'Reconnecting…'}${stale ? old : ''}`);
  document.body.classList.toggle('stale', stale);
  sites.tick();
});

wireExplain($('explain'), $('explained'));
wireWhatIf(model, $('whatif'), $('forecast'));

// Light or dark: by the system, or by the key.
function theme(next) {
  if (next) { document.documentElement.dataset.theme = next; localStorage.setItem('theme', next); }
}
theme(localStorage.getItem('theme'));
function toggle() {
  const now = document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  theme(now === 'dark' ? 'light' : 'dark');
}
$('theme').addEventListener('click', toggle);

document.addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || $('drain').open || e.target.closest('input, select, textarea')) return;
  const name = sites.focused();
  const keys = {
    j: () => sites.move(1), ArrowDown: () => name && sites.move(1),
    k: () => sites.move(-1), ArrowUp: () => name && sites.move(-1),
    d: () => name && drain.open(name),
    e: () => $('explain').elements.name.focus(),
    t: toggle,
    Enter: () => e.target.matches('tr[data-site]') && detail.show(name),
  };
  if (!keys[e.key]) return;
  if (keys[e.key]() !== undefined || 'jkdet'.includes(e.key) || (name && e.key.startsWith('Arrow'))) e.preventDefault();
});
