export function rate(n) {
  if (!n) return '0';
  if (n < 0.1) return n.toFixed(2);
  if (n < 10) return n.toFixed(1);
  if (n < 10000) return String(Math.round(n));
  return `${(n / 1000).toFixed(1)}k`;
}
export function count(n) {
  return String(n ?? 0).replace(/\B(?=(\d{3})+$)/g, ' ');
}
export function percent(x) {
  const p = (x || 0) * 100;
  if (p === 0) return '0 %';
  if (p < 0.01) return '<0.01 %';
  if (p < 1) return `${p.toFixed(2)} %`;
  if (p < 10) return `${p.toFixed(1)} %`;
  return `${Math.round(p)} %`;
}
export function ms(v) {
  if (v === undefined || v === null) return '–';
  if (v < 1) return `${Math.round(v * 1000)} µs`;
  if (v < 10) return `${v.toFixed(1)} ms`;
  if (v < 1000) return `${Math.round(v)} ms`;
  return `${(v / 1000).toFixed(2)} s`;
}
export const us = (v) => ms((v || 0) / 1000);
export function bytes(n) {
  if (n < 1024) return `${n} B`;
  if (n < 1048576) return `${(n / 1024).toFixed(1)} KiB`;
  return `${(n / 1048576).toFixed(1)} MiB`;
}
const two = (n) => String(n).padStart(2, '0');
export function clock(unixUs) {
  const d = new Date(unixUs / 1000);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`;
}
export function ago(time) {
  const t = typeof time === 'number' ? time : Date.parse(time);
  if (!t) return '–';
  const s = Math.max(0, (Date.now() - t) / 1000);
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  if (s < 129600) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} d ago`;
}
export function cut(text, n) {
  return text.length > n ? `${text.slice(0, n - 1)}…` : text;
}
export const level = (errorRate, requests = 1) => (!requests ? 'idle' : errorRate >= 0.05 ? 'bad' : errorRate >= 0.01 ? 'warn' : 'ok');
// Colours for services: by name, so that a service keeps its own, and moved on where two would meet on one screen.
export function hues(names) {
  const out = new Map();
  const used = new Set();
  for (const name of [...new Set(names)].sort()) {
    let h = 2166136261;
    for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 16777619);
    h = (h >>> 0) % 8;
    for (let k = 0; used.has(h) && k < 8; k++) h = (h + 1) % 8;
    used.add(h);
    out.set(name, `h${h}`);
  }
  return (name) => out.get(name) || 'h0';
}
