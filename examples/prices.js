const eventSource = new EventSource('http://localhost:8000/api/ws/sse/prices?symbols=BTCUSDT,ETHUSDT');
eventSource.onmessage = (event) => {
  const { data } = JSON.parse(event.data);
  console.log(data.symbol, data.price);
};
