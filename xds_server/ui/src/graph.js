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
    for (let i = 1; i < list.length; i++) list[i].y = Math.max(list[i].y, list[i - 1].y + NODE.h + 34);
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

// A curve from card to card and the point for its label.
export function curve(a, b) {
  if (a === b) {
    const x = a.x;
    const y = a.y - NODE.h / 2;
    return { d: `M${x - 26},${y} C${x - 60},${y - 58} ${x + 60},${y - 58} ${x + 26},${y}`, x, y: y - 44 };
  }
  const forward = b.x - a.x >= NODE.w;
  if (forward) {
    const sx = a.x + NODE.w / 2;
    const tx = b.x - NODE.w / 2 - 7;
    const bend = Math.max(46, (tx - sx) * 0.45);
    // Edges over more than one column swing wide, so that they pass the cards between.
    const far = b.column - a.column > 1 ? ((a.y + b.y) / 2 <= 0 ? -1 : 1) * 64 : 0;
    return {
      d: `M${sx},${a.y} C${sx + bend},${a.y + far} ${tx - bend},${b.y + far} ${tx},${b.y}`,
      x: (sx + tx) / 2,
      y: (a.y + b.y) / 2 + far * 0.75,
    };
  }
  const down = a.y <= b.y ? 1 : -1;
  if (Math.abs(b.x - a.x) < NODE.w) {
    const sx = a.x + NODE.w / 2;
    const tx = b.x + NODE.w / 2 + 7;
    return { d: `M${sx},${a.y} C${sx + 70},${a.y} ${tx + 70},${b.y} ${tx},${b.y}`, x: Math.max(sx, tx) + 52, y: (a.y + b.y) / 2 };
  }
  const sy = a.y + (down * NODE.h) / 2;
  const ty = b.y + (down * NODE.h) / 2 + down * 7;
  const far = Math.max(sy * down, ty * down) * down + down * 70;
  return { d: `M${a.x},${sy} C${a.x},${far} ${b.x},${far} ${b.x},${ty}`, x: (a.x + b.x) / 2, y: far - down * 22 };
}
