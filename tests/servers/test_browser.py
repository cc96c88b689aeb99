"""The page of the fleet in a real Chromium: two servers on two hosts, under load.

``RELET_SCREENSHOTS`` names a directory to put pictures of it into.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ..support import driver
from .conftest import Project, _parameters
from .process import PATIENCE_S, python
from .test_gunicorn import COMMAND
from .website import Site

pytest.importorskip("selenium", reason="selenium is not installed (nox -s browser)")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None,
        reason="Chromium is not installed (apt-get install chromium chromium-driver)",
    ),
]

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'"
#: Returns the texts whose contrast is below 4.5 to 1, and the contrast.
_CONTRAST = """
function parts(color) { return color.match(/[\\d.]+/g).map(Number); }
function luminance(c) {
  const [r, g, b] = c.map(v => v / 255).map(
    v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
function back(node) {
  for (; node; node = node.parentElement) {
    const color = parts(getComputedStyle(node).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
}
const found = [];
for (const node of document.querySelectorAll("body *:not(option)")) {
  const own = [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || node.closest("svg")) continue;
  const one = luminance(parts(getComputedStyle(node).color).slice(0, 3));
  const other = luminance(back(node));
  const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
  if (ratio < 4.5) found.push([node.textContent.slice(0, 40), ratio]);
}
return found;
"""
_USER = """
import django; django.setup()
from django.contrib.auth.models import Permission, User
user = User.objects.create_user("{name}", password="{name}-password", is_staff=True)
user.user_permissions.set(Permission.objects.filter(codename__in={permissions!r}))
"""
_MINUTES = """
INSERT INTO relet_dashboard_minute
  (minute, host, alias, size, in_use, waiting, checkouts, waits, waited, timeouts)
SELECT date_trunc('minute', now()) - n * interval '1 minute', 'web-' || h, 'default', 4,
  2 + 1.5 * sin(n / 7.0) + h / 3.0, greatest(0, 3 * sin(n / 5.0)), 900 + 300 * sin(n / 7.0), 40,
  greatest(0, 4 * sin(n / 5.0)), CASE WHEN n IN (20, 21, 22) THEN 3 ELSE 0 END
FROM generate_series(3, 60) n, generate_series(1, 2) h
"""


def on_host(name: str) -> list[str]:
    """Return what to put before a command so that it runs on a host of that *name*."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for host names of processes")
    return ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]


@pytest.fixture
def sites(project: Project) -> Iterator[list[Site]]:
    """The project with its admin on two hosts, each with one worker."""
    project.extra |= {"PROJECT_FLEET": "1", "PROJECT_ADMIN": "1"}
    project.run(*python("django", "migrate", "--run-syncdb", "--verbosity=0"))
    with driver.connect(**_parameters(project.database)) as observer:
        for table in ("relet_dashboard_process", "relet_dashboard_minute", "auth_user CASCADE"):
            observer.execute(f"TRUNCATE {table}")
        observer.execute(_MINUTES)
    for name, permissions in ("admin", ["view_fleet", "end_session"]), ("nobody", []):
        script = _USER.format(name=name, permissions=permissions)
        project.run(*python("django")[:1], "-c", script)
    with ExitStack() as stack:
        yield [
            stack.enter_context(project.site(*on_host(name), *COMMAND, "--workers=1"))
            for name in ("web-1", "web-2")
        ]


@contextmanager
def load(sites: list[Site]) -> Iterator[None]:
    """Have requests run on all sites meanwhile, some of which hold a connection and are idle."""
    done = threading.Event()

    def work(site: Site, path: str) -> None:
        while not done.is_set():
            with suppress(OSError), closing(site.connect()) as client:
                client.request("GET", path)
                client.getresponse().read()

    threads = [
        threading.Thread(target=work, args=(site, path))
        for site in sites
        for path in ("/idle/300", "/idle/30", "/idle/31")
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_window_size(1600, 1100)
    yield browser
    browser.quit()


def log_in(browser: Any, site: Site, name: str, path: str) -> None:
    browser.get(f"http://127.0.0.1:{site.port}/admin/login/?next={path}")
    browser.find_element(By.NAME, "username").send_keys(name)
    browser.find_element(By.NAME, "password").send_keys(f"{name}-password", Keys.ENTER)
    until(lambda: "/login/" not in browser.current_url, "logged in")


def until(happened: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 2 * PATIENCE_S
    while not (found := happened()):
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.2)
    return found


def text_of(browser: Any, section: str) -> str:
    return str(browser.find_element(By.ID, section).text)


def picture(browser: Any, name: str) -> None:
    if directory := os.environ.get("RELET_SCREENSHOTS"):
        browser.save_screenshot(str(Path(directory, f"{name}.png")))


def media(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_the_page(project: Project, sites: list[Site], browser: Any) -> None:
    site = sites[0]
    with load(sites), driver.connect(**_parameters(project.database)) as blocker:
        log_in(browser, site, "admin", "/admin/relet_dashboard/process/")
        pid = blocker.execute("SELECT pg_backend_pid()").fetchone()[0]
        blocker.execute("SELECT set_config('application_name', %s, false)", [HOSTILE])

        def fresh(condition: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: (
                browser.get(f"{browser.current_url.partition('?')[0]}?stacks=1"),
                condition(),
            )[1]

        # A lease has a route once it has outlasted a statement; what is blocked below is its first.
        until(fresh(lambda: "idle/<int:ms>" in text_of(browser, "sessions")), "there was a route")
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE project_write IN ACCESS EXCLUSIVE MODE")
        # Both hosts, with their stacks, and who is blocked by whom.
        until(
            fresh(lambda: {"web-1", "web-2"} <= set(text_of(browser, "processes").split())),
            "both hosts were there",
        )
        until(fresh(lambda: "views.py" in text_of(browser, "sessions")), "there were stacks")
        until(
            fresh(lambda: browser.find_elements(By.CSS_SELECTOR, "tr.blocked")), "one was blocked"
        )
        browser.get(f"{browser.current_url.partition('?')[0]}?refresh=0")
        assert len(browser.find_elements(By.CSS_SELECTOR, "svg.spark polyline")) >= 5

        for scheme in ("light", "dark"):
            media(browser, scheme)
            assert browser.execute_script(_CONTRAST) == []
            picture(browser, f"fleet-{scheme}")
        media(browser, "light")
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert browser.execute_script(_CONTRAST) == []
        picture(browser, "fleet-phone")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

        # By keyboard: past the head, and to a heading that sorts.
        browser.get(browser.current_url)
        body = browser.find_element(By.TAG_NAME, "body")
        body.send_keys(Keys.TAB)
        assert browser.switch_to.active_element.get_attribute("class") == "skip"
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        assert browser.current_url.endswith("#sessions")
        browser.find_element(By.CSS_SELECTOR, "#queries th a").send_keys(Keys.ENTER)
        until(lambda: "queries=-total" in browser.current_url, "sorted")

        # Nothing of what others wrote has run, and the policy has had nothing to refuse.
        assert browser.execute_script("return window.hacked") is None
        assert HOSTILE[:20] in text_of(browser, "sessions")
        problems = [line["message"] for line in browser.get_log("browser")]
        assert [line for line in problems if "/static/" not in line and "favicon" not in line] == []

        # The one that blocks all others is ended from the page.
        browser.find_element(By.CSS_SELECTOR, f"button[aria-label='End session {pid}']").click()
        until(lambda: "The session was ended" in browser.page_source, "ended")
        with pytest.raises(driver.dbapi.Error):
            blocker.execute("SELECT 1")
        until(
            fresh(lambda: not browser.find_elements(By.CSS_SELECTOR, "tr.blocked")), "went on again"
        )


def test_nobody_sees_it_without_the_permission(sites: list[Site], browser: Any) -> None:
    log_in(browser, sites[0], "nobody", "/fleet/")
    assert "403" in browser.page_source
    assert "Connections" not in browser.page_source
