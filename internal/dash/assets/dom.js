// Small helpers to make elements. No string is ever parsed as HTML: what others
// wrote (reasons, errors) stays text.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// set changes a text only when it differs, so that a screen reader and a
// selection are not disturbed by what stayed the same.
export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// attr sets or removes an attribute only when it differs.
export function attr(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// bar draws a part of 0..1; over says that the end is passed.
export function bar(label) {
  const fillRect = s('rect', { class: 'fill', x: 0, y: 0, height: 8, width: 0 });
  const svg = s('svg', { class: 'meter', viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    s('rect', { class: 'back', x: 0, y: 0, width: 100, height: 8 }), fillRect);
  const text = h('span', { class: 'n' });
  const node = h('span', { class: 'barcell', title: label }, svg, text);
  return {
    node,
    update(part, words) {
      attr(fillRect, 'width', Math.round(Math.min(Math.max(part, 0), 1) * 1000) / 10);
      attr(fillRect, 'class', part > 1 ? 'fill over' : 'fill');
      set(text, words);
    },
  };
}

export const percent = (part) => `${Math.round(part * 100)} %`;

export function count(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)} M`;
  if (n >= 1e4) return `${(n / 1e3).toFixed(1)} k`;
  return n < 10 && n !== Math.trunc(n) ? n.toFixed(1) : String(Math.round(n));
}

export function span(seconds) {
  const t = Math.max(0, seconds);
  if (t < 60) return `${Math.floor(t)} s`;
  if (t < 3600) return `${Math.floor(t / 60)} m`;
  if (t < 172800) return `${Math.floor(t / 3600)} h`;
  return `${Math.floor(t / 86400)} d`;
}
