/** komas for front ends: prices, candles, trades, order books and signals. */

/**
 * A number of the exchange. `JSON.parse`, the default, makes doubles of them; with `parse` of `digits.js` it is a text
 * with every digit.
 */
export type Digits = any;

export interface KomasOptions {
  /** A class for where there is none: Node's, from the npm package `eventsource`. */
  EventSource?: any;
  /** A class for where there is none: before Node 22, from the npm package `ws`. */
  WebSocket?: any;
  fetch?: typeof fetch;
  /** How JSON is read: `parse` of `digits.js` keeps every digit. */
  parse?: (text: string) => any;
  /** For signals. A function is asked for a new one before the old one ends, and when it was refused. */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** Past candles with which each stream of candles begins, up to 1000. */
  history?: number;
  /** Levels a side of order books, up to 100. */
  limit?: number;
}

export interface Price {
  type: string;
  symbol: string;
  price: Digits;
  open: Digits;
  high: Digits;
  low: Digits;
  volume: Digits;
  quote_volume: Digits;
  price_change: Digits;
  price_change_percent: Digits;
  timestamp: Digits;
}

export interface Kline {
  type: "kline";
  symbol: string;
  interval: string;
  /** When it opened, milliseconds since the epoch. */
  timestamp: Digits;
  open: Digits;
  high: Digits;
  low: Digits;
  close: Digits;
  volume: Digits;
  is_closed: boolean;
  trades: Digits;
  quote_volume: Digits;
}

export interface Trade {
  type: "trade";
  symbol: string;
  trade_id: Digits;
  price: Digits;
  quantity: Digits;
  timestamp: Digits;
  is_buyer_maker: boolean;
}

export interface Depth {
  type: "depth";
  symbol: string;
  update_id: Digits;
  /** `[price, quantity]`, best first. */
  bids: [Digits, Digits][];
  asks: [Digits, Digits][];
  timestamp: Digits;
}

export interface Signal {
  id: Digits;
  created_at: string;
  [field: string]: any;
}

export type SignalMessage =
  | { type: "new_signal"; signal_type: string; data: Signal; position?: Digits }
  | { type: "signal_update"; signal_type: string; signal_id: Digits; data: Record<string, any>; position?: Digits };

/** What stands around the data of an event. */
export interface About {
  type: string;
  stream: string;
  timestamp: string;
  backfilled?: boolean;
}

/** Events, to `for await` or to the callback it was made with. Leaving the loop closes it. */
export interface Subscription<Data> extends AsyncIterable<Data> {
  readonly streams: string[];
  /** Events that were left out because the loop was too slow. */
  readonly dropped: number;
  close(): void;
}

export interface MarketState {
  state: "idle" | "connecting" | "live" | "lost" | "busy";
  reason: string | null;
  /** When it tries again, milliseconds since the epoch. */
  retryAt: number | null;
  /** Whether komas answered when it was asked last. */
  answered: boolean;
}

/** Which signals; of all where a list is empty or missing. Coins in any case. */
export interface SignalFilter {
  signalTypes?: readonly string[];
  coinNames?: readonly string[];
}

export interface SignalState {
  state: "connecting" | "live" | "lost" | "closed";
  code: number | null;
  reason: string;
  /** What the close code means, as an id: `c1008u`, `c1013`, ... */
  word: string | null;
  retryAt: number | null;
}

export interface Events {
  state: MarketState;
  signals: SignalState;
  error: unknown;
  /** Notices of docs/protocol.md. */
  status: { state: string; reason: string | null; retry_in_s: Digits | null; stream: string | null };
  gap: { stream: string; from: Digits | null; to: Digits | null; filled: boolean; reason: string | null };
  lagged: { dropped: Digits; stream?: string };
  health: { stream: string; health: string; reason: string | null };
  /** The server does not give this stream; the others go on. */
  refused: { stream: string; reason: string };
}

/** An answer that is an error, in the server's words. */
export declare class KomasError extends Error {
  constructor(
    status: number,
    message: string,
    errors?: { field: string; message: string }[],
    retryAfterS?: number | null,
  );
  /** 0: there was no answer. */
  status: number;
  errors: { field: string; message: string }[];
  retryAfterS: number | null;
  static of(response: Response): Promise<KomasError>;
}

/** Everything that komas sends, over one event stream and one socket; nothing is open until it is asked for. */
export declare class Komas {
  /** `url` is the server's root, with its prefix if it has one. */
  constructor(url: string | URL, options?: KomasOptions);
  /** `kind` is the exchange's name: `miniTicker`, `bookTicker`, `markPrice@1s`. */
  prices(symbols: string[], callback?: (price: Price, about: About) => void, kind?: string): Subscription<Price>;
  klines(symbol: string, interval: string, callback?: (kline: Kline, about: About) => void): Subscription<Kline>;
  trades(symbol: string, callback?: (trade: Trade, about: About) => void): Subscription<Trade>;
  depth(symbol: string, callback?: (depth: Depth, about: About) => void): Subscription<Depth>;
  /** Streams by the exchange's own names: `btcusdt@aggTrade`. */
  subscribe(streams: string[], callback?: (data: any, about: About) => void): Subscription<any>;
  /** One socket for all who want the same; without a filter, all signals. */
  signals(callback?: (message: SignalMessage) => void, filter?: SignalFilter): Subscription<SignalMessage>;
  /** One REST call: `api/ws/klines?symbol=BTCUSDT&interval=1m`. Rejects with `KomasError`. */
  get(path: string): Promise<any>;
  /** Returns what ends it. */
  on<Name extends keyof Events>(name: Name, callback: (value: Events[Name]) => void): () => void;
  close(): void;
}

export interface MarketHandlers {
  onEvent(stream: string, text: string): void;
  onNotice?(name: string, text: string): void;
  onOpen?(opened: { connection: string; streams: string[]; simulated: boolean; version: string; server: string }): void;
  onState?(state: MarketState): void;
}

/** The event stream alone, for who wants the raw text. */
export declare class MarketConnection {
  constructor(root: URL, options: KomasOptions, handlers: MarketHandlers);
  want(streams: Iterable<string>): void;
  retry(): void;
  close(): void;
}

export interface SignalHandlers {
  onMessage(message: any): void;
  onState?(state: SignalState): void;
  onError?(error: unknown): void;
}

/** The socket alone. */
export declare class SignalConnection {
  constructor(root: URL, options: KomasOptions, handlers: SignalHandlers, filter?: SignalFilter);
  retry(): void;
  close(): void;
}

/** The stream that an envelope names. */
export declare function streamOf(text: string): string;
