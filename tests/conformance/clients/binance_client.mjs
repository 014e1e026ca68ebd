// The package `binance` with the book of `orderbooks`, by the same author: floats. It connects again by itself.

import { MainClient, WebsocketClient, WS_KEY_MAP } from 'binance';
import { OrderBook } from 'orderbooks';

const [wsUrl, restUrl, ...symbols] = process.argv.slice(2);
const rest = new MainClient({ baseUrl: restUrl, disableTimeSync: true });
const sockets = new WebsocketClient({ wsUrl, reconnectTimeout: 200 });
const states = new Map(symbols.map((symbol) => [symbol, { id: 0, waiting: [], asking: false }]));

const levels = (symbol, side, rows) => rows.map(([price, quantity]) => [symbol, Number(price), side, Number(quantity)]);

async function ask(symbol, state) {
  state.asking = true;
  try {
    const found = await rest.getOrderBook({ symbol, limit: 1000 });
    state.book = new OrderBook(symbol, { maxDepth: 10000 });
    state.book.handleSnapshot([...levels(symbol, 'Buy', found.bids), ...levels(symbol, 'Sell', found.asks)]);
    state.id = found.lastUpdateId;
    for (const told of state.waiting.splice(0)) follow(symbol, state, told);
  } catch (error) {
    console.log(JSON.stringify(error));
  } finally {
    state.asking = false;
  }
}

function follow(symbol, state, told) {
  if (told.u <= state.id) return;
  if (told.U > state.id + 1) {
    state.id = 0; // something was missed: the next diff leads to a snapshot
    return;
  }
  const changed = [...levels(symbol, 'Buy', told.b), ...levels(symbol, 'Sell', told.a)];
  state.book.handleDelta(changed.filter((level) => level[3] === 0), changed.filter((level) => level[3] !== 0));
  state.id = told.u;
  const both = state.book.getBookState().map(([, price, side, quantity]) => [side, [price, quantity]]);
  const [bids, asks] = ['Buy', 'Sell'].map((name) => both.filter(([side]) => side === name).map(([, level]) => level));
  console.log(JSON.stringify(['book', symbol, told.u, bids, asks.reverse()]));
}

sockets.on('message', (told) => {
  if (told.e === 'trade') {
    console.log(JSON.stringify(['trade', told.s, told.t, told.p, told.q, told.T, told.m]));
  } else if (told.e === 'depthUpdate') {
    const state = states.get(told.s);
    if (state.id && !state.asking) {
      follow(told.s, state, told);
    } else {
      state.waiting.push(told);
    }
    if (!state.id && !state.asking) ask(told.s, state);
  }
});
for (const name of ['exception', 'reconnecting', 'reconnected']) sockets.on(name, () => console.log(name));
sockets.subscribe(
  symbols.flatMap((symbol) => ['depth@100ms', 'trade'].map((kind) => `${symbol.toLowerCase()}@${kind}`)),
  WS_KEY_MAP.main,
);
