"""The React hooks of both of the user's documents, as printed, beside those of komas.js."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import browsing, evaluate, needs_chromium, showing
from tests.e2e.processes import PATIENCE_S, ROOT, Server, token_for, wait_for
from tests.e2e.relay import relaying

DOCUMENTS = Path(os.environ.get("USER_DOCUMENTS", ROOT.parent / "shared" / "spec"))  # they are no part of this tree
PRICES = DOCUMENTS / "komas-websocket-module.ru.md"
SIGNALS = DOCUMENTS / "signals-websocket-guide.ru.md"
BROWSER = ROOT / "tests" / "browser"
ESBUILD = BROWSER / "node_modules" / ".bin" / "esbuild"

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not ESBUILD.is_file(), reason="esbuild is not installed: npm ci in tests/browser"),
    pytest.mark.skipif(not PRICES.is_file() or not SIGNALS.is_file(), reason="the user's documents are not here"),
]

APPLICATION = """
import { createRoot } from "react-dom/client";
import { PriceDisplay, useBinancePrice } from "./prices.jsx";
import { useWebSocketSignals } from "./signals.jsx";
import { parse } from "./komas/digits.js";
import { Komas } from "./komas/komas.js";
import { usePrices, useSignals } from "./komas/react.js";

const komas = new Komas("http://localhost:8000/", { parse, token: TOKEN });
const told = (value) => JSON.stringify(value);

function Page() {
  const prices = useBinancePrice(["BTCUSDT"]);
  const ours = usePrices(komas, ["BTCUSDT"]);
  const signals = useWebSocketSignals(TOKEN);
  const same = useSignals(komas);
  return (
    <>
      <PriceDisplay />
      <p id="price">{told([prices.BTCUSDT ?? null, Number(ours.BTCUSDT?.price)])}</p>
      <p id="signals">{told([signals, same])}</p>
    </>
  );
}

createRoot(document.querySelector("#root")).render(<Page />);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for an application, beside node_modules, where React is."""
    place = BROWSER / f"hooks-{tmp_path.name}"
    (place / "komas").mkdir(parents=True)
    yield place
    shutil.rmtree(place)


def _hook(document: Path, name: str) -> str:
    """The block that has it, as printed."""
    blocks = re.findall(r"```(?:jsx|javascript)\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    [found] = [block for block in blocks if f"function {name}(" in block]
    return str(found)


def test_the_react_hooks_of_the_documents_run_beside_ours(demo: Server, folder: Path, tmp_path: Path) -> None:
    """They show the same prices and signals, and go on after a cut; only the port is another."""
    token = token_for(demo.folder, "--vip-days", "1", "--scope", "signals:publish")
    with relaying(demo.port) as relay:
        files = {
            "prices.jsx": _hook(PRICES, "useBinancePrice") + "\nexport { PriceDisplay, useBinancePrice };\n",
            "signals.jsx": _hook(SIGNALS, "useWebSocketSignals") + "\nexport { useWebSocketSignals };\n",
            "application.jsx": APPLICATION.replace("TOKEN", json.dumps(token)),
        }
        for name, text in files.items():
            assert name == "application.jsx" or "localhost:8000" in text
            (folder / name).write_text(text.replace("localhost:8000", f"localhost:{relay.port}"), "utf-8")
        for name in ("digits.js", "komas.js", "react.js"):
            (folder / "komas" / name).write_bytes(demo.http.get(f"/static/{name}").content)
        command = [str(ESBUILD), "application.jsx", "--bundle", "--jsx=automatic", "--outfile=bundle.js"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S)
        shown: dict[str, str | bytes] = {
            "/": '<!doctype html><div id="root"></div><script src="bundle.js"></script>',
            "/bundle.js": (folder / "bundle.js").read_bytes(),
        }
        with showing(shown) as pages, browsing(f"{pages.url}/", tmp_path / "browser") as port_file:

            def content(what: str) -> str:
                return str(evaluate(port_file, f"document.querySelector('{what}')?.textContent"))

            def signals() -> list[dict[str, dict[str, object]]]:
                """Those of both hooks, by id."""
                return [{str(row["id"]): row for row in rows} for rows in json.loads(content("#signals"))]

            def agree() -> bool:
                printed, ours = json.loads(content("#price"))
                return isinstance(printed, float) and printed == ours

            def both_get() -> str:
                """A signal that both have; until one is, others are published: the printed hook resumes nothing."""
                deadline = time.monotonic() + PATIENCE_S
                while not (common := signals()[0].keys() & signals()[1].keys() & published):
                    assert time.monotonic() < deadline
                    published.add(str(demo.publish(token, coin_name="NB", spread=8.84)))
                    time.sleep(0.2)
                published.clear()
                return max(common, key=int)

            published: set[str] = set()
            wait_for(
                lambda: re.search(r"BTC: \$\d+\.\d\d\s*ETH: \$\d+\.\d\d", content("#root")), "the prices as printed"
            )
            wait_for(agree, "the same price twice")
            changed = both_get()
            answer = demo.http.patch(
                f"/api/signals/{changed}",
                json={"data": {"spread": 9.12}},
                headers={"Authorization": f"Bearer {token}"},
            )
            assert answer.status_code == 200, answer.text
            wait_for(
                lambda: all(float(str(rows[changed]["spread"])) == 9.12 for rows in signals()), "the update in both"
            )
            relay.cut()
            both_get()
            wait_for(agree, "the same price after the cut")
