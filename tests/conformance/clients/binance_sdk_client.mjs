// Binance's own package for spot: raw diffs and trades, and a book of ours. It connects again by itself.

import { Spot } from '@binance/spot';
import { OwnBook } from './own_book.mjs';

const [wsUrl, restUrl, ...symbols] = process.argv.slice(2);
const client = new Spot({
  configurationRestAPI: { basePath: restUrl },
  configurationWebsocketStreams: { wsURL: wsUrl, reconnectDelay: 1000 },
});

async function snapshot(symbol) {
  return (await client.restAPI.depth({ symbol, limit: 1000 })).data();
}

const connection = await client.websocketStreams.connect();
connection.on('error', (error) => console.log(String(error))); // without a listener node would end
for (const symbol of symbols) {
  const book = new OwnBook(
    () => snapshot(symbol),
    () => console.log(JSON.stringify(['book', symbol, book.id, ...book.levels()])),
  );
  connection.diffBookDepth({ symbol, updateSpeed: '100ms' }).on('message', (told) => book.take(told));
  connection.trade({ symbol }).on('message', (told) => {
    console.log(JSON.stringify(['trade', told.s, Number(told.t), told.p, told.q, Number(told.T), told.m]));
  });
}
