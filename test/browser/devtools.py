"""Headless Chromium over its DevTools protocol, with the standard library only.

    with Browser() as b:
        page = b.page('http://127.0.0.1:8080/#/topology')
        page.wait("document.querySelectorAll('.edge').length > 3")
        page.screenshot('map.png')
        assert not page.problems

The pipe (file descriptors 3 and 4, messages end with a zero byte) needs no port and no WebSocket.
"""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time


class Failure(Exception):
    pass


def find_chromium():
    for name in ('chromium', 'chromium-browser', 'google-chrome'):
        path = shutil.which(name)
        if path:
            return path
    return '/usr/bin/chromium' if os.path.exists('/usr/bin/chromium') else None


class Browser:
    def __init__(self, chromium=None, dark=False):
        self.dark = dark
        self.profile = tempfile.mkdtemp(prefix='weft-chromium-')
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # 3 and 4 may be in use by these very pipes: move them out of the way first.
        high_in, high_out = os.dup2(to_read, 60), os.dup2(to_write, 61)

        def place():
            os.setsid()
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)
            os.close(high_in)
            os.close(high_out)

        self._process = subprocess.Popen(
            [chromium or find_chromium(), '--headless=new', '--no-sandbox', '--remote-debugging-pipe', '--disable-gpu', '--disable-dev-shm-usage',
             '--no-first-run', '--disable-extensions', '--disable-background-networking', '--disable-component-update', '--disable-sync',
             '--hide-scrollbars', '--force-color-profile=srgb', '--user-data-dir=' + self.profile, 'about:blank'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place, close_fds=False)
        for fd in (to_read, to_write, 60, 61):
            os.close(fd)
        self._buffer = b''
        self._next = 0
        self._answers = {}
        self._pages = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call('Browser.close', timeout=3)
        except Failure:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _pump(self, deadline):
        while b'\0' not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return False
            data = os.read(self._read, 1 << 20)
            if not data:
                raise Failure('the browser is gone')
            self._buffer += data
        text, self._buffer = self._buffer.split(b'\0', 1)
        message = json.loads(text)
        if 'id' in message:
            self._answers[message['id']] = message
        elif message.get('sessionId') in self._pages:
            self._pages[message['sessionId']].on_event(message['method'], message['params'])
        return True

    def call(self, method, params=None, session=None, timeout=20):
        self._next += 1
        number = self._next
        message = {'id': number, 'method': method, 'params': params or {}}
        if session:
            message['sessionId'] = session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        deadline = time.monotonic() + timeout
        while number not in self._answers:
            if not self._pump(deadline):
                raise Failure(f'{method}: no answer in {timeout} s')
        answer = self._answers.pop(number)
        if 'error' in answer:
            raise Failure(f"{method}: {answer['error'].get('message')}")
        return answer['result']

    def page(self, url, width=1440, height=900):
        target = self.call('Target.createTarget', {'url': 'about:blank'})['targetId']
        session = self.call('Target.attachToTarget', {'targetId': target, 'flatten': True})['sessionId']
        page = Page(self, session)
        self._pages[session] = page
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            page.call(f'{domain}.enable')
        page.call('Emulation.setDeviceMetricsOverride', {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False})
        page.call('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': 'dark' if self.dark else 'light'}]})
        page.go(url)
        return page


class Page:
    def __init__(self, browser, session):
        self.browser = browser
        self.session = session
        self.problems = []   # console errors, exceptions, refused resources
        self.dialogs = []    # an alert() that came up
        self.statuses = {}
        self.headers = {}

    def call(self, method, params=None, timeout=20):
        return self.browser.call(method, params, self.session, timeout)

    def on_event(self, method, params):
        if method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'assert', 'warning'):
            self.problems.append('console: ' + ' '.join(str(a.get('value', a.get('description', ''))) for a in params['args']))
        elif method == 'Runtime.exceptionThrown':
            d = params['exceptionDetails']
            self.problems.append('exception: ' + d.get('exception', {}).get('description', d.get('text', '')))
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.problems.append('log: ' + params['entry']['text'] + ' ' + params['entry'].get('url', ''))
        elif method == 'Page.javascriptDialogOpening':
            self.dialogs.append(params['message'])
            # Not waited for: this runs inside another call's wait.
            os.write(self.browser._write, json.dumps({'id': 10**9 + len(self.dialogs), 'method': 'Page.handleJavaScriptDialog', 'params': {'accept': True},
                                                      'sessionId': self.session}).encode() + b'\0')
        elif method == 'Network.responseReceived':
            r = params['response']
            self.statuses[r['url']] = r['status']
            self.headers[r['url']] = {k.lower(): v for k, v in r['headers'].items()}

    def go(self, url):
        self.call('Page.navigate', {'url': url})

    def eval(self, expression):
        r = self.call('Runtime.evaluate', {'expression': expression, 'returnByValue': True, 'awaitPromise': True})
        if 'exceptionDetails' in r:
            raise Failure(expression + ': ' + r['exceptionDetails'].get('exception', {}).get('description', ''))
        return r['result'].get('value')

    def wait(self, expression, timeout=15):
        """Until the expression is true; says what the page showed when it never is."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                value = self.eval('!!(' + expression + ')')
            except Failure:
                value = None
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.eval('document.body ? document.body.innerText.slice(0, 600) : ""')
                raise Failure(f'never true: {expression}\nproblems: {self.problems}\npage: {text}')
            self.browser._pump(time.monotonic() + 0.05)

    def screenshot(self, path):
        data = self.call('Page.captureScreenshot', {'format': 'png'})['data']
        with open(path, 'wb') as f:
            f.write(base64.b64decode(data))
