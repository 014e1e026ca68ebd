"""The dashboard and the alerts of ``deploy/``: they speak of metrics that there are, and Prometheus takes them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
GRAFANA: Final = ROOT / "deploy" / "grafana"
PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
ALERTS: Final = PROMETHEUS / "alerts.yml"
CHECKS: Final = (
    ("check", "rules", "alerts.yml"),
    ("check", "config", "prometheus.yml"),
    ("test", "rules", "alerts_test.yml"),
)


def _known() -> set[str]:
    """The table's names, which ``tests/web/test_metrics.py`` holds to what is there."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    return set(re.findall(r"`(komas_\w+)", page.partition("## Metrics")[2].partition("\n## ")[0]))


def _named(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bkomas_\w+", text)}


@pytest.mark.parametrize(
    "file", [GRAFANA / "dashboards" / "komas.json", ALERTS, PROMETHEUS / "alerts_test.yml"], ids=lambda p: p.name
)
def test_every_metric_that_is_named_is_there(file: Path) -> None:
    """A renamed metric would leave an empty panel, and an alert that never comes."""
    named = _named(file.read_text("utf-8"))
    assert len(named) > 10
    assert named <= _known()


def test_the_dashboard_is_what_its_script_writes() -> None:
    """So that it is changed there."""
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("grafana-foundation-sdk is not installed")
    assert (GRAFANA / "dashboards" / "komas.json").read_text("utf-8") == _script().rendered()


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_dashboard", GRAFANA / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_panel_of_the_dashboard_says_what_it_shows() -> None:
    """With a title, words and something to ask for, of the source that is chosen."""
    dashboard = json.loads((GRAFANA / "dashboards" / "komas.json").read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) > 20
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] for target in panel["targets"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("check", CHECKS, ids=" ".join)
def test_promtool_takes_the_alerts(check: tuple[str, ...]) -> None:
    """As they are written; and each comes when it should, and not when all is well."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    done = subprocess.run([promtool, *check], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    """Silent where all is well, told where it is not."""
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8"))
    tried = (PROMETHEUS / "alerts_test.yml").read_text("utf-8")
    assert alerts
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\b", tried), alert
        assert f'alertname="{alert}"' in tried, alert
