const server = 'http://localhost:8000';

// Each trade once and in order, also over a cut: an EventSource sends back the last id, and komas goes on after it.
function watchTrades(symbol, last = '') {
  const url = `${server}/api/ws/sse/trades?symbol=${symbol}&last_event_id=${encodeURIComponent(last)}`;
  const eventSource = new EventSource(url);
  eventSource.onmessage = (event) => {
    last = event.lastEventId || last;
    const { data } = JSON.parse(event.data);
    console.log(data.trade_id, data.price, data.quantity);
  };
  eventSource.addEventListener('gap', (event) => {
    const { filled, from, to, reason } = JSON.parse(event.data);
    if (!filled) console.warn('missing trades', from, to, reason);
  });
  eventSource.addEventListener('lagged', (event) => console.warn('too slow, lost', JSON.parse(event.data).dropped));
  eventSource.addEventListener('health', (event) => console.warn('health', JSON.parse(event.data).health));
  eventSource.onerror = () => {
    // It comes back by itself, but gives up for good where a proxy answers 502: then make another one.
    if (eventSource.readyState !== EventSource.CLOSED) return;
    setTimeout(watchTrades, 2000 + 2000 * Math.random(), symbol, last);
  };
}

watchTrades('BTCUSDT');
