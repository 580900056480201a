// Small pieces that several pages share.
import { clock, count, level, ms, percent, rate, us } from './format.js';

export function Failed({ error }) {
  if (!error) return null;
  return <p class="notice bad" role="alert">{error.message}</p>;
}

export function Empty({ title, children }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      <div>{children}</div>
    </div>
  );
}

export function Lock({ open, size = 12 }) {
  return (
    <svg class={`lock ${open ? 'open' : ''}`} width={size} height={size} viewBox="0 0 12 12" role="img" aria-label={open ? 'no mutual TLS' : 'mutual TLS'}>
      <rect x="2" y="5.2" width="8" height="5.8" rx="1.4" />
      <path d={open ? 'M4 5.2V3.6a2 2 0 0 1 3.8-.9' : 'M4 5.2V3.6a2 2 0 0 1 4 0v1.6'} />
    </svg>
  );
}

export function Windows({ value, onChange }) {
  const options = [[60, '1 min'], [300, '5 min'], [3600, '1 h'], [86400, '24 h']];
  return (
    <div class="segments" role="group" aria-label="Time window">
      {options.map(([s, label]) => (
        <button type="button" key={s} aria-pressed={value === s} onClick={() => onChange(s)}>{label}</button>
      ))}
    </div>
  );
}

const OUTCOMES = [
  ['ok', 'answered'],
  ['client_error', '4xx'],
  ['server_error', '5xx'],
  ['grpc_error', 'gRPC error'],
  ['reset', 'reset'],
  ['cancelled', 'caller left'],
  ['denied', 'denied'],
  ['refused', 'TLS refused'],
];

export function Outcomes({ outcomes }) {
  const total = OUTCOMES.reduce((n, [key]) => n + (outcomes[key] || 0), 0);
  if (!total) return null;
  const present = OUTCOMES.filter(([key]) => outcomes[key]);
  return (
    <div class="outcomes">
      <div class="bar" aria-hidden="true">
        {present.map(([key]) => <i key={key} class={`o-${key}`} style={{ flexGrow: outcomes[key] }} />)}
      </div>
      <ul>
        {present.map(([key, label]) => (
          <li key={key}><i class={`o-${key}`} />{label} <b>{count(outcomes[key])}</b></li>
        ))}
      </ul>
    </div>
  );
}

export function Stats({ of, children }) {
  return (
    <dl class="stats">
      <div><dt>Rate</dt><dd>{rate(of.rps)}<small>/s</small></dd></div>
      <div><dt>Requests</dt><dd>{count(of.requests)}</dd></div>
      <div class={level(of.error_rate, of.requests)}><dt>Errors</dt><dd>{percent(of.error_rate)}</dd></div>
      <div><dt>p50</dt><dd>{ms(of.p50_ms)}</dd></div>
      <div><dt>p95</dt><dd>{ms(of.p95_ms)}</dd></div>
      <div><dt>p99</dt><dd>{ms(of.p99_ms)}</dd></div>
      {children}
    </dl>
  );
}

