// komas for React 18 and newer: hooks over one `Komas`, which the application makes once and gives to each.

import { useEffect, useState } from "react";

/** @import { Komas, Kline, Price, Signal, Trade } from "./komas.js" */

const FLUSH_MS = 100; // a busy stream renders ten times a second, not a thousand times

/**
 * Collect what comes, and change a state with all of it together.
 * @template Item, State
 * @param {State} start
 * @param {(state: State, items: Item[]) => State} change
 * @param {((take: (item: Item) => void) => { close(): void }) | null} subscribe
 * @param {unknown[]} when anything of it changes, begin anew
 * @returns {State}
 */
function useCollected(start, change, subscribe, when) {
  const [state, setState] = useState(start);
  useEffect(() => {
    setState(start);
    if (subscribe === null) return undefined;
    /** @type {Item[]} */ let items = [];
    /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
    const flush = () => {
      const taken = items;
      items = [];
      timer = undefined;
      setState((before) => change(before, taken));
    };
    const reader = subscribe((item) => {
      items.push(item);
      timer ??= setTimeout(flush, FLUSH_MS);
    });
    return () => {
      clearTimeout(timer);
      reader.close();
    };
  }, when);
  return state;
}

/** @type {Record<string, never>} */ const NO_PRICES = {};
/** @type {never[]} */ const NONE = [];

/** The newest ticker of each symbol, by symbol. @param {Komas} komas @param {string[]} symbols @returns {Record<string, Price>} */
export function usePrices(komas, symbols) {
  return useCollected(
    /** @type {Record<string, Price>} */ (NO_PRICES),
    (prices, /** @type {Price[]} */ news) => ({
      ...prices,
      ...Object.fromEntries(news.map((each) => [each.symbol, each])),
    }),
    symbols.length > 0 ? (take) => komas.prices(symbols, take) : null,
    [komas, symbols.join()],
  );
}

/** Candles, oldest first; the last one is open. @param {Komas} komas @param {string} symbol @param {string} interval @returns {Kline[]} */
export function useKlines(komas, symbol, interval, limit = 500) {
  return useCollected(
    /** @type {Kline[]} */ (NONE),
    (klines, /** @type {Kline[]} */ news) => mergeKlines(klines, news).slice(-limit),
    symbol ? (take) => komas.klines(symbol, interval, take) : null,
    [komas, symbol, interval, limit],
  );
}

/** By open time; an open candle never replaces a closed one. @param {Kline[]} klines @param {Kline[]} news */
function mergeKlines(klines, news) {
  const merged = new Map(klines.map((each) => [Number(each.timestamp), each]));
  for (const each of news)
    if (each.is_closed || !merged.get(Number(each.timestamp))?.is_closed) merged.set(Number(each.timestamp), each);
  return [...merged.entries()].sort(([a], [b]) => a - b).map(([, each]) => each);
}

/** The newest trades, newest first. @param {Komas} komas @param {string} symbol @returns {Trade[]} */
export function useTrades(komas, symbol, limit = 100) {
  return useCollected(
    /** @type {Trade[]} */ (NONE),
    (trades, /** @type {Trade[]} */ news) => [...news.reverse(), ...trades].slice(0, limit),
    symbol ? (take) => komas.trades(symbol, take) : null,
    [komas, symbol, limit],
  );
}

/** Signals as they stand, newest first; `komas` has the token. @param {Komas} komas @returns {Signal[]} */
export function useSignals(komas, limit = 100) {
  return useCollected(
    /** @type {Signal[]} */ (NONE),
    (signals, /** @type {any[]} */ messages) => messages.reduce(applySignal, signals).slice(0, limit),
    (take) => komas.signals(take),
    [komas, limit],
  );
}

/** @param {Signal[]} signals @param {any} message @returns {Signal[]} */
function applySignal(signals, message) {
  if (message.type === "new_signal")
    return [
      { ...message.data, signal_type: message.signal_type },
      ...signals.filter(({ id }) => id !== message.data.id),
    ];
  return signals.map((each) => (each.id === message.signal_id ? { ...each, ...message.data } : each));
}
