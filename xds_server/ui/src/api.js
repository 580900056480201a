import { useEffect, useRef, useState } from 'preact/hooks';

export async function get(path, signal) {
  const response = await fetch(path, { signal, headers: { accept: 'application/json' } });
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Error(`${path.split('?')[0]}: ${response.status}, not JSON`);
  }
  if (!response.ok) throw Object.assign(new Error(body?.error?.message || `${response.status}`), { status: response.status });
  return body;
}

// Asks `path` now and every `every` ms while the page is visible; keeps the last answer through errors.
export function usePoll(path, every = 0) {
  const [state, set] = useState({ data: null, error: null, path });
  const current = useRef(path);
  current.current = path;
  useEffect(() => {
    if (!path) return undefined;
    let timer = 0;
    let stopped = false;
    const abort = new AbortController();
    const ask = async () => {
      if (!document.hidden || every === 0) {
        try {
          const data = await get(path, abort.signal);
          if (!stopped) set({ data, error: null, path });
        } catch (error) {
          if (!stopped) set((s) => ({ data: s.path === path ? s.data : null, error, path }));
        }
      }
      if (every && !stopped) timer = setTimeout(ask, every);
    };
    ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
      abort.abort();
    };
  }, [path, every]);
  return state.path === path ? state : { data: null, error: null };
}
