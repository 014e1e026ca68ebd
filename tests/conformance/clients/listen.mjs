/** Read signals with a WebSocket that `dial` opens; what is handed out is ["message", text] or ["closed", code, reason]. */
export function listen(dial, url, print) {
  let position = "";
  const open = () => {
    const socket = dial(url + position);
    socket.onerror = () => {}; // its close follows
    socket.onmessage = ({ data }) => {
      print(["message", data]);
      const message = JSON.parse(data);
      if (message.position !== undefined) position = `&since=${message.position}`;
      if (message.data?.last) socket.close(1000);
    };
    socket.onclose = ({ code, reason }) => {
      print(["closed", code, reason]);
      if (code !== 1000 && code !== 1008) setTimeout(open, 500);
    };
  };
  open();
}