export function Versions({ versions }) {
  const total = versions.reduce((n, v) => n + v.requests, 0) || 1;
  return (
    <table class="compact">
      <thead><tr><th>Version</th><th class="num">Share</th><th class="num">Errors</th><th class="num">p95</th></tr></thead>
      <tbody>
        {versions.map((v) => (
          <tr key={v.version}>
            <td>{v.version || '–'}</td>
            <td class="num share"><i style={{ width: `${(100 * v.requests) / total}%` }} /><span>{percent(v.requests / total)}</span></td>
            <td class={`num ${level(v.error_rate, v.requests)}`}>{percent(v.error_rate)}</td>
            <td class="num">{ms(v.p95_ms)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Pairs({ rows }) {
  return (
    <dl class="pairs">
      {rows.filter(([, v]) => v !== '' && v !== null && v !== undefined && v !== false).map(([k, v]) => (
        <div key={k}><dt>{k}</dt><dd>{v}</dd></div>
      ))}
    </dl>
  );
}

const NOT_RETRIED = { attempts: 'no attempt left', retry_budget: 'retry budget spent', max_retries: 'no room for a retry' };

export function Attempts({ list }) {
  if (!list.length) return null;
  return (
    <div class="scroll">
      <table class="compact attempts">
        <thead>
          <tr><th>#</th><th>Endpoint</th><th>Outcome</th><th class="num">At</th><th class="num">Took</th><th class="num">Connect</th><th class="num">Hosts</th><th class="num">Breaker</th></tr>
        </thead>
        <tbody>
          {list.map((a, i) => (
            <tr key={i} class={a.outcome && a.outcome !== 'ok' ? 'bad' : ''}>
              <td>{i + 1}</td>
              <td>
                <code>{a.endpoint || 'none'}</code>
                <small>{[a.workload, a.version, a.ejected && 'ejected'].filter(Boolean).join(' · ')}</small>
              </td>
              <td>
                {a.outcome || '–'} {a.status ? a.status : ''}<small>{a.detail}</small>
                {a.not_retried && <small>{NOT_RETRIED[a.not_retried] || a.not_retried}{a.max_retries > 0 && ` (${a.active_retries}/${a.max_retries})`}</small>}
                {(a.ejections || []).map((e) => (
                  <small key={e.endpoint} class="ejection">
                    {e.workload || e.endpoint} ejected {clock(e.at_ms * 1000)} to {clock(e.until_ms * 1000)}: {e.errors > 0 && `${e.errors} × `}{e.kinds || e.rule}
                  </small>
                ))}
              </td>
              <td class="num">+{us(a.start_us)}</td>
              <td class="num">{us(a.duration_us)}</td>
              <td class="num">{a.reused ? 'reused' : us(a.connect_us)}</td>
              <td class="num">{a.total_hosts ? `${a.healthy_hosts}/${a.total_hosts}` : '–'}</td>
              <td class="num">{a.max_requests ? `${a.active_requests}/${a.max_requests}` : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

// The fields of one sidecar's view that matter to a reader.
export function eventRows(e) {
  return [
    ['Result', [e.status ? `status ${e.status}` : '', e.grpc_status >= 0 ? `gRPC ${e.grpc_status}` : ''].filter(Boolean).join(', ') || (e.protocol === 'tcp' ? 'TCP' : 'no response')],
    ['Flags', e.response_flags && <code>{e.response_flags}</code>],
    ['Detail', e.response_detail && <code>{e.response_detail}</code>],
    ['TLS failure', e.tls_failure],
    ['Fault', e.fault],
    ['Took', us(e.duration_us)],
    ['Request', e.method && <code>{e.method} {e.authority}{e.path}</code>],
    ['Protocol', [e.protocol, e.tls_version || 'plaintext'].join(', ')],
    ['Workload', [e.workload, e.version].filter(Boolean).join(' · ')],
    ['Cluster', e.cluster && <code>{e.cluster}</code>],
    ['Caller', e.source_identity ? <code>{e.source_identity}</code> : 'no identity'],
    ['Callee', e.destination_identity && <code>{e.destination_identity}</code>],
    ['Policy', e.policy && <code>{e.policy}{e.policy_revision ? ` (revision ${e.policy_revision})` : ''}</code>],
    ['Config', e.config_revision ? `revision ${e.config_revision}` : ''],
    ['From', e.downstream_address && <code>{e.downstream_address}</code>],
    ['To', e.original_destination && <code>{e.original_destination}</code>],
    ['Request id', e.request_id && <code>{e.request_id}</code>],
  ];
}

// Unified text as lines with their meaning; always text nodes.
export function Diff({ text }) {
  return (
    <pre class="diff">
      {text.split('\n').map((line, i) => (
        <span key={i} class={line.startsWith('+') ? 'add' : line.startsWith('-') ? 'del' : line.startsWith('@') ? 'hunk' : ''}>{line}{'\n'}</span>
      ))}
    </pre>
  );
}
