// Trades in Node 20 or newer, without a package: node trades.mjs [server]. Each once and in order, over any cut.
const url = `${process.argv[2] ?? 'http://localhost:8000'}/api/ws/sse/trades?symbol=BTCUSDT`;
const SILENCE_MS = 45_000; // three of komas's heartbeats

/** Lines of a body that comes in pieces. */
async function* lines(body) {
  let rest = '';
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const found = (rest + text).split('\n');
    rest = found.pop();
    yield* found.map((line) => line.replace(/\r$/, ''));
  }
}

/** Name, id and data of each Server-Sent Event. */
async function* events(body, heard) {
  let [name, id, data] = ['message', '', []];
  for await (const line of lines(body)) {
    heard();
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === 'data') data.push(value);
    else if (field === 'event') name = value;
    else if (field === 'id') id = value;
    else if (line === '') {
      if (data.length) yield { name, id, data: data.join('\n') };
      [name, data] = ['message', []];
    }
  }
}

function show({ name, data }) {
  const event = JSON.parse(data); // doubles; read prices out of the text where the last digit counts
  if (name === 'message') console.log(event.data.trade_id, event.data.price, event.data.quantity);
  else if (name === 'gap' && event.filled) return;
  else console.error(name === 'gap' ? 'missing trades' : name, event);
}

let last = '';
for (let wait = 1000; ; wait = Math.min(30_000, 2 * wait)) {
  const cut = new AbortController();
  const silence = setTimeout(() => cut.abort(), SILENCE_MS);
  try {
    const answer = await fetch(url, { headers: last ? { 'Last-Event-ID': last } : {}, signal: cut.signal });
    if (answer.status < 500 && !answer.ok) {
      console.error(await answer.text()); // it says what was wrong
      process.exit(1);
    }
    if (answer.ok)
      for await (const event of events(answer.body, () => silence.refresh())) {
        show(event);
        last = event.id || last; // only now: what was not dealt with comes again
        wait = 1000;
      }
  } catch (error) {
    console.error('cut:', error.cause?.message ?? error.message);
  }
  clearTimeout(silence);
  await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
}
