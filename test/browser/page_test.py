"""The page in real headless Chromium, before a real xds_server that was fed through its real telemetry port.

No console error, topology, waterfall and why in the DOM, text that wants to be markup stays text, every page renders.
Exit 77 (a named skip) where there is no Chromium.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devtools import Browser, find_chromium  # noqa: E402

SERVER, LOAD = 'xds_server/xds_server', 'test/support/telemetry_load'
# Markup in a name, in several of the forms that have got through somewhere. The first is the one of the contract.
ODD = [
    '<img src=x onerror=alert(1)>',
    '"><script>alert(2)</script>',
    "'-alert(3)-'",
    '<svg/onload=alert(4)>',
    'javascript:alert(5)',
    '</title><script>alert(6)</script>',
    '<iframe srcdoc="<script>alert(7)</script>">',
    '{{constructor("alert(8)")}}',
    '${alert(9)}',
    '<a href=javascript:alert(10)>x</a>',
    '<math><mtext></form><form><mglyph><style></math><img src onerror=alert(11)>',
    '&lt;img src=x onerror=alert(12)&gt;',
    '%3Cimg%20src%3Dx%20onerror%3Dalert(13)%3E',
    '\u202ereversed<b>bold</b>',
]
NO_CALLEE, NO_CALLER = 'The callee has no view of it', 'The caller has no view of it'
# Edges whose label is covered by a node's card on more than a tenth of its area.
HIDDEN_LABELS = '''(() => {
  const cards = [...document.querySelectorAll('.node rect.card')].map((r) => r.getBoundingClientRect());
  const part = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  return [...document.querySelectorAll('.edge .label')].filter((l) => {
    const box = l.querySelector('rect').getBoundingClientRect();
    return cards.some((c) => part(c, box) > 0.1 * box.width * box.height);
  }).map((l) => l.parentElement.dataset.edge);
})()'''


def main():
    if not find_chromium():
        print('SKIP: no Chromium on this machine')
        return 77
    with tempfile.TemporaryDirectory(prefix='weft-page-', dir=os.environ.get('TEST_TMPDIR')) as folder:
        any_port = '127.0.0.1:0'
        server = subprocess.Popen(
            [SERVER, '--data-dir', folder + '/data', '--http-address', any_port, '--xds-address', any_port, '--xds-plaintext-address', any_port,
             '--otlp-grpc-address', any_port, '--otlp-http-address', any_port, '-l', 'warn'], stdout=subprocess.PIPE, text=True)
        try:
            ready = dict(re.findall(r'(\w+)=(\S+)', server.stdout.readline()))
            check(ready, folder)
        finally:
            server.terminate()
            code = server.wait(20)
    assert code == 0, f'the server ended with {code}'
    print('ok')
    return 0


def post(url, body, content_type, token=None):
    headers = {'Content-Type': content_type}
    if token:
        headers['Authorization'] = 'Bearer ' + token
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as r:
        return json.load(r)


def check(ready, folder):
    base = 'http://' + ready['http']
    target = '127.0.0.1:' + ready['plaintext_port']
    with open(folder + '/data/api-token') as f:
        token = f.read().strip()
    post(base + '/api/v1/apply', b'apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: cart}\nspec: {breakers: {max_requests: 100}}\n',
         'application/yaml', token)
    names = [part for name in ODD for part in ('--odd-name', name)]
    out = subprocess.run([LOAD, '--target', target, '--backlog', '50', '--rps', '8', *names], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out
    # An application's own span, through OTLP/HTTP, as a child of nothing we know.
    now = time.time_ns()
    trace = 'ab' * 16
    post('http://127.0.0.1:' + ready['otlp_http'] + '/v1/traces', json.dumps({'resourceSpans': [{
        'resource': {'attributes': [{'key': 'service.name', 'value': {'stringValue': ODD[0]}}]},
        'scopeSpans': [{'spans': [{'traceId': trace, 'spanId': 'cd' * 8, 'name': ODD[1], 'kind': 2, 'startTimeUnixNano': str(now),
                                   'endTimeUnixNano': str(now + 5_000_000), 'attributes': [{'key': ODD[0], 'value': {'stringValue': ODD[3]}}]}]}]}]}).encode(),
         'application/json')

    with Browser() as browser:
        page = browser.page(base + '/')
        visit(page, base, trace)
        assert not page.dialogs, page.dialogs
        assert not page.problems, '\n'.join(page.problems)
        bad = {u: s for u, s in page.statuses.items() if s >= 400}
        assert not bad, bad
        csp = page.headers[base + '/'].get('content-security-policy', '')
        assert "default-src 'self'" in csp and 'unsafe' not in csp, csp
        assert page.headers[base + '/'].get('x-content-type-options') == 'nosniff'
        # The policy is real: inline code put into the page does not run.
        page.eval("{const s = document.createElement('script'); s.textContent = 'window.inline = 1'; document.body.append(s); window.inline}")
        assert page.eval('window.inline') is None
        # An unknown id is said so, in words.
        page.eval("location.hash = '#/why/nothing-of-that-name'")
        page.wait("document.querySelector('[role=alert]')?.textContent.includes('nothing-of-that-name')")
    with Browser(dark=True) as browser:
        page = browser.page(base + '/#/topology', width=420, height=800)
        page.wait("document.querySelectorAll('[data-node]').length > 4")
        assert page.eval('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than a phone'
        assert not page.problems, '\n'.join(page.problems)


def no_markup(page, where):
    # Whatever came from telemetry is text: no element of these kinds but our own image and script.
    found = page.eval("[...document.querySelectorAll('img, script, iframe, svg [onload], math, [onerror], [onload]')]"
                      ".filter(e => !(e.matches('.brand img') || e.src === location.origin + '/app.js')).map(e => e.outerHTML)")
    assert not found, f'{where}: {found}'


def visit(page, base, trace):
    # Topology.
    page.wait("document.querySelectorAll('g.edge[data-edge]').length > 6")
    names = page.eval("[...document.querySelectorAll('[data-node]')].map(n => n.dataset.node)")
    for name in ['frontend', 'cart', 'redis', 'pricing', *ODD]:
        assert name in names, (name, names)
    assert page.eval("[...document.querySelectorAll('[data-node] title')].some(t => t.textContent === '<img src=x onerror=alert(1)>')")
    no_markup(page, 'topology')
    assert page.eval("!!document.querySelector('[data-edge=\"frontend→cart\"] .lock:not(.open)')"), 'padlock'
    assert page.eval("!!document.querySelector('[data-edge=\"(no identity)→redis\"] .lock.open')"), 'open lock of a refused caller'
    assert page.eval("!!document.querySelector('[data-edge=\"frontend→pricing\"] .denied')"), 'denial on the edge'
    # By keyboard: an edge is focused and opened with Enter.
    page.eval("document.querySelector('[data-edge=\"frontend→pricing\"]').focus()")
    for kind in ('keyDown', 'keyUp'):
        page.call('Input.dispatchKeyEvent', {'type': kind, 'key': 'Enter', 'code': 'Enter', 'windowsVirtualKeyCode': 13, 'text': '\r'})
    page.wait("document.querySelector('.panel')?.textContent.includes('Authorization/default/pricing/only-checkout')")
    # A denial leads to its why.
    assert page.eval("document.querySelector('.panel .denials .examples a')?.getAttribute('href').startsWith('#/why/')")
    # No label of an edge hides behind a card.
    hidden = page.eval(HIDDEN_LABELS)
    assert not hidden, hidden
    text = page.eval("document.querySelector('.panel').textContent")
    assert 'spiffe://weft.local/ns/default/sa/frontend' in text and 'spiffe://weft.local/ns/default/sa/pricing' in text, text
    # Services.
    page.eval("location.hash = '#/services'")
    page.wait("[...document.querySelectorAll('tbody b')].some(b => b.textContent === '<img src=x onerror=alert(1)>')")
    assert page.eval("[...document.querySelectorAll('.version')].map(v => v.textContent).join()").count('v2') == 1
    no_markup(page, 'services')
    # Traces: the list, then the longest waterfall.
    page.eval("location.hash = '#/traces'")
    page.wait("[...document.querySelectorAll('table.traces tbody tr')].some(r => +r.lastElementChild.textContent > 10)")
    no_markup(page, 'traces')
    page.eval("[...document.querySelectorAll('table.traces tbody tr')].find(r => +r.lastElementChild.textContent > 10).querySelector('a').click()")
    page.wait("document.querySelectorAll('.waterfall .hop').length > 10")
    services = page.eval("[...document.querySelectorAll('.waterfall .what b')].map(b => b.textContent)")
    assert {'loadgen', 'frontend', 'cart', 'checkout', 'pricing', 'redis'} <= set(services), services
    page.eval("document.querySelector('.hop .row').click()")
    page.wait("document.querySelector('.hop-detail')?.textContent.includes('spiffe://')")
    page.eval(f"location.hash = '#/traces/{trace}'")
    page.wait("document.querySelector('.waterfall .what b')?.textContent === '<img src=x onerror=alert(1)>'")
    page.eval("document.querySelector('.hop .row').click()")
    page.wait("document.querySelector('.hop-detail')?.textContent.includes('<svg/onload=alert(4)>')")
    no_markup(page, 'trace')
    # Why: for each cause the sentence, every attempt, both ends' view, and who decided.
    for request, cause, words, attempts, caller, callee, decided in [
            ('demo-refused', 'connection_refused', 'refused the connection', 'connect_refused', 'UF,URX', NO_CALLEE, ''),
            ('demo-reset', 'reset', 'cut the connection', 'reset', 'UC', NO_CALLEE, ''),
            ('demo-timeout', 'timeout', '3.00 s (request timeout of Route catalog, revision 6)', 'timeout', 'UT', 'catalog-v1', 'Route default/catalog'),
            ('demo-breaker', 'open_breaker', '100 of at most 100', 'overflow', 'UO', NO_CALLEE, 'revision 7'),
            ('demo-budget', 'connection_refused', 'retry budget of 20 % was spent', 'retry budget spent (10/10)', 'UO,UF', NO_CALLEE, 'default limits'),
            ('demo-unhealthy', 'no_healthy_endpoint', 'ejected its only instance', '5 × timeout', 'UH', NO_CALLEE, 'Traffic default/checkout'),
            ('demo-denied', 'denied_by_policy', 'rule only-checkout', 'ok 403', 'status 403', 'rbac_access_denied', 'rule only-checkout'),
            ('demo-missing', 'missing_identity', 'showed no certificate', '', NO_CALLER, 'no_certificate', 'MeshTls default/redis'),
            ('demo-wrong', 'wrong_identity', 'but spiffe://weft.local/ns/default/sa/catalog presented itself', 'tls_san_mismatch', 'UF', 'peer_alert', 'mutual TLS'),
            ('demo-rollout', 'bad_rollout', 'revision 14', 'ok 500', 'frontend-v1', 'cart-v2', 'Route default/cart'),
            ('demo-behind', 'denied_by_policy', 'because its TCP connection to redis was denied', 'ok', 'cart-v1',
             'redis-v1', 'rule nobody')]:
        page.eval(f"location.hash = '#/why/{request}'")
        page.wait(f"document.querySelector('.verdict')?.dataset.cause === '{cause}' && document.querySelector('.links code')?.textContent !== undefined"
                  f" && document.querySelector('.verdict h1').textContent.includes({json.dumps(words)})")
        rows = page.eval("[...document.querySelectorAll('.attempts tbody tr')].map(r => r.textContent)")
        assert bool(rows) == bool(attempts) and attempts in ' '.join(rows), (request, rows)
        sides = page.eval("[...document.querySelectorAll('.side')].map(s => s.textContent)")
        assert len(sides) == 2 and caller in sides[0] and callee in sides[1], (request, sides)
        by = page.eval("[...document.querySelectorAll('.decided')].map(s => s.textContent).join()")
        assert decided in by, (request, by)
        evidence = page.eval("document.querySelector('.evidence').textContent")
        assert ('Attempt 1 ' in evidence) == bool(attempts), (request, evidence)
    page.eval("{const i = document.getElementById('search'); i.value = 'demo-odd'; i.dispatchEvent(new Event('input', {bubbles: true})); i.form.requestSubmit()}")
    page.wait("location.hash === '#/why/demo-odd' && document.querySelector('.verdict h1')")
    no_markup(page, 'why')
    page.eval("location.hash = '#/why'")
    page.wait("document.querySelectorAll('.recent li').length > 5")
    # Sidecars and policies.
    page.eval("location.hash = '#/sidecars'")
    page.wait("document.querySelector('main')?.textContent.includes('No sidecar has connected')")
    page.eval("location.hash = '#/policies'")
    page.wait("document.querySelector('.object summary')?.textContent.includes('Traffic')")
    page.wait("document.querySelector('.history .row')")
    page.eval("document.querySelector('.history .row').click()")
    page.wait("document.querySelector('.history .diff .add')?.textContent.includes('apiVersion')")
    no_markup(page, 'policies')


if __name__ == '__main__':
    sys.exit(main())
