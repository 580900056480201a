import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { usePoll } from './api.js';
import { count, cut, level, ms, percent, rate } from './format.js';
import { LABEL, NODE, box, layout, routes } from './graph.js';
import { Empty, Failed, Lock, Outcomes, Stats, Versions, Windows } from './parts.jsx';

// Breaks before the last part rather than within it.
function Spiffe({ id }) {
  if (!id) return 'proved no identity';
  const at = id.lastIndexOf('/sa/');
  return <code>{at > 0 ? <>{id.slice(0, at)}<wbr />{id.slice(at)}</> : id}</code>;
}

function EdgePanel({ edge, close }) {
  const callee = encodeURIComponent(edge.destination);
  return (
    <aside class="panel" aria-label="Edge">
      <button type="button" class="close" onClick={close} aria-label="Close">×</button>
      <h2><span>{edge.source}</span><em>→</em><span>{edge.destination}</span></h2>
      <p class="secure">
        <Lock open={!edge.mtls} size={14} />
        {edge.mtls ? `Mutual TLS, ${edge.tls_version}` : edge.tls_version ? 'TLS, not mutual on every request' : 'Plaintext'}
        <span class="muted">{edge.protocols.join(', ')}</span>
      </p>
      <dl class="identities">
        <div><dt>Caller</dt><dd><Spiffe id={edge.source_identity} /></dd></div>
        <div><dt>Callee</dt><dd><Spiffe id={edge.destination_identity} /></dd></div>
      </dl>
      <Stats of={edge}>
        {edge.retries > 0 && <div><dt>Retries</dt><dd>{count(edge.retries)}</dd></div>}
        {edge.denied > 0 && <div class="bad"><dt>Denied</dt><dd>{count(edge.denied)}</dd></div>}
      </Stats>
      <Outcomes outcomes={edge.outcomes} />
      {edge.denials.length > 0 && (
        <section>
          <h3>Denied by {edge.destination}</h3>
          <ul class="denials">
            {edge.denials.map((d) => (
              <li key={d.reason}>
                <code>{d.reason}</code><b>{count(d.count)}</b>
                {(d.examples || []).length > 0 && (
                  <span class="examples">why? {d.examples.map((id) => <a key={id} href={`#/why/${encodeURIComponent(id)}`}>{id.slice(0, 8)}</a>)}</span>
                )}
              </li>
            ))}
          </ul>
        </section>
      )}
      {edge.versions.length > 0 && <section><h3>Versions of {edge.destination}</h3><Versions versions={edge.versions} /></section>}
      <p class="links">
        <a href={`#/traces?service=${callee}&errors=true`}>Failed traces</a>
        <a href={`#/traces?service=${callee}`}>All traces</a>
      </p>
      {edge.reported_by === 'callee' && <p class="muted note">Seen by the callee only: the caller has no sidecar that reports, or was refused.</p>}
    </aside>
  );
}

