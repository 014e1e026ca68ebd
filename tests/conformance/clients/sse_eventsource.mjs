// The package eventsource comes back by itself, but for a status that is not 200: then a new one is made, as komas's README
// has it, which is told in its address where the old one was.
import { EventSource } from "eventsource";
import { watch } from "./watch.mjs";

watch(EventSource, process.argv[2], (event) => console.log(JSON.stringify(event)));
setInterval(() => {}, 60_000); // its wait before it comes back does not keep a process alive that has nothing else to do
