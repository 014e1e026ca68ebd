// ccxt.pro, as its manual shows it: a call for each update, and another one after an error. It keeps floats.

import ccxt from 'ccxt';

const [wsUrl, restUrl, ...symbols] = process.argv.slice(2);
const exchange = new ccxt.pro.binance({ options: { fetchMarkets: { types: ['spot'] }, fetchMargins: false } });
exchange.urls.api.ws.spot = `${wsUrl}/ws`;
exchange.urls.api.public = `${restUrl}/api/v3`;

async function forever(watch) {
  for (;;) {
    try {
      await watch();
    } catch (error) {
      console.log(String(error));
      await new Promise((resume) => setTimeout(resume, 100));
    }
  }
}

await exchange.loadHttpProxyAgent(); // what it asks for where the URL is ws://
await exchange.loadMarkets();
for (const id of symbols) {
  const { symbol } = exchange.markets_by_id[id][0];
  forever(async () => {
    const book = await exchange.watchOrderBook(symbol);
    console.log(JSON.stringify(['book', id, book.nonce, book.bids, book.asks]));
  });
  forever(async () => {
    for (const trade of await exchange.watchTrades(symbol)) {
      const { price, amount, timestamp, side } = trade;
      console.log(JSON.stringify(['trade', id, Number(trade.id), price, amount, timestamp, side === 'sell']));
    }
  });
}
