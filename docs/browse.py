"""Look at every page of a built site in a browser: `python docs/browse.py SITE`.

Each page is opened at the width of a desktop and of a phone, on light and on dark. What
is wrong is printed, and the exit code is 1: a page wider than the screen, an equation
that is not typeset, a picture that is missing, a section without content, an error of a
script. `--shots FOLDER` keeps pictures of all of them, to be looked at.

Needs `pip install playwright` and Chrome or Chromium; equations need a network, or a
site that was built with SGPO_MATHJAX (see conf.py).
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

SIZES = ((1280, 900, "light"), (390, 844, "dark"))
WRONG = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const all = (query) => [...document.querySelectorAll(query)];
  if (document.documentElement.scrollWidth > width) found.push("wider than the screen");
  for (const e of all("[data-mjx-error]"))
    found.push("equation: " + e.getAttribute("data-mjx-error"));
  for (const e of all(".math"))
    if (!e.querySelector("mjx-container"))
      found.push("not typeset: " + e.textContent.slice(0, 60));
  for (const e of all("img"))
    if (e.complete && !e.naturalWidth) found.push("no picture: " + e.src);
  for (const e of all(".system-message"))
    found.push("sphinx: " + e.textContent.slice(0, 80));
  for (const e of all("article section")) {
    const inside = [...e.children].filter((c) => !/^H[1-6]$/.test(c.tagName));
    if (!inside.some((c) => c.innerText.trim() || c.querySelector("img, svg")))
      found.push("empty section: " + e.id);
  }
  return found;
}"""


def wrong(browser, site: pathlib.Path, shots: pathlib.Path | None) -> Iterator[str]:
    """Yield a line on each thing that is wrong with a page."""
    for width, height, theme in SIZES:
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=theme
        )
        errors: list[str] = []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.on("requestfailed", lambda r, errors=errors: errors.append(r.url))
        for path in sorted(site.rglob("*.html")):
            name = str(path.relative_to(site))
            if name.startswith("_static"):  # templates of the theme
                continue
            errors.clear()
            page.goto(path.resolve().as_uri(), wait_until="load")
            page.evaluate("window.MathJax?.startup?.promise")
            for line in [*page.evaluate(WRONG), *errors]:
                yield f"{name} ({width} pixels, {theme}): {line}"
            if shots is not None:
                stem = f"{name.removesuffix('.html').replace('/', '.')}.{width}.png"
                page.screenshot(path=shots / stem, full_page=True)
        page.close()


def main() -> None:
    """Open the pages and print what is wrong."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--browser", help="of Chrome or Chromium; Chrome by default")
    args = parser.parse_args()
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    chosen = {"executable_path": args.browser} if args.browser else {}
    with sync_playwright() as play:
        browser = play.chromium.launch(
            channel=None if args.browser else "chrome", args=["--no-sandbox"], **chosen
        )
        found = list(wrong(browser, args.site, args.shots))
        browser.close()
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
