const COMES_BACK = [1001, 1006, 1011, 1012, 1013]; // others need a new token, or somebody who looks
let last; // the position of the last signal: whoever comes back with it misses none, and gets none twice
let wait = 1000;

function watchSignals() {
  const place = last === undefined ? 'positions=1' : `since=${last}`;
  const ws = new WebSocket(`ws://localhost:8000/ws/signals?${place}`, ['komas.signals', `bearer.${token}`]);
  ws.onmessage = (event) => {
    const message = JSON.parse(event.data);
    last = message.position ?? last;
    wait = 1000;
    console.log(message);
  };
  ws.onclose = (event) => {
    console.log(event.code, event.reason);
    if (!COMES_BACK.includes(event.code)) return;
    setTimeout(watchSignals, wait * (0.5 + Math.random()));
    wait = Math.min(2 * wait, 30_000);
  };
}

watchSignals();
