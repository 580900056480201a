import { usePoll } from './api.js';
import { ago, clock } from './format.js';
import { Attempts, Diff, Empty, Failed, Pairs, eventRows } from './parts.jsx';

const CAUSES = {
  ok: 'It did not fail',
  connection_refused: 'Connection refused',
  reset: 'Connection reset',
  timeout: 'Timeout',
  open_breaker: 'Circuit breaker open',
  no_healthy_endpoint: 'No healthy endpoint',
  denied_by_policy: 'Denied by policy',
  missing_identity: 'Missing identity',
  wrong_identity: 'Wrong identity',
  bad_rollout: 'Bad rollout',
  application_error: 'The application failed',
  fault_injected: 'Injected fault',
  rate_limited: 'Rate limited',
  no_route: 'No route',
  caller_cancelled: 'The caller left',
  external: 'Outside the mesh',
  unknown: 'Unknown',
};

function View({ title, event, none }) {
  return (
    <section class="card side">
      <h3>{title}</h3>
      {event ? <Pairs rows={eventRows(event)} /> : <p class="muted">{none}</p>}
    </section>
  );
}

function Recent() {
  const { data, error } = usePoll('/api/v1/traces?errors=true&limit=30', 5000);
  return (
    <div class="page">
      <div class="head"><h1>Why did it fail?</h1></div>
      <p class="lead">Put a request id (<code>x-request-id</code>) or a trace id in the field above, or take one of the latest failures.</p>
      <Failed error={error} />
      {data && data.traces.length === 0 && <Empty title="Nothing failed in the last 15 minutes">Enjoy it.</Empty>}
      {data && data.traces.length > 0 && (
        <ul class="card recent">
          {data.traces.map((t) => (
            <li key={t.trace_id}>
              <a href={`#/why/${t.trace_id}`}>{t.name}</a>
              <span class="muted">{t.services.join(' · ')}</span>
              <span class="tag bad">{t.status || 'failed'}</span>
              <span class="num muted">{clock(t.start_us)}</span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

export function Why({ id }) {
  const { data, error } = usePoll(id ? `/api/v1/why/${encodeURIComponent(id)}` : null);
  if (!id) return <Recent />;
  if (!data) {
    return (
      <div class="page">
        <div class="head"><h1><a class="up" href="#/why">Why</a>{id}</h1></div>
        <Failed error={error} />
        {error?.status === 404 && <p class="lead muted">A request shows up here about a second after it ended. Ids are looked up exactly.</p>}
      </div>
    );
  }
  const attempts = data.client?.attempts?.length ? data.client.attempts : data.server?.attempts || [];
  return (
    <div class="page why">
      <div class={`verdict ${data.cause === 'ok' ? 'fine' : ''}`} data-cause={data.cause}>
        <span class="cause">{CAUSES[data.cause] || data.cause}</span>
        <h1>{data.sentence}</h1>
        <ol class="path" aria-label="Way of the request">
          {data.path.map((name, i) => <li key={i} class={i === data.path.length - 1 ? 'end' : ''}>{name}</li>)}
        </ol>
        {data.next && <p class="next"><b>Next</b>{data.next}</p>}
      </div>
      <section>
        <h2>Evidence</h2>
        <ul class="card evidence">{data.evidence.map((line, i) => <li key={i}>{line}</li>)}</ul>
      </section>
      {attempts.length > 0 && <section><h2>Attempts</h2><div class="card"><Attempts list={attempts} /></div></section>}
      <section>
        <h2>Both ends' view</h2>
        <div class="sides">
          <View title={`Caller: ${data.source}`} event={data.client} none="The caller has no view of it: no sidecar of it reported." />
          <View title={`Callee: ${data.destination}`} event={data.server} none="The callee has no view of it: the request did not reach a sidecar of it." />
        </div>
      </section>
      {!data.policy && data.decided_by && <section class="decided"><h2>Decided by</h2><p class="card decider">{data.decided_by}</p></section>}
      {data.policy && (
        <section class="decided">
          <h2>{data.decided_by ? 'Deciding policy' : 'Policy that took part'}</h2>
          <div class="card policy">
            <p class="facts">
              <a href={`#/policies?object=${encodeURIComponent(`${data.policy.kind}/${data.policy.namespace}/${data.policy.name}`)}`}><b>{data.policy.kind} {data.policy.namespace}/{data.policy.name}</b></a>
              {data.policy.rule && <span>rule {data.policy.rule}</span>}
              {data.policy.revision > 0 && <span>revision {data.policy.revision}</span>}
              {data.policy.time && <span>{ago(data.policy.time)}</span>}
              {data.policy.message && <span class="muted">{data.policy.message}</span>}
            </p>
            {data.policy.diff ? <Diff text={data.policy.diff} /> : data.policy.text ? <pre class="diff">{data.policy.text}</pre> : null}
          </div>
        </section>
      )}
      <p class="links">
        {data.trace_id && <a href={`#/traces/${data.trace_id}`}>The whole trace</a>}
        <span class="muted">request <code>{data.request_id || '–'}</code></span>
      </p>
    </div>
  );
}
