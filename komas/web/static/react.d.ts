import type { Kline, Komas, Price, Signal, Trade } from "./komas.js";

/** The newest ticker of each symbol, by symbol. */
export declare function usePrices(komas: Komas, symbols: string[]): Record<string, Price>;
/** Candles, oldest first; the last one is open. */
export declare function useKlines(komas: Komas, symbol: string, interval: string, limit?: number): Kline[];
/** The newest trades, newest first. */
export declare function useTrades(komas: Komas, symbol: string, limit?: number): Trade[];
/** Signals as they stand, newest first; `komas` has the token. */
export declare function useSignals(komas: Komas, limit?: number): Signal[];
