import { useState } from 'preact/hooks';
import { usePoll } from './api.js';
import { ago } from './format.js';
import { Diff, Empty, Failed } from './parts.jsx';

const idOf = (o) => `${o.kind}/${o.metadata.namespace || 'default'}/${o.metadata.name}`;

// YAML for reading: our objects hold maps, lists and scalars only.
function yaml(value, indent = '') {
  if (Array.isArray(value)) {
    if (!value.length) return ' []\n';
    return `\n${value.map((v) => `${indent}-${typeof v === 'object' && v ? ` ${yaml(v, `${indent}  `).replace(/^\n\s*/, '')}` : ` ${scalar(v)}\n`}`).join('')}`;
  }
  if (value && typeof value === 'object') {
    const keys = Object.keys(value);
    if (!keys.length) return ' {}\n';
    return `\n${keys.map((k) => `${indent}${k}:${typeof value[k] === 'object' && value[k] ? yaml(value[k], `${indent}  `) : ` ${scalar(value[k])}\n`}`).join('')}`;
  }
  return ` ${scalar(value)}\n`;
}
function scalar(v) {
  if (typeof v !== 'string') return String(v);
  return /^[A-Za-z0-9_./*-][A-Za-z0-9_ ./*:-]*$/.test(v) && !/: |:$|^(true|false|null|yes|no|[\d.]+)$/.test(v) ? v : JSON.stringify(v);
}
const text = (o) => yaml(o).replace(/^\n/, '');

// Lines of `a` and `b` as a unified diff without context lines left out: objects are short.
function diff(a, b) {
  const x = a ? text(a).split('\n') : [];
  const y = b ? text(b).split('\n') : [];
  if (x.length * y.length > 250000) return [...x.map((l) => `-${l}`), ...y.map((l) => `+${l}`)].join('\n');
  const t = Array.from({ length: x.length + 1 }, () => new Uint32Array(y.length + 1));
  for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) t[i][j] = x[i] === y[j] ? t[i + 1][j + 1] + 1 : Math.max(t[i + 1][j], t[i][j + 1]);
  const out = [];
  let [i, j] = [0, 0];
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) out.push(` ${x[i++]}`, ...(j++, []));
    else if (j >= y.length || (i < x.length && t[i + 1][j] >= t[i][j + 1])) out.push(`-${x[i++]}`);
    else out.push(`+${y[j++]}`);
  }
  return out.filter((l) => l.trim()).join('\n');
}

function Revision({ number }) {
  const { data, error } = usePoll(`/api/v1/history/${number}`);
  if (!data) return <Failed error={error} />;
  return <div>{(data.changes || []).map((c) => <div key={`${c.kind}/${c.name}`}><h4>{c.action} {c.kind} {c.namespace}/{c.name}</h4><Diff text={diff(c.old, c.new)} /></div>)}</div>;
}

export function Policies({ route }) {
  const objects = usePoll('/api/v1/objects', 5000);
  const history = usePoll('/api/v1/history?limit=50', 5000);
  const [open, setOpen] = useState(0);
  const wanted = route.query.get('object');
  const list = objects.data?.objects || [];
  return (
    <div class="page">
      <div class="head"><h1>Policies</h1>{objects.data && <span class="muted">revision {objects.data.revision}</span>}</div>
      <Failed error={objects.error || history.error} />
      <div class="columns">
        <section>
          <h2>In force</h2>
          {objects.data && list.length === 0 && <Empty title="No policy">The mesh runs on its defaults. Apply one with <code>weft apply -f</code>.</Empty>}
          {list.map((o) => (
            <details key={idOf(o)} class="card object" open={wanted === idOf(o)}>
              <summary><span class="kind">{o.kind}</span><b>{o.metadata.name}</b><span class="muted">{o.metadata.namespace || 'default'}{o.metadata.revision ? ` · revision ${o.metadata.revision}` : ''}</span></summary>
              <pre>{text({ spec: o.spec })}</pre>
            </details>
          ))}
        </section>
        <section>
          <h2>History</h2>
          {history.data && !history.data.revisions.length && <p class="muted">No revision yet.</p>}
          <ol class="history">
            {(history.data?.revisions || []).map((r) => (
              <li key={r.revision} class="card">
                <button type="button" class="row" aria-expanded={open === r.revision} onClick={() => setOpen(open === r.revision ? 0 : r.revision)}>
                  <b>{r.revision}</b><span class={`tag ${r.action === 'rollback' ? 'warn' : ''}`}>{r.action}</span>
                  <span class="what">{(r.changes || []).map((c) => `${c.kind} ${c.name}`).join(', ')}<small>{r.message}</small></span>
                  <span class="muted" title={r.time}>{ago(r.time)}</span>
                </button>
                {open === r.revision && <Revision number={r.revision} />}
              </li>
            ))}
          </ol>
        </section>
      </div>
    </div>
  );
}
