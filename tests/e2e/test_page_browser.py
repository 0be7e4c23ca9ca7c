"""The page *Browse → Backups* in a real browser, in Airflow's own frame, every page of it; by keyboard; wide and narrow."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from etcdkeep.acceptance.airflow import PROJECT
from tests.builders import age_pair
from tests.e2e.test_restore_browser import CHROMIUM, DRIVER, SEEN_S, Page, browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.acceptance.airflow import Airflow
    from lab import Site

CLUSTER, NEVER = "skiff", "fleet"
WIDE, NARROW = 1280, 390
MOST_KEYS = 60
FRAME = "//iframe[@title='Backups']"
ARTIFACTS = PROJECT / ".ci" / "artifacts"
"""Ignored by git."""
AXE = files("axe_core_python").joinpath("axe.min.js")
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are missing: apt-get install chromium chromium-driver",
    ),
]


class Backups:
    """The page as a person sees it, inside Airflow."""

    def __init__(self, page: Page, shots: Path) -> None:
        self.page = page
        self.driver = page.driver
        self._shots = shots

    def open(self, width: int = WIDE, theme: str = "light") -> None:
        """Open the page in Airflow's frame, and go into the frame."""
        self.driver.switch_to.default_content()
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < WIDE})  # fmt: skip
        self.driver.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        self.page.open("plugin/backups")
        self.enter()

    def enter(self) -> None:
        self.driver.switch_to.default_content()
        self.driver.switch_to.frame(self.page.find(FRAME))

    def read(self) -> None:
        """Wait until every repository has been read."""
        self.wait(
            "return document.querySelector('table.fleet') !== null && document.querySelector('#live progress') === null"
        )

    def wait(self, script: str) -> None:
        WebDriverWait(self.driver, SEEN_S).until(lambda driver: driver.execute_script(script), script)

    def press_until(self, words: str) -> None:
        """Press the tabulator until the link with these words has the focus, then Enter."""
        for _ in range(MOST_KEYS):
            focused = self.driver.switch_to.active_element
            if focused.text.strip() == words:
                focused.send_keys(Keys.ENTER)
                return
            focused.send_keys(Keys.TAB)
        raise AssertionError(f"the keyboard does not reach {words!r}")

    def follow(self, words: str) -> None:
        """Click the link with these words."""
        WebDriverWait(self.driver, SEEN_S).until(
            lambda driver: driver.execute_script(
                "const link = [...document.querySelectorAll('a')].find(each => each.textContent.trim() === arguments[0]); link?.click(); return Boolean(link)",
                words,
            ),
            f"a link {words!r}",
        )

    def shows(self, heading: str) -> None:
        """Wait for a page with that heading, and a table."""
        self.wait(f"return document.querySelector('h1')?.textContent.startsWith('{heading}') && document.querySelector('#live table') !== null")  # fmt: skip

    def check(self, name: str) -> None:
        """Keep a picture, and find no serious fault for people who use it otherwise."""
        self.driver.save_screenshot(str(self._shots / f"{name}.png"))
        self.driver.execute_script(AXE.read_text())
        faults: list[dict[str, Any]] = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(found => done(found.violations), error => done([{impact: 'critical', id: String(error), nodes: []}]))"
        )
        serious = [each for each in faults if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious] == []
        width = self.driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert width <= 0, f"{name} is wider than its window"


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures are kept: the folder that ETCDKEEP_SHOTS names, in CI one that stays."""
    folder = Path(os.environ.get("ETCDKEEP_SHOTS") or (ARTIFACTS if os.environ.get("CI") == "true" else tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def indexed(airflow: Airflow, config: Path) -> None:
    """Give the API server the key that opens indexes."""
    identity, recipient = age_pair("index")
    path = config.parent / "index-identity"
    path.write_bytes(identity)
    path.chmod(0o600)
    document = yaml.safe_load(config.read_text())
    for entry in document["clusters"]:
        entry |= {"index_recipients": [recipient], "index_identity": {"path": str(path)}}
    config.write_text(yaml.safe_dump(document))


def back_up(airflow: Airflow) -> None:
    run_id = airflow.trigger(f"backup__{CLUSTER}", {"reason": "before <b>the</b> [upgrade](http://x)"})
    assert airflow.wait(f"backup__{CLUSTER}", run_id, 300)["state"] == "success"


@pytest.fixture
def backed_up(airflow: Airflow, indexed: None) -> None:
    back_up(airflow)


@pytest.fixture
def changed(airflow: Airflow, indexed: None, site: Site) -> None:
    """Two backups: one ConfigMap changed between them, another is gone."""
    lab = site.clusters[CLUSTER]
    for name in ("sails", "oars"):
        lab.kubectl("create", "configmap", name, "--from-literal=color=white")
    back_up(airflow)
    lab.kubectl("delete", "configmap", "oars")
    lab.kubectl("patch", "configmap", "sails", "-p", '{"data": {"color": "red"}}')
    back_up(airflow)


@pytest.fixture
def backups(airflow: Airflow, backed_up: None, shots: Path) -> Iterator[Backups]:
    """The page, for somebody who may only read."""
    with browser(airflow, "victor", shots) as page:
        yield Backups(page, shots)


def test_a_person_finds_what_is_wrong_and_which_backup_to_restore(backups: Backups) -> None:
    """Wide and narrow, light and dark, by the keyboard alone."""
    for width, theme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light")):
        backups.open(width, theme)
        backups.read()
        backups.check(f"fleet-{width}-{theme}")
    backups.open()
    backups.read()
    rows = [row.text for row in backups.driver.find_elements(By.CSS_SELECTOR, "table.fleet tbody tr")]
    assert next(row for row in rows if NEVER in row).startswith("never")
    assert not next(row for row in rows if CLUSTER in row).startswith(("never", "stale", "unknown"))
    assert rows.index(next(row for row in rows if NEVER in row)) < rows.index(
        next(row for row in rows if CLUSTER in row)
    )

    backups.press_until(CLUSTER)
    backups.wait("return document.querySelector('.figures') !== null")
    assert "before <b>the</b> [upgrade](http://x)" in backups.driver.find_element(By.TAG_NAME, "body").text
    newest = backups.driver.find_element(By.CSS_SELECTOR, "main table tbody th a").text
    backups.check(f"cluster-{WIDE}")

    backups.press_until(newest)
    backups.wait("return document.querySelector('.proofs') !== null")
    read = backups.driver.find_element(By.TAG_NAME, "body").text
    for words in ("valid", "every artifact opens to the recorded plaintext", "etcdutl snapshot status etcd.db"):
        assert words in read
    backups.check(f"set-{WIDE}")


def test_a_person_finds_which_object_changed(changed: None, backups: Backups) -> None:
    """From the fleet to the history of one object, wide and narrow."""
    for width in (WIDE, NARROW):
        backups.open(width)
        backups.read()
        backups.follow(CLUSTER)
        backups.wait("return document.querySelector('.figures') !== null && document.querySelectorAll('main table tbody th a').length > 1")  # fmt: skip
        backups.check(f"cluster-{width}")
        second = backups.driver.find_elements(By.CSS_SELECTOR, "main table tbody th a")[1].get_attribute("textContent")
        backups.follow(second)
        backups.wait("return document.querySelector('.proofs') !== null")
        backups.check(f"set-{width}")

        backups.follow("What changed since the backup before")
        backups.shows("What changed")
        backups.check(f"changes-{width}")
        link = "document.querySelector(\"a[aria-label='1 changed: configmaps in default']\")"
        backups.wait(f"return {link} !== null")
        backups.driver.execute_script(f"{link}.click()")
        backups.follow("default/sails")
        backups.shows("sails")
        backups.check(f"history-{width}")
        assert "changed" in backups.driver.find_element(By.CSS_SELECTOR, "main table").text

        backups.follow(second)
        backups.wait("return document.querySelector('.proofs') !== null")
        backups.follow("Objects in it")
        backups.shows("Objects")
        backups.driver.find_element(By.NAME, "search").send_keys("sail")
        backups.wait("return document.querySelectorAll('main table tbody tr').length === 1")
        backups.check(f"objects-{width}")


def test_search_shows_less_as_one_types_and_a_link_leads_to_the_dag(backups: Backups) -> None:
    backups.open()
    backups.read()
    backups.driver.find_element(By.NAME, "search").send_keys(CLUSTER)
    backups.wait("return document.querySelectorAll('table.fleet tbody tr').length === 1")
    backups.press_until(CLUSTER)
    backups.wait("return document.querySelector('.actions') !== null")
    backups.driver.find_element(By.XPATH, "//summary[normalize-space()='Back up now']").click()
    backups.driver.find_element(By.XPATH, f"//details[@open]//a[normalize-space()='backup__{CLUSTER}']").click()
    backups.driver.switch_to.default_content()
    WebDriverWait(backups.driver, SEEN_S).until(lambda driver: driver.current_url.endswith(f"/dags/backup__{CLUSTER}"), "the DAG's page")  # fmt: skip
