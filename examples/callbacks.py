import trio
from komas import BinanceWebSocket


async def main():
    ws = BinanceWebSocket()
    ws.on_error(lambda error: print(f"Error: {error}"))
    await ws.connect()

    async def handle_price(data):
        print(f"{data['symbol']}: ${data['price']}")

    await ws.subscribe_ticker("BTCUSDT", handle_price)
    await ws.run_forever()


trio.run(main)
