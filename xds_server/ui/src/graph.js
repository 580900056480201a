// Where nodes go: calls read from left to right, forces settle the rest. Pure apart from d3's own state.
import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from 'd3-force';

export const NODE = { w: 148, h: 48 };
const COLUMN = 290;

// Longest way from an entry, with back edges of cycles ignored.
function columns(names, edges) {
  const out = new Map(names.map((n) => [n, []]));
  const into = new Map(names.map((n) => [n, 0]));
  for (const e of edges) {
    if (e.source === e.destination) continue;
    out.get(e.source).push(e.destination);
    into.set(e.destination, into.get(e.destination) + 1);
  }
  const column = new Map();
  const visiting = new Set();
  const order = [];
  const visit = (n) => {
    if (column.has(n) || visiting.has(n)) return;
    visiting.add(n);
    for (const m of out.get(n)) visit(m);
    visiting.delete(n);
    column.set(n, 0);
    order.push(n);
  };
  [...names].sort((a, b) => into.get(a) - into.get(b) || (a < b ? -1 : 1)).forEach(visit);
  order.reverse();
  const place = new Map(order.map((n, i) => [n, i]));
  for (const n of order) {
    for (const m of out.get(n)) {
      if (place.get(m) > place.get(n)) column.set(m, Math.max(column.get(m), column.get(n) + 1));
    }
  }
  return column;
}

// `known` keeps positions between calls, so that a new service does not shuffle the map.
export function layout(names, edges, known) {
  const column = columns(names, edges);
  const rows = new Map();
  const nodes = names.map((name) => {
    const c = column.get(name);
    const row = rows.get(c) || 0;
    rows.set(c, row + 1);
    const old = known.get(name);
    return { id: name, column: c, x: old && old.column === c ? old.x : c * COLUMN, y: old ? old.y : (row - 0.5) * 110 + c * 7 };
  });
  const links = edges.filter((e) => e.source !== e.destination).map((e) => ({ source: e.source, target: e.destination }));
  forceSimulation(nodes)
    .force('x', forceX((d) => d.column * COLUMN).strength(1.4))
    .force('y', forceY(0).strength(0.035))
    .force('link', forceLink(links).id((d) => d.id).distance(COLUMN).strength(0.12))
    .force('charge', forceManyBody().strength(-420).distanceMax(700))
    .force('apart', forceCollide(NODE.h * 0.98).strength(1))
    .stop()
    .tick(known.size ? 120 : 320);
  // Cards are wider than high: within a column they must not touch.
  const by = new Map();
  for (const n of nodes) {
    n.x = n.column * COLUMN;
    if (!by.has(n.column)) by.set(n.column, []);
    by.get(n.column).push(n);
  }
  for (const list of by.values()) {
    list.sort((a, b) => a.y - b.y);
    for (let i = 1; i < list.length; i++) list[i].y = Math.max(list[i].y, list[i - 1].y + NODE.h + 42);
    const shift = list.reduce((s, n) => s + n.y, 0) / list.length;
    for (const n of list) n.y -= shift * 0.5;
  }
  for (const n of nodes) known.set(n.id, { x: n.x, y: n.y, column: n.column });
  return new Map(nodes.map((n) => [n.id, n]));
}

export function box(places) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const p of places.values()) {
    x0 = Math.min(x0, p.x - NODE.w / 2);
    x1 = Math.max(x1, p.x + NODE.w / 2);
    y0 = Math.min(y0, p.y - NODE.h / 2);
    y1 = Math.max(y1, p.y + NODE.h / 2);
  }
  return { x: x0 - 40, y: y0 - 60, w: x1 - x0 + 80, h: y1 - y0 + 120 };
}

