// The package ws, with the token in a header.
import WebSocket from "ws";
import { listen } from "./listen.mjs";

const [url, token] = process.argv.slice(2);
const dial = (address) => new WebSocket(address, { headers: { Authorization: `Bearer ${token}` } });
listen(dial, url, (row) => console.log(JSON.stringify(row)));
