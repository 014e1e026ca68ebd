/** What prints from a page: rows are sent to its server in lists, one request after another. */
export function posting() {
  const waiting = [];
  let isSending = false;
  return async (row) => {
    waiting.push(row);
    if (isSending) return;
    isSending = true;
    while (waiting.length) await fetch("/", { method: "POST", body: JSON.stringify(waiting.splice(0)) });
    isSending = false;
  };
}
