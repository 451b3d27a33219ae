"""The smallest useful server: what comes in goes back.

Run it with `python examples/echo.py`. Any client of the wire reaches it: `await client.request('echo', {hi: 1})` in a
browser's console, or `python examples/chat_client.py` and a line `/echo hi`.
"""

from gameserver import App

app = App("echo")


@app.on("echo")
def echo(body: bytes) -> bytes:
    return body


if __name__ == "__main__":
    app.run(port=7777)