// Where edges leave and enter: spread over the card's side in the order of the other ends, so that they do not share a point.
function ports(edges, places) {
  const sides = new Map();
  const put = (name, side, e, y) => {
    const key = `${name}\n${side}`;
    if (!sides.has(key)) sides.set(key, []);
    sides.get(key).push([e, y]);
  };
  for (const e of edges) {
    const a = places.get(e.source);
    const b = places.get(e.destination);
    if (a === b || b.x - a.x < NODE.w) continue;
    put(e.source, 'out', e, b.y);
    put(e.destination, 'in', e, a.y);
  }
  const out = new Map();
  for (const [key, list] of sides) {
    list.sort((p, q) => p[1] - q[1]);
    const step = Math.min(13, (NODE.h - 14) / Math.max(1, list.length - 1));
    const side = key.split('\n')[1];
    list.forEach(([e], i) => {
      if (!out.has(e)) out.set(e, { out: 0, in: 0 });
      out.get(e)[side] = (i - (list.length - 1) / 2) * step;
    });
  }
  return out;
}

const point = (c, t) => {
  const u = 1 - t;
  return [0, 1].map((k) => u * u * u * c[k] + 3 * u * u * t * c[k + 2] + 3 * u * t * t * c[k + 4] + t * t * t * c[k + 6]);
};

// The four points of a cubic from card to card.
function cubic(a, b, port) {
  if (a === b) {
    const y = a.y - NODE.h / 2;
    return [a.x - 26, y, a.x - 60, y - 58, a.x + 60, y - 58, a.x + 26, y];
  }
  if (b.x - a.x >= NODE.w) {
    const sx = a.x + NODE.w / 2;
    const tx = b.x - NODE.w / 2 - 7;
    const [sy, ty] = [a.y + port.out, b.y + port.in];
    const bend = Math.max(46, (tx - sx) * 0.42);
    // Edges over more than one column swing wide, so that they pass the cards between.
    const far = b.column - a.column > 1 ? ((a.y + b.y) / 2 <= 0 ? -1 : 1) * 46 * (b.column - a.column) : 0;
    return [sx, sy, sx + bend, sy + far, tx - bend, ty + far, tx, ty];
  }
  if (Math.abs(b.x - a.x) < NODE.w) {
    const sx = a.x + NODE.w / 2;
    const tx = b.x + NODE.w / 2 + 7;
    return [sx, a.y, sx + 90, a.y, tx + 90, b.y, tx, b.y];
  }
  const down = a.y <= b.y ? 1 : -1;
  const sy = a.y + (down * NODE.h) / 2;
  const ty = b.y + (down * NODE.h) / 2 + down * 7;
  const far = Math.max(sy * down, ty * down) * down + down * 80;
  return [a.x, sy, a.x, far, b.x, far, b.x, ty];
}

export const LABEL = { w: 112, h: 34 };

// Curves and label places for all edges: each label takes the spot on its curve that covers least of what is there already.
export function routes(edges, places) {
  // A label on another label can be guessed; one behind a card is gone.
  const taken = [...places.values()].map((p) => ({ x: p.x, y: p.y, w: NODE.w + 6, h: NODE.h + 6, weight: 8 }));
  const cost = (x, y) => taken.reduce((sum, t) => {
    const w = (t.w + LABEL.w) / 2 - Math.abs(t.x - x);
    const h = (t.h + LABEL.h) / 2 - Math.abs(t.y - y);
    return w > 0 && h > 0 ? sum + w * h * t.weight : sum;
  }, 0);
  const at = ports(edges, places);
  const out = new Map();
  for (const e of edges) {
    const c = cubic(places.get(e.source), places.get(e.destination), at.get(e) || { out: 0, in: 0 });
    let best = null;
    for (const t of [0.5, 0.43, 0.57, 0.36, 0.64, 0.3, 0.7, 0.24, 0.76, 0.18, 0.82]) {
      const [x, y] = point(c, t);
      for (const dy of [0, -10, 10, -22, 22, -34, 34]) {
        const here = cost(x, y + dy) + Math.abs(t - 0.5) * 120 + Math.abs(dy) * 6;
        if (!best || here < best.cost) best = { x, y: y + dy, cost: here };
      }
    }
    taken.push({ x: best.x, y: best.y, w: LABEL.w + 4, h: LABEL.h + 4, weight: 1 });
    out.set(`${e.source}→${e.destination}`, { d: `M${c[0]},${c[1]} C${c[2]},${c[3]} ${c[4]},${c[5]} ${c[6]},${c[7]}`, x: best.x, y: best.y });
  }
  return out;
}
