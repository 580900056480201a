import { usePoll } from './api.js';
import { ago } from './format.js';
import { Empty, Failed } from './parts.jsx';

const TYPES = ['cds', 'eds', 'lds', 'rds'];

function State({ of }) {
  if (!of.connected) return <span class="tag bad">disconnected</span>;
  if (Object.values(of.types || {}).some((t) => t?.nack)) return <span class="tag bad">rejected</span>;
  if (of.draining) return <span class="tag warn">draining</span>;
  if (!of.synced) return <span class="tag warn">behind</span>;
  if (of.ready === false) return <span class="tag warn">not ready</span>;
  return <span class="tag good">in sync</span>;
}

export function Sidecars() {
  const { data, error } = usePoll('/api/v1/status', 3000);
  const list = data?.sidecars || [];
  return (
    <div class="page">
      <div class="head"><h1>Sidecars</h1>{data && <span class="muted">revision {data.revision} · {data.trust_domain}</span>}</div>
      <Failed error={error} />
      {data && list.length === 0 && <Empty title="No sidecar has connected">Start one with <code>weft run</code>.</Empty>}
      {list.length > 0 && (
        <div class="scroll card">
          <table>
            <thead>
              <tr><th>Workload</th><th>State</th><th class="num">Revision</th>{TYPES.map((t) => <th key={t}>{t.toUpperCase()}</th>)}<th>Address</th><th>Certificate</th><th>Seen</th></tr>
            </thead>
            <tbody>
              {list.flatMap((s) => {
                const nacks = TYPES.filter((t) => s.types?.[t]?.nack);
                return [
                  <tr key={s.node} class={nacks.length || !s.connected ? 'failed' : ''}>
                    <td><b>{s.node}</b><small>{[s.service, s.namespace !== 'default' && s.namespace, s.version, s.protocol].filter(Boolean).join(' · ')}</small></td>
                    <td><State of={s} /></td>
                    <td class="num">{s.revision || '–'}</td>
                    {TYPES.map((t) => {
                      const type = s.types?.[t];
                      return <td key={t} title={type?.acked || ''}>{!type ? <span class="muted">–</span> : type.nack ? <span class="bad">NACK</span> : type.pending ? <span class="warn">pending</span> : <span class="good">ACK <small>{type.resources}</small></span>}</td>;
                    })}
                    <td><code>{s.address || '–'}</code></td>
                    <td>{s.certificate_expiry ? <span title={s.certificate_expiry}>{left(s.certificate_expiry)}</span> : '–'}</td>
                    <td class="muted">{ago(s.last_seen)}</td>
                  </tr>,
                  ...nacks.map((t) => (
                    <tr key={`${s.node} ${t}`} class="nack"><td colSpan={10}><b>{t.toUpperCase()} rejected</b> <code>{(s.types[t].nack.names || []).join(', ')}</code> {s.types[t].nack.reason} <small>{ago(s.types[t].nack.time)}; the last good configuration stays in force</small></td></tr>
                  )),
                ];
              })}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

function left(time) {
  const h = (Date.parse(time) - Date.now()) / 3600000;
  if (Number.isNaN(h)) return '–';
  if (h < 0) return 'expired';
  return h < 2 ? `${Math.round(h * 60)} min left` : `${Math.round(h)} h left`;
}
