// ccxt.pro for USD-M futures: mark prices, the exchange's only stream of futures that the simulator has. Floats.

import ccxt from 'ccxt';

const [wsUrl, restUrl, ...symbols] = process.argv.slice(2);
const exchange = new ccxt.pro.binanceusdm({ options: { fetchMargins: false } });
exchange.urls.api.ws.future = `${wsUrl}/ws`;
exchange.urls.api.fapiPublic = `${restUrl}/fapi/v1`;

async function watch(id) {
  const { symbol } = exchange.markets_by_id[id][0];
  for (;;) {
    try {
      const found = await exchange.watchMarkPrice(symbol);
      console.log(JSON.stringify(['mark', id, found.markPrice, found.indexPrice]));
    } catch (error) {
      console.log(String(error));
      await new Promise((resume) => setTimeout(resume, 100));
    }
  }
}

await exchange.loadHttpProxyAgent(); // what it asks for where the URL is ws://
await exchange.loadMarkets();
symbols.forEach(watch);
