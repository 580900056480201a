import { useState } from 'preact/hooks';
import { usePoll } from './api.js';
import { count, level, ms, percent, rate } from './format.js';
import { Empty, Failed, Windows } from './parts.jsx';

function Row({ of, name, sub, child, share }) {
  return (
    <tr class={child ? 'child' : ''}>
      <td>{child ? <span class="version">{name || 'no version'}</span> : <a href={`#/traces?service=${encodeURIComponent(name)}`}><b>{name}</b></a>}<small>{sub}</small></td>
      <td class="num">{rate(of.rps)}<small>/s</small></td>
      <td class="num">{child ? percent(share) : count(of.requests)}</td>
      <td class={`num ${level(of.error_rate, of.requests)}`}>{of.requests ? percent(of.error_rate) : '–'}</td>
      <td class={`num ${of.denied ? 'warn' : ''}`}>{of.denied ? count(of.denied) : '–'}</td>
      {[of.p50_ms, of.p95_ms, of.p99_ms].map((v, i) => <td key={i} class="num">{of.requests ? ms(v) : '–'}</td>)}
    </tr>
  );
}

export function Services() {
  const [window_, setWindow] = useState(60);
  const { data, error } = usePoll(`/api/v1/services?window=${window_}`, window_ > 300 ? 10000 : 2000);
  const list = (data?.services || []).filter((s) => s.requests > 0 || s.in_mesh);
  return (
    <div class="page">
      <div class="head"><h1>Services</h1><Windows value={window_} onChange={setWindow} /></div>
      <Failed error={error} />
      {data && list.length === 0 && <Empty title="No service has been called">Within this window no sidecar saw a request.</Empty>}
      {list.length > 0 && (
        <div class="scroll card">
          <table>
            <thead>
              <tr><th>Service</th><th class="num">Rate</th><th class="num">Requests</th><th class="num">Errors</th><th class="num">Denied</th><th class="num">p50</th><th class="num">p95</th><th class="num">p99</th></tr>
            </thead>
            <tbody>
              {list.flatMap((s) => [
                <Row key={s.name} of={s} name={s.name} sub={[s.in_mesh ? '' : 'outside the mesh', s.callers.length ? `called by ${s.callers.join(', ')}` : 'entry'].filter(Boolean).join(' · ')} />,
                ...(s.versions.length > 1 ? s.versions.map((v) => (
                  <Row key={`${s.name}\n${v.version}`} child of={v} name={v.version} share={v.requests / (s.requests || 1)} />
                )) : []),
              ])}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