function NodePanel({ node, edges, close, pick }) {
  const list = (title, items, end) => items.length > 0 && (
    <section>
      <h3>{title}</h3>
      <ul class="peers">
        {items.map((e) => (
          <li key={e[end]}>
            <button type="button" class="link" onClick={() => pick(e)}>{e[end]}</button>
            <span class={`num ${level(e.error_rate, e.requests)}`}>{rate(e.rps)}/s · {percent(e.error_rate)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
  return (
    <aside class="panel" aria-label="Service">
      <button type="button" class="close" onClick={close} aria-label="Close">×</button>
      <h2><span>{node.name}</span></h2>
      <p class="secure"><span class="muted">{node.in_mesh ? node.versions.join(', ') || 'in the mesh' : 'no sidecar reports for it'}</span></p>
      {node.requests > 0 && <><Stats of={node} /><Outcomes outcomes={node.outcomes} /></>}
      {list('Called by', edges.filter((e) => e.destination === node.name), 'source')}
      {list('Calls', edges.filter((e) => e.source === node.name), 'destination')}
      <p class="links"><a href={`#/traces?service=${encodeURIComponent(node.name)}`}>Traces</a></p>
    </aside>
  );
}

const keyOf = (e) => `${e.source}→${e.destination}`;

// Lines lie under everything; the labels above are what keyboard and pointer reach.
function EdgeLine({ edge, shape, picked, dim, pick }) {
  const health = level(edge.error_rate, edge.requests);
  const width = 1.4 + Math.min(4, Math.log10(1 + edge.rps * 10) * 0.9);
  return (
    <g class={`edge ${health} ${picked ? 'picked' : ''} ${dim ? 'dim' : ''}`} onClick={(e) => { e.stopPropagation(); pick(edge); }} aria-hidden="true">
      <path class="hit" d={shape.d} />
      <path class="line" d={shape.d} stroke-width={width} marker-end={`url(#arrow-${health})`} />
      {edge.rps > 0 && <path class="flow" d={shape.d} stroke-width={Math.max(1.2, width * 0.55)} />}
    </g>
  );
}

function EdgeLabel({ edge, shape, picked, dim, pick }) {
  const health = level(edge.error_rate, edge.requests);
  const label = `${edge.source} to ${edge.destination}: ${rate(edge.rps)} requests a second, ${percent(edge.error_rate)} errors, p95 ${ms(edge.p95_ms)}, ${edge.mtls ? 'mutual TLS' : 'no mutual TLS'}${edge.denied ? `, ${edge.denied} denied` : ''}`;
  const key = (e) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      pick(edge);
    }
  };
  const left = -LABEL.w / 2;
  return (
    <g class={`edge ${health} ${picked ? 'picked' : ''} ${dim ? 'dim' : ''}`} tabindex="0" role="button" aria-label={label} aria-pressed={picked}
      onClick={(e) => { e.stopPropagation(); pick(edge); }} onKeyDown={key} data-edge={keyOf(edge)} transform={`translate(${shape.x},${shape.y})`}>
      <g class="label">
        <rect x={left} y={-LABEL.h / 2} width={LABEL.w} height={LABEL.h} rx="8" />
        <g transform={`translate(${left + 8},-12.5)`} class={edge.mtls ? 'lock' : 'lock open'}>
          <rect x="1" y="4.6" width="8.6" height="6" rx="1.3" />
          <path d={edge.mtls ? 'M3 4.6V3.2a2.3 2.3 0 0 1 4.6 0v1.4' : 'M3 4.6V3.2a2.3 2.3 0 0 1 4.4-.9'} />
        </g>
        <text x={left + 24} y="-3">{rate(edge.rps)}/s</text>
        <text class="small" x={left + 24} y="10.5">
          {edge.denied >= edge.requests && edge.denied > 0 ? <tspan class="bad">{count(edge.denied)} refused</tspan> : (
            <><tspan class={health}>{percent(edge.error_rate)}</tspan><tspan dx="7">{ms(edge.p95_ms)}</tspan></>
          )}
        </text>
        {edge.denied > 0 && (
          <g transform={`translate(${-left - 8},${-LABEL.h / 2 + 2})`} class="denied"><circle r="8" /><path d="M-3.4,-3.4L3.4,3.4" /><title>{`${edge.denied} denied`}</title></g>
        )}
      </g>
    </g>
  );
}

function NodeView({ node, at, picked, dim, pick }) {
  const health = node.in_mesh || node.requests ? level(node.error_rate, node.requests) : 'idle';
  const key = (e) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      pick();
    }
  };
  const versions = node.versions.join(' · ');
  const outside = node.name.startsWith('(') || !node.in_mesh;
  return (
    <g class={`node ${health} ${outside ? 'outside' : ''} ${picked ? 'picked' : ''} ${dim ? 'dim' : ''}`} data-node={node.name}
      transform={`translate(${at.x - NODE.w / 2},${at.y - NODE.h / 2})`} tabindex="0" role="button" aria-pressed={picked}
      aria-label={`Service ${node.name}${versions ? `, ${versions}` : ''}, ${rate(node.rps)} requests a second`}
      onClick={(e) => { e.stopPropagation(); pick(); }} onKeyDown={key}>
      <title>{node.name}</title>
      <rect class="card" width={NODE.w} height={NODE.h} rx="9" />
      <rect class="health" x="7" y="11" width="3.5" height={NODE.h - 22} rx="1.75" />
      <text class="name" x="19" y="21">{cut(node.name, 15)}</text>
      <text class="sub" x="19" y="37">{outside ? (node.name.startsWith('(') ? 'unknown caller' : 'outside the mesh') : cut(versions || 'no version', 13)}</text>
      {node.requests > 0 && <text class="sub num" x={NODE.w - 11} y="37" text-anchor="end">{rate(node.rps)}/s</text>}
    </g>
  );
}

export function Topology({ route }) {
  const [window_, setWindow] = useState(60);
  const { data, error } = usePoll(`/api/v1/topology?window=${window_}`, window_ > 300 ? 10000 : 2000);
  const [picked, setPicked] = useState(route.query.get('edge') ? { edge: route.query.get('edge') } : null);
  const known = useRef(new Map());
  const svg = useRef(null);
  const [size, setSize] = useState({ w: 1200, h: 700 });
  const [view, setView] = useState(null);  // set by hand: {x, y, w}; null fits the map
  useEffect(() => {
    const el = svg.current?.parentElement;
    if (!el) return undefined;
    const observe = new ResizeObserver(() => setSize({ w: el.clientWidth || 1, h: el.clientHeight || 1 }));
    observe.observe(el);
    return () => observe.disconnect();
  }, [!data]);
  const shapeKey = data ? `${data.nodes.map((n) => n.name).join('\n')}\f${data.edges.map((e) => `${e.source}>${e.destination}`).join('\n')}` : '';
  const places = useMemo(() => (data ? layout(data.nodes.map((n) => n.name), data.edges, known.current) : new Map()), [shapeKey]);
  // Busy edges choose their labels' places first.
  const shapes = useMemo(() => (data ? routes([...data.edges].sort((a, b) => b.requests - a.requests), places) : new Map()), [places]);
  if (!data) return <div class="page"><Failed error={error} /></div>;

  const edge = picked?.edge && data.edges.find((e) => keyOf(e) === picked.edge);
  const node = picked?.node && data.nodes.find((n) => n.name === picked.node);
  const room = { w: size.w - ((edge || node) && size.w > 900 ? 360 : 0), h: size.h };
  const fit = box(places);
  const scale = Math.min(1.15, room.w / fit.w, room.h / fit.h);
  const auto = { w: size.w / scale, h: size.h / scale };
  const area = view
    ? { x: view.x, y: view.y, w: view.w, h: (view.w * size.h) / size.w }
    : { x: fit.x - (room.w / scale - fit.w) / 2, y: fit.y - (auto.h - fit.h) / 2, w: auto.w, h: auto.h };
  const wheel = (e) => {
    e.preventDefault();
    const r = svg.current.getBoundingClientRect();
    const factor = Math.exp(e.deltaY * 0.0012);
    const w = Math.min(12000, Math.max(300, area.w * factor));
    const px = (e.clientX - r.left) / r.width;
    const py = (e.clientY - r.top) / r.height;
    setView({ x: area.x + px * (area.w - w), y: area.y + py * (area.h - (w * size.h) / size.w), w });
  };
  const drag = (e) => {
    if (e.button !== 0 || e.target.closest('.edge, .node')) return;
    const from = { x: e.clientX, y: e.clientY, ...area };
    const move = (m) => setView({ x: from.x0 - ((m.clientX - from.px) * area.w) / size.w, y: from.y0 - ((m.clientY - from.py) * area.h) / size.h, w: area.w });
    Object.assign(from, { x0: area.x, y0: area.y, px: e.clientX, py: e.clientY });
    const up = () => {
      removeEventListener('pointermove', move);
      removeEventListener('pointerup', up);
    };
    addEventListener('pointermove', move);
    addEventListener('pointerup', up);
  };
  const near = (name) => !picked || (edge ? edge.source === name || edge.destination === name
    : node ? node.name === name || data.edges.some((e) => (e.source === name && e.destination === node.name) || (e.destination === name && e.source === node.name)) : true);
  const involved = (e) => (edge ? e === edge : node ? e.source === node.name || e.destination === node.name : true);
  // Worst edges last, so that they are drawn on top.
  const edges = [...data.edges].sort((a, b) => a.error_rate - b.error_rate);
  return (
    <div class="map">
      <div class="tools">
        <Windows value={window_} onChange={setWindow} />
        {view && <button type="button" class="plain" onClick={() => setView(null)}>Fit</button>}
        <Failed error={error} />
      </div>
      <ul class="legend" aria-label="Legend">
        <li><i class="ok" />under 1 % errors</li><li><i class="warn" />1–5 %</li><li><i class="bad" />over 5 %</li><li><Lock />mutual TLS</li>
      </ul>
      {data.edges.length === 0 ? (
        <Empty title="No traffic yet">
          <p>The map draws itself from real requests. Start something beside a sidecar:</p>
          <pre>weft run --service hello --port 8000 -- python3 -m http.server 8000</pre>
        </Empty>
      ) : (
        <svg ref={svg} class="graph" viewBox={`${area.x} ${area.y} ${area.w} ${area.h}`} onWheel={wheel} onPointerDown={drag}
          onClick={() => setPicked(null)} role="group" aria-label="Topology of the mesh">
          <defs>
            {['ok', 'warn', 'bad', 'idle'].map((h) => (
              <marker key={h} id={`arrow-${h}`} viewBox="0 0 8 8" refX="3" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">
                <path class={`arrow ${h}`} d="M0.5,0.8L7.2,4L0.5,7.2Z" />
              </marker>
            ))}
          </defs>
          {[EdgeLine, EdgeLabel].map((Part, layer) => edges.map((e) => shapes.has(keyOf(e)) && (
            <Part key={`${layer} ${keyOf(e)}`} edge={e} shape={shapes.get(keyOf(e))} picked={edge === e} dim={picked && !involved(e)}
              pick={(x) => setPicked({ edge: keyOf(x) })} />
          )))}
          {data.nodes.map((n) => places.has(n.name) && (
            <NodeView key={n.name} node={n} at={places.get(n.name)} picked={node === n} dim={!near(n.name)} pick={() => setPicked({ node: n.name })} />
          ))}
        </svg>
      )}
      {edge && <EdgePanel edge={edge} close={() => setPicked(null)} />}
      {node && <NodePanel node={node} edges={data.edges} close={() => setPicked(null)} pick={(e) => setPicked({ edge: keyOf(e) })} />}
    </div>
  );
}
