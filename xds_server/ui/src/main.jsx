import { render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { usePoll } from './api.js';
import { count, level, percent, rate } from './format.js';
import { Policies } from './policies.jsx';
import { Services } from './services.jsx';
import { Sidecars } from './sidecars.jsx';
import { Topology } from './topology.jsx';
import { Trace, Traces } from './traces.jsx';
import { Why } from './why.jsx';

const PAGES = [
  ['topology', 'Topology'],
  ['services', 'Services'],
  ['traces', 'Traces'],
  ['why', 'Why'],
  ['sidecars', 'Sidecars'],
  ['policies', 'Policies'],
];

// "#/traces/abc?service=cart" → ['traces', 'abc'] and its query; the CLI prints such links.
function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((p) => {
    try {
      return decodeURIComponent(p);
    } catch {
      return p;
    }
  });
  return { parts: parts.length ? parts : ['topology'], query: new URLSearchParams(query || '') };
}

function Pulse() {
  const { data, error } = usePoll('/api/v1/topology?window=10', 2000);
  if (error) return <span class="pulse bad" role="status">server not reachable</span>;
  if (!data) return <span class="pulse" />;
  let rps = 0;
  let errors = 0;
  let requests = 0;
  for (const e of data.edges) {
    rps += e.rps;
    errors += e.errors;
    requests += e.requests;
  }
  const d = data.telemetry?.dropped || {};
  const dropped = (d.by_sidecars || 0) + (d.bad_time || 0) + (d.otlp || 0);
  const bad = requests ? errors / requests : 0;
  return (
    <span class="pulse" role="status">
      <i class={`dot ${requests ? 'live' : 'idle'}`} />
      <b>{rate(rps)}</b> req/s
      <span class={`sep ${level(bad, requests)}`}>{percent(bad)} errors</span>
      {dropped > 0 && <span class="sep warn" title="Events that were dropped before they were stored">{count(dropped)} dropped</span>}
    </span>
  );
}

function Search() {
  const [text, set] = useState('');
  const go = (e) => {
    e.preventDefault();
    const id = document.getElementById('search').value.trim();
    if (id) location.hash = `#/why/${encodeURIComponent(id)}`;
  };
  return (
    <form class="search" role="search" onSubmit={go}>
      <input id="search" type="search" value={text} onInput={(e) => set(e.target.value)} placeholder="Request or trace id"
        aria-label="Explain a request or trace id" spellcheck={false} autocomplete="off" />
      <kbd>/</kbd>
    </form>
  );
}

function App() {
  const [route, setRoute] = useState(readRoute());
  useEffect(() => {
    const changed = () => setRoute(readRoute());
    const keys = (e) => {
      if (e.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) && !e.ctrlKey && !e.metaKey) {
        e.preventDefault();
        document.getElementById('search').focus();
      }
    };
    addEventListener('hashchange', changed);
    addEventListener('keydown', keys);
    return () => {
      removeEventListener('hashchange', changed);
      removeEventListener('keydown', keys);
    };
  }, []);
  const [page, id] = route.parts;
  useEffect(() => {
    document.title = `${(PAGES.find((p) => p[0] === page) || PAGES[0])[1]} · Weft`;
  }, [page]);
  let view;
  if (page === 'services') view = <Services route={route} />;
  else if (page === 'traces') view = id ? <Trace id={id} key={id} /> : <Traces route={route} />;
  else if (page === 'why') view = <Why id={id} key={id} />;
  else if (page === 'sidecars') view = <Sidecars />;
  else if (page === 'policies') view = <Policies route={route} />;
  else view = <Topology route={route} />;
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main').focus(); }}>Skip to content</a>
      <header>
        <a class="brand" href="#/topology"><img src="/icon.svg" alt="" width="20" height="20" />Weft</a>
        <nav aria-label="Pages">
          {PAGES.map(([key, label]) => (
            <a key={key} href={`#/${key}`} aria-current={key === page ? 'page' : undefined}>{label}</a>
          ))}
        </nav>
        <Pulse />
        <Search />
      </header>
      <main id="main" tabindex="-1" class={page === 'topology' ? 'full' : ''}>{view}</main>
    </>
  );
}

render(<App />, document.getElementById('app'));
