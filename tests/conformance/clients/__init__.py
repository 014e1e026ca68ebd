"""Small programs around clients that others wrote; each runs beside its client, in an environment of its own.

Those of exchanges print books and trades, one a line, until they are ended. Their arguments are the WebSocket and REST
addresses of the exchange, and symbols. Lines are JSON, anything else is a remark::

    ["book", symbol, update id, [[price, quantity], ...], [[price, quantity], ...]]     bids and asks, best first
    ["trade", symbol, id, price, quantity, time in ms, whether the buyer is the maker]
    ["mark", symbol, mark price, index]                                                 of futures
"""
