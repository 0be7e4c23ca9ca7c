"""The DAG `restore` in Airflow's own UI, in a real browser: the form, the two gates, the end."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.restore_run import DAG, ENDED_S, READING_S, RestoreRun, Spoiled
from tests.integration.restore.lab_restore import AS_BACKED_UP, Markers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

    from etcdkeep.acceptance.airflow import Airflow
    from lab import Site

CLUSTER = "skiff"
REASON = "the disk is full: `etcd` <does> not | start"
SEEN_S = 120.0
RELOADED_S = 10.0
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2000")
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are missing: apt-get install chromium chromium-driver",
    ),
]


class Page:
    """What one person sees, in a browser profile of their own."""

    def __init__(self, driver: webdriver.Chrome, airflow: Airflow) -> None:
        self.driver = driver
        self.airflow = airflow

    def open(self, path: str) -> None:
        self.driver.get(f"{self.airflow.url}/{path}")

    def log_in(self, user: str) -> None:
        """Log in where Airflow asks for it, and return when it shows its home."""
        self.open("")
        self.find("//input[@name='username']").send_keys(user)
        password = self.find("//input[@name='password']")
        password.send_keys(self.airflow.state["passwords"][user])
        password.submit()
        self.find("//a[contains(@href, '/dags')]")

    def find(self, xpath: str, timeout_s: float = SEEN_S, *, reload: bool = False) -> WebElement:
        """Return the first such element that is shown and enabled; `reload` the page until there is one."""
        deadline = time.monotonic() + timeout_s
        wait = WebDriverWait(
            self.driver, RELOADED_S if reload else timeout_s, ignored_exceptions=(StaleElementReferenceException,)
        )
        while True:
            try:
                return wait.until(lambda _: self._shown(xpath), xpath)
            except TimeoutException:
                if time.monotonic() > deadline:
                    raise
                self.driver.refresh()

    def gone(self, xpath: str) -> None:
        """Wait until no such element is shown and enabled."""
        wait = WebDriverWait(self.driver, SEEN_S, ignored_exceptions=(StaleElementReferenceException,))
        wait.until(lambda _: self._shown(xpath) is None, f"{xpath} to be gone")

    def _shown(self, xpath: str) -> WebElement | None:
        found = self.driver.find_elements(By.XPATH, xpath)
        return next((each for each in found if each.is_displayed() and each.is_enabled()), None)

    def start_restore(self) -> str:
        """Fill the form in, trigger, and return the run's id."""
        self.open(f"dags/{self.airflow.on_verify_queue(DAG)}")
        self.find("//button[normalize-space()='Trigger']", reload=True).click()
        form = "//*[@data-testid='config-form']"
        choice = self.find(f"{form}//*[@id='element_cluster']//input[@role='combobox']")
        choice.send_keys(CLUSTER, Keys.ENTER)
        self.find(f"{form}//input[@name='element_reason']").send_keys(REASON)
        self.find(f"{form}//input[@name='element_confirm']").send_keys(CLUSTER)
        self.find(f"{form}//*[@id='switch:element_dry_run']").click()
        self.find("//*[@role='dialog']//button[normalize-space()='Trigger']").click()
        started = WebDriverWait(self.driver, SEEN_S)
        started.until(lambda driver: "/runs/" in driver.current_url, "the run's page")
        return unquote(self.driver.current_url.partition("/runs/")[2].partition("?")[0].partition("/")[0])

    def approve(self, run_id: str, gate: str) -> str:
        """Find the gate among the required actions, read it, approve, again when it asks again; return what was read."""
        run = RestoreRun(self.airflow, run_id)
        while True:
            run.asked(gate)
            tried = run.tries(gate)
            read = self._approve_once(run_id, gate)
            if not run.asks_again(gate, tried):
                return read

    def _approve_once(self, run_id: str, gate: str) -> str:
        """Gates of other runs may wait beside it, those of ended runs too."""
        self.open("required_actions")
        path = f"/dags/{self.airflow.on_verify_queue(DAG)}/runs/{quote(run_id)}/tasks/{gate}"
        self.find(f"//tr//a[contains(@href, '{path}') or contains(@href, '{unquote(path)}')]", reload=True).click()
        button = "//button[@data-testid='hitl-option-Approve']"
        self.find(button)
        time.sleep(READING_S)
        read = self.driver.find_element(By.TAG_NAME, "body").text
        self.find(button).click()
        self.gone(button)
        return read

    def watch(self, run_id: str) -> None:
        """Stay on the run's page until it says that the run succeeded."""
        self.open(f"dags/{self.airflow.on_verify_queue(DAG)}/runs/{run_id}")
        header = f"//*[normalize-space()='{run_id}']/following-sibling::*"
        self.find(f"{header}[normalize-space()='Success'] | {header}//*[normalize-space()='Success']", ENDED_S)


@contextmanager
def browser(airflow: Airflow, user: str, shots: Path) -> Iterator[Page]:
    """Open a browser with a fresh profile and log in; a failure leaves a picture in `shots`."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        page = Page(driver, airflow)
        page.log_in(user)
        yield page
    except BaseException:
        driver.save_screenshot(str(shots / f"{user}.png"))
        raise
    finally:
        driver.quit()


@pytest.fixture
def ruined(airflow: Airflow, site: Site) -> Spoiled:
    """A cluster that was backed up, changed, and then damaged so that its API is gone."""
    spoiled = Spoiled(Markers(site.clusters[CLUSTER]))
    spoiled.markers.write()
    run_id = airflow.trigger(f"backup__{CLUSTER}", {"reason": "e2e"})
    assert airflow.wait(f"backup__{CLUSTER}", run_id, 300)["state"] == "success"
    spoiled.markers.spoil()
    spoiled.ruin()
    return spoiled


def test_two_people_restore_a_cluster_from_the_browser_alone(airflow, ruined, tmp_path):
    with browser(airflow, "alice", tmp_path) as page:
        run_id = page.start_restore()
        read = page.approve(run_id, "approve")
    assert f"Restore cluster {CLUSTER} from backup" in read
    assert f"Reason: {REASON}" in read
    assert "Requested by: alice" in read
    for heading in ("Plan", "What will be lost", "If a step fails", "Limits"):
        assert f"\n{heading}\n" in read
    with browser(airflow, "bob", tmp_path) as page:
        page.approve(run_id, "approve_second")
        page.watch(run_id)
    assert RestoreRun(airflow, run_id).ended() == "success"
    assert ruined.shows(AS_BACKED_UP)
