"""Writes ``dashboards/komas.json``, the dashboard for Grafana 10.1 and later.

``python deploy/grafana/make_dashboard.py`` needs ``grafana-foundation-sdk``, which the extra ``test`` brings.
What the metrics mean is in ``docs/operations.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

FILE: Final = Path(__file__).parent / "dashboards" / "komas.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
ONE: Final = '{job=~"$job",instance=~"$instance"}'  # the servers that are chosen
RATE: Final = "$__rate_interval"
HEIGHT: Final = 8
THIRD: Final = 8  # of a row's 24 columns
SIXTH: Final = 4


class Number(NamedTuple):
    """One number at the top; it turns orange, then red, from these values on."""

    title: str
    expression: str
    meaning: str
    unit: str = "short"
    orange: float | None = None
    red: float | None = None


class Chart(NamedTuple):
    """Lines over time: a legend for each expression."""

    title: str
    lines: Sequence[tuple[str, str]]
    meaning: str
    unit: str = "short"


def _sum(by: Sequence[str]) -> str:
    return f"sum by ({', '.join(by)})" if by else "sum"


def rate(metric: str, *by: str) -> str:
    """A counter's rate, summed but for some labels."""
    return f"{_sum(by)} (rate({metric}{ONE}[{RATE}]))"


def quantile(part: float, metric: str, *by: str) -> str:
    """A histogram's quantile."""
    return f"histogram_quantile({part}, {rate(f'{metric}_bucket', 'le', *by)})"


def total(metric: str, *by: str) -> str:
    """A gauge, summed but for some labels."""
    return f"{_sum(by)} ({metric}{ONE})"


NUMBERS: Final = (
    Number("Connected", f"min(komas_upstream_connected{ONE})", "1 while the spot market is connected", red=-1),
    Number("Age of data", f"max(komas_upstream_age_seconds{ONE})", "Of the market that is behind most", "s", 10, 60),
    Number("Stale streams", total("komas_streams_stale"), "Streams that may be doubted now", orange=1, red=20),
    Number("Clients", total("komas_subscribers"), "Who reads, over whatever"),
    Number("Loop lag", f"max(komas_loop_lag_max_seconds{ONE})", "The longest of the last minute", "s", 0.1, 0.5),
    Number("Gaps declared, 1 h", f"sum(increase(komas_upstream_gaps_declared_total{ONE}[1h]))", "What was lost", red=1),
)

