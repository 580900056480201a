import { useMemo, useState } from 'preact/hooks';
import { usePoll } from './api.js';
import { clock, hues, us } from './format.js';
import { Attempts, Empty, Failed, Pairs, eventRows } from './parts.jsx';

export function Traces({ route }) {
  const service = route.query.get('service') || '';
  const errors = route.query.get('errors') === 'true';
  const services = usePoll('/api/v1/services?window=300', 15000);
  const query = new URLSearchParams({ limit: '100' });
  if (service) query.set('service', service);
  if (errors) query.set('errors', 'true');
  const { data, error } = usePoll(`/api/v1/traces?${query}`, 5000);
  const go = (next) => {
    const q = new URLSearchParams();
    const s = next.service ?? service;
    const e = next.errors ?? errors;
    if (s) q.set('service', s);
    if (e) q.set('errors', 'true');
    location.hash = `#/traces${q.size ? `?${q}` : ''}`;
  };
  const names = new Set((services.data?.services || []).map((s) => s.name));
  if (service) names.add(service);
  const hue = useMemo(() => hues((data?.traces || []).flatMap((t) => t.services)), [data]);
  // A logarithm: one timeout must not flatten all others.
  const length = (v) => Math.log10(1 + v / 100);
  const longest = Math.max(0.1, ...(data?.traces || []).map((t) => length(t.duration_us)));
  return (
    <div class="page">
      <div class="head">
        <h1>Traces</h1>
        <label>Service
          <select value={service} onChange={(e) => go({ service: e.target.value })}>
            <option value="">all</option>
            {[...names].sort().map((n) => <option key={n} value={n}>{n}</option>)}
          </select>
        </label>
        <label class="check"><input type="checkbox" checked={errors} onChange={(e) => go({ errors: e.target.checked })} />failed only</label>
      </div>
      <Failed error={error} />
      {data && data.traces.length === 0 && <Empty title="No traces">{errors ? 'Nothing failed in the last 15 minutes.' : 'Nothing was traced in the last 15 minutes.'}</Empty>}
      {data && data.traces.length > 0 && (
        <div class="scroll card">
          <table class="traces">
            <thead><tr><th>Time</th><th>Request</th><th class="num">Result</th><th>Duration</th><th>Services</th><th class="num">Hops</th></tr></thead>
            <tbody>
              {data.traces.map((t) => (
                <tr key={t.trace_id} class={t.error ? 'failed' : ''}>
                  <td class="num muted">{clock(t.start_us)}</td>
                  <td><a href={`#/traces/${t.trace_id}`}>{t.name || t.trace_id}</a><small>from {t.service}</small></td>
                  <td class="num">{t.error ? <a class="tag bad" href={`#/why/${t.trace_id}`}>{t.status || 'failed'} · why?</a> : <span class="tag">{t.status || 'ok'}</span>}</td>
                  <td class="duration"><i style={{ width: `${Math.max(1, (78 * length(t.duration_us)) / longest)}%` }} class={t.error ? 'bad' : ''} /><span>{us(t.duration_us)}</span></td>
                  <td class="chips">{t.services.slice(0, 8).map((s) => <span key={s} class={`chip ${hue(s)}`}>{s}</span>)}</td>
                  <td class="num muted">{t.hops}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

function ticks(total) {
  const rough = total / 5;
  const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) || power;
  const out = [];
  for (let t = 0; t < total; t += step) out.push(t);
  return out;
}

function Detail({ hop }) {
  const e = hop.event;
  return (
    <div class="hop-detail">
      {e ? (
        <>
          <Pairs rows={eventRows(e)} />
          <Attempts list={e.attempts} />
          {hop.error && e.request_id && <p class="links"><a href={`#/why/${encodeURIComponent(e.request_id)}`}>Why did it fail?</a></p>}
        </>
      ) : (
        <Pairs rows={[['Status', hop.status_message], ...Object.entries(hop.attributes || {}).map(([k, v]) => [k, <code>{typeof v === 'string' ? v : JSON.stringify(v)}</code>])]} />
      )}
    </div>
  );
}

const PAGE = 400;

export function Trace({ id }) {
  const { data, error } = usePoll(`/api/v1/traces/${encodeURIComponent(id)}`);
  const [open, setOpen] = useState(-1);
  const [shown, setShown] = useState(PAGE);
  const marks = useMemo(() => (data ? ticks(data.duration_us) : []), [data]);
  const hue = useMemo(() => hues(data?.services || []), [data]);
  if (!data) return <div class="page"><Failed error={error} /></div>;
  const total = Math.max(1, data.duration_us);
  const first = data.hops[0];
  return (
    <div class="page">
      <div class="head">
        <h1><a class="up" href="#/traces">Traces</a>{first ? first.name : id}</h1>
        {data.error && <a class="button bad" href={`#/why/${data.trace_id}`}>Why did it fail?</a>}
      </div>
      <p class="facts">
        <span><b>{us(data.duration_us)}</b></span><span>{data.hops.length} hops</span><span>{clock(data.start_us)}</span><code>{data.trace_id}</code>
        {data.left_out > 0 && <span class="warn">{data.left_out} hops left out</span>}
        {data.cycle && <span class="warn">a circle of parents was cut</span>}
      </p>
      <div class="chips">{data.services.map((s) => <span key={s} class={`chip ${hue(s)}`}>{s}</span>)}</div>
      <div class="waterfall card" role="table" aria-label="Waterfall">
        <div class="axis" aria-hidden="true">{marks.map((t) => <span key={t} style={{ left: `${(100 * t) / total}%` }}>{us(t)}</span>)}</div>
        {data.hops.slice(0, shown).map((h, i) => (
          <div key={i} class={`hop ${h.error ? 'failed' : ''} ${open === i ? 'open' : ''}`} role="row">
            <button type="button" class="row" aria-expanded={open === i} onClick={() => setOpen(open === i ? -1 : i)}>
              <span class="what" style={{ paddingLeft: `${Math.min(h.depth, 24) * 14}px` }}>
                <i class={`mark ${hue(h.service)}`} />
                <b>{h.service}</b>
                <span class="kind">{h.event ? (h.kind === 'client' ? `→ ${h.peer}` : 'served') : h.kind}</span>
                <span class="op">{h.name}</span>
              </span>
              <span class="lane">
                {marks.map((t) => <i key={t} class="grid" style={{ left: `${(100 * t) / total}%` }} />)}
                <i class={`bar ${hue(h.service)} ${h.event ? h.kind : 'app'}`}
                  style={{ left: `${Math.min(99.6, (100 * h.offset_us) / total)}%`, width: `${Math.max(0.4, Math.min(100, (100 * h.duration_us) / total))}%` }} />
                <span class="took" style={(100 * (h.offset_us + h.duration_us)) / total > 82 ? { right: `${Math.max(0, 100 - (100 * h.offset_us) / total)}%`, paddingRight: '6px' } : { left: `${(100 * (h.offset_us + h.duration_us)) / total}%`, paddingLeft: '6px' }}>
                  {us(h.duration_us)}{h.event?.status >= 400 || h.error ? ` · ${h.event ? h.event.tls_failure || h.event.status || 'reset' : 'error'}` : ''}
                </span>
              </span>
            </button>
            {open === i && <Detail hop={h} />}
          </div>
        ))}
        {data.hops.length > shown && <button type="button" class="plain more" onClick={() => setShown(shown + PAGE)}>{data.hops.length - shown} more hops</button>}
      </div>
    </div>
  );
}
