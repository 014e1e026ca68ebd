const ws = new WebSocket(`ws://localhost:8000/ws/signals?token=${token}`);
ws.onmessage = (event) => console.log(JSON.parse(event.data));
ws.onclose = (event) => console.log(event.code, event.reason);
