// React 18 or newer. Copy komas.js and react.js from the server's /static/ into komas/ beside this file, then bundle it:
// npx esbuild prices.jsx --bundle --jsx=automatic --outfile=bundle.js
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Komas } from './komas/komas.js';
import { usePrices, useTrades } from './komas/react.js';

// One for the whole application: it shares its connection, comes back by itself, and goes on where it was.
const komas = new Komas('http://localhost:8000/');

function useNotices() {
  const [state, setState] = useState('connecting');
  const [gaps, setGaps] = useState([]);
  useEffect(() => komas.on('state', (now) => setState(now.state)), []);
  useEffect(() => komas.on('gap', (gap) => gap.filled || setGaps((before) => [...before, gap].slice(-10))), []);
  return { state, gaps };
}

function Prices() {
  const prices = usePrices(komas, ['BTCUSDT', 'ETHUSDT']);
  const trades = useTrades(komas, 'BTCUSDT', 20);
  const { state, gaps } = useNotices();
  return (
    <main>
      <p role="status">{state}</p>
      {Object.values(prices).map(({ symbol, price }) => (
        <p key={symbol} data-symbol={symbol}>{`${symbol} ${price}`}</p>
      ))}
      <ol>
        {trades.map(({ trade_id, price, quantity }) => (
          <li key={trade_id}>{`${trade_id} ${price} ${quantity}`}</li>
        ))}
      </ol>
      {gaps.map(({ stream, from, to }) => (
        <p key={`${stream} ${from}`}>{`missing: ${stream}, ${from} to ${to}`}</p>
      ))}
    </main>
  );
}

createRoot(document.getElementById('root')).render(<Prices />);
