import { render } from 'preact'; render(<main>Weft</main>, document.getElementById('app'));
