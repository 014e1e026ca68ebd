function watch(url) {
  const eventSource = new EventSource(url);
  eventSource.onmessage = (event) => {
    const { data } = JSON.parse(event.data);
    console.log(data.symbol, data.price);
  };
  eventSource.onerror = () => {
    // It comes back by itself, but gives up for good where a proxy answers 502: then make another one.
    if (eventSource.readyState === EventSource.CLOSED) setTimeout(watch, 2000 + 2000 * Math.random(), url);
  };
}

watch('http://localhost:8000/api/ws/sse/prices?symbols=BTCUSDT,ETHUSDT');
