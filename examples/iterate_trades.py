import trio
from komas import open_binance


async def main():
    async with open_binance() as binance, binance.trades("BTCUSDT") as trades:
        async for trade in trades:
            print(trade.trade_id, trade.price, trade.quantity)


trio.run(main)