ROWS: Final[tuple[tuple[str, tuple[Chart, ...]], ...]] = (
    (
        "The exchange",
        (
            Chart("Frames", [(rate("komas_upstream_messages_total", "venue"), "{{venue}}")], "With data", "cps"),
            Chart(
                "Reconnects",
                [(rate("komas_upstream_reconnects_total", "venue", "reason"), "{{venue}} {{reason}}")],
                "By how the connection before ended",
                "cps",
            ),
            Chart("Streams", [(total("komas_streams_by_health", "health"), "{{health}}")], "By their health"),
            Chart(
                "Gaps",
                [
                    (rate("komas_upstream_gaps_total", "kind"), "found, {{kind}}"),
                    (rate("komas_upstream_gaps_declared_total", "kind"), "declared, {{kind}}"),
                    (rate("komas_upstream_backfilled_total", "kind"), "events filled in, {{kind}}"),
                ],
                "Missing trades and candles, and what became of them",
                "cps",
            ),
            Chart(
                "REST weight",
                [
                    (total("komas_rest_weight", "venue"), "{{venue}}"),
                    (total("komas_rest_weight_limit", "venue"), "{{venue}}, at most"),
                ],
                "Used in this minute, by everything behind this address",
            ),
            Chart(
                "REST",
                [
                    (quantile(0.5, "komas_rest_seconds", "venue"), "{{venue}}, half"),
                    (quantile(0.99, "komas_rest_seconds", "venue"), "{{venue}}, 99 %"),
                ],
                "Until the exchange answered",
                "s",
            ),
        ),
    ),
    (
        "Clients",
        (
            Chart("Clients", [(total("komas_subscribers", "transport"), "{{transport}}")], "By what they read over"),
            Chart(
                "From receipt to write",
                [
                    (quantile(0.5, "komas_write_latency_seconds"), "half"),
                    (quantile(0.99, "komas_write_latency_seconds"), "99 %"),
                ],
                "To those who keep up; of one write in seventeen",
                "s",
            ),
            Chart(
                "Slow clients",
                [
                    (rate("komas_dropped_total"), "events dropped"),
                    (rate("komas_conflated_total"), "states replaced by newer ones"),
                    (rate("komas_signal_slow_consumers_total"), "VIPs disconnected"),
                    (rate("komas_connections_cut_off_total"), "connections cut off"),
                ],
                "What they missed, and those who were let go",
                "cps",
            ),
            Chart(
                "Requests",
                [(rate("komas_http_requests_total", "status"), "{{status}}")],
                "By status; with a route for each in the metric",
                "reqps",
            ),
            Chart("Refusals", [(rate("komas_refusals_total", "reason"), "{{reason}}")], "By limit", "cps"),
            Chart(
                "WebSockets closed",
                [
                    (
                        rate("komas_websocket_closes_total", "transport", "code", "reason"),
                        "{{transport}} {{code}} {{reason}}",
                    )
                ],
                "By whom, and why",
                "cps",
            ),
        ),
    ),
    (
        "Signals and the process",
        (
            Chart(
                "Signals",
                [
                    (rate("komas_signal_events_total"), "published"),
                    (rate("komas_database_failures_total"), "database failures"),
                ],
                "Signals and updates",
                "cps",
            ),
            Chart(
                "Commits",
                [(quantile(0.5, "komas_commit_seconds"), "half"), (quantile(0.99, "komas_commit_seconds"), "99 %")],
                "Until a change was committed",
                "s",
            ),
            Chart(
                "Event loop",
                [
                    (quantile(0.99, "komas_loop_lag_seconds"), "99 %"),
                    (f"max(komas_loop_lag_max_seconds{ONE})", "the longest of a minute"),
                ],
                "How late tasks run",
                "s",
            ),
            Chart("CPU", [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")], "Cores", "percentunit"),
            Chart(
                "Memory",
                [
                    (total("process_resident_memory_bytes", "instance"), "{{instance}}"),
                    (total("komas_history_bytes", "instance"), "{{instance}}, kept events"),
                ],
                "Resident, and of that what is kept for who comes back",
                "bytes",
            ),
            Chart(
                "Connections and files",
                [
                    (total("komas_connections", "instance"), "{{instance}}"),
                    (total("process_open_fds", "instance"), "{{instance}}, open files"),
                ],
                "Of clients",
            ),
        ),
    ),
    (
        "Several processes",
        (
            Chart(
                "Who leads",
                [(total("komas_cluster_leader", "instance"), "{{instance}}")],
                "1 at the process that is connected to the exchange",
            ),
            Chart(
                "Behind the log",
                [(total("komas_backplane_age_seconds", "instance"), "{{instance}}")],
                "Since each process read something; above 3 it is not ready",
                "s",
            ),
            Chart(
                "Log",
                [
                    (rate("komas_backplane_entries_total", "instance"), "{{instance}}, entries read"),
                    (rate("komas_backplane_holes_total", "instance"), "{{instance}}, missed"),
                    (rate("komas_backplane_repeated_total", "instance"), "{{instance}}, events that came again"),
                ],
                "What each process reads",
                "cps",
            ),
            Chart(
                "Waits for Redis",
                [(total("komas_backplane_unwritten_bytes", "instance"), "{{instance}}")],
                "What the leader could not write yet",
                "bytes",
            ),
        ),
    ),
)


def dashboard() -> Dashboard:
    """The whole dashboard."""
    made = (
        Dashboard("komas")
        .uid("komas")
        .tags(["komas"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(_choice("job", "label_values(komas_build_info, job)"))
        .with_variable(_choice("instance", 'label_values(komas_build_info{job=~"$job"}, instance)'))
    )
    for number in NUMBERS:
        made.with_panel(_stat(number))
    for title, charts in ROWS:
        made.with_row(Row(title))
        for chart in charts:
            made.with_panel(_chart(chart))
    return made


def _choice(name: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
    )


def _stat(number: Number) -> Stat:
    steps = [Threshold(value=None, color="green")]
    steps += [
        Threshold(value=at, color=color)
        for at, color in ((number.orange, "orange"), (number.red, "red"))
        if at is not None
    ]
    if number.red == -1:  # what is good is 1
        steps = [Threshold(value=None, color="red"), Threshold(value=1, color="green")]
    return (
        Stat()
        .title(number.title)
        .description(number.meaning)
        .datasource(SOURCE)
        .unit(number.unit)
        .height(4)
        .span(SIXTH)
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_query(number.expression, number.title, "A"))
    )


def _chart(chart: Chart) -> Timeseries:
    panel = (
        Timeseries()
        .title(chart.title)
        .description(chart.meaning)
        .datasource(SOURCE)
        .unit(chart.unit)
        .min(0)
        .height(HEIGHT)
        .span(THIRD)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for letter, (expression, legend) in zip("ABCDEF", chart.lines, strict=False):
        panel.with_target(_query(expression, legend, letter))
    return panel


def _query(expression: str, legend: str, letter: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).ref_id(letter)


def rendered() -> str:
    """The file's text."""
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard().build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
