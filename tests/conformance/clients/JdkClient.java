// Java's own WebSocket and HTTP clients (java.net.http), and a book of ours by the exchange's rules; it keeps decimals.

import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.Collectors;

public class JdkClient {
    private static final HttpClient HTTP = HttpClient.newHttpClient();
    private static final Map<String, Book> BOOKS = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        List<String> streams = new ArrayList<>();
        for (int at = 2; at < arguments.length; at++) {
            String symbol = arguments[at];
            BOOKS.put(symbol, new Book(URI.create(arguments[1] + "/api/v3/depth?limit=1000&symbol=" + symbol)));
            streams.add(symbol.toLowerCase() + "@depth@100ms");
            streams.add(symbol.toLowerCase() + "@trade");
        }
        URI address = URI.create(arguments[0] + "/stream?streams=" + String.join("/", streams));
        while (true) {
            Reader reader = new Reader();
            try {
                HTTP.newWebSocketBuilder().buildAsync(address, reader).join();
                reader.ended.join();
            } catch (RuntimeException refused) {
                System.out.println(refused);
            }
            Thread.sleep(200);
        }
    }

    // One connection: messages are put together from their parts, and taken one after another.
    private static final class Reader implements WebSocket.Listener {
        final CompletableFuture<Void> ended = new CompletableFuture<>();
        private final StringBuilder parts = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            parts.append(data);
            if (last) {
                Object told = new Json(parts.toString()).value();
                parts.setLength(0);
                try {
                    take((Map<?, ?>) ((Map<?, ?>) told).get("data"));
                } catch (Exception failure) {
                    System.out.println(failure);
                }
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            System.out.println("closed: " + code + " " + reason);
            ended.complete(null);
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            System.out.println(error);
            ended.complete(null);
        }
    }

    private static void take(Map<?, ?> told) throws Exception {
        String symbol = (String) told.get("s");
        if (told.get("e").equals("trade")) {
            System.out.printf("[\"trade\",\"%s\",%s,\"%s\",\"%s\",%s,%s]%n", symbol, told.get("t"), told.get("p"),
                told.get("q"), told.get("T"), told.get("m"));
        } else if (BOOKS.get(symbol).follow(told)) {
            System.out.println(BOOKS.get(symbol).line(symbol));
        }
    }

    private static final class Book {
        private final URI snapshot;
        private final TreeMap<BigDecimal, BigDecimal> bids = new TreeMap<>(Comparator.reverseOrder());
        private final TreeMap<BigDecimal, BigDecimal> asks = new TreeMap<>();
        private long id;

        Book(URI snapshot) {
            this.snapshot = snapshot;
        }

        boolean follow(Map<?, ?> told) throws Exception {
            long first = number(told.get("U"));
            long last = number(told.get("u"));
            if (id == 0 || first > id + 1) {
                ask();
            }
            if (last <= id || first > id + 1) {
                return false;
            }
            set(bids, told.get("b"));
            set(asks, told.get("a"));
            id = last;
            return true;
        }

        private void ask() throws Exception {
            HttpRequest request = HttpRequest.newBuilder(snapshot).build();
            String text = HTTP.send(request, HttpResponse.BodyHandlers.ofString()).body();
            Map<?, ?> found = (Map<?, ?>) new Json(text).value();
            bids.clear();
            asks.clear();
            set(bids, found.get("bids"));
            set(asks, found.get("asks"));
            id = number(found.get("lastUpdateId"));
        }

        private static long number(Object text) {
            return ((BigDecimal) text).longValueExact();
        }

        private static void set(Map<BigDecimal, BigDecimal> side, Object rows) {
            for (Object row : (List<?>) rows) {
                BigDecimal price = new BigDecimal((String) ((List<?>) row).get(0));
                BigDecimal quantity = new BigDecimal((String) ((List<?>) row).get(1));
                if (quantity.signum() == 0) {
                    side.remove(price);
                } else {
                    side.put(price, quantity);
                }
            }
        }

        String line(String symbol) {
            return "[\"book\",\"" + symbol + "\"," + id + "," + text(bids) + "," + text(asks) + "]";
        }

        private static String text(Map<BigDecimal, BigDecimal> side) {
            return side.entrySet().stream()
                .map(level -> "[\"" + level.getKey().toPlainString() + "\",\"" + level.getValue().toPlainString() + "\"]")
                .collect(Collectors.joining(",", "[", "]"));
        }
    }

    // As much of JSON as the exchange sends: Java 17 has no reader of its own.
    private static final class Json {
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Object value() {
            switch (text.charAt(at)) {
                case '{':
                    Map<String, Object> object = new HashMap<>();
                    for (at++; text.charAt(at) != '}'; skip(',')) {
                        String name = (String) value();
                        skip(':');
                        object.put(name, value());
                    }
                    at++;
                    return object;
                case '[':
                    List<Object> list = new ArrayList<>();
                    for (at++; text.charAt(at) != ']'; skip(',')) {
                        list.add(value());
                    }
                    at++;
                    return list;
                case '"':
                    int begin = ++at;
                    at = text.indexOf('"', at) + 1;
                    return text.substring(begin, at - 1);
                default:
                    int start = at;
                    while (",]}".indexOf(text.charAt(at)) < 0) {
                        at++;
                    }
                    String word = text.substring(start, at);
                    return word.equals("true") || word.equals("false") ? (Object) word.equals("true")
                        : word.equals("null") ? null : new BigDecimal(word);
            }
        }

        private void skip(char expected) {
            if (text.charAt(at) == expected) {
                at++;
            }
        }
    }
}
